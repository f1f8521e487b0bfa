"""gunicorn's hooks: ``SQLMETRICS_PATH=… gunicorn -c python:sqlmetrics.gunicorn -w 4 app:app``.

Importing this module installs the store that the environment names, since with ``--preload`` gunicorn loads the
app before it calls any hook. In a configuration file of your own, import the functions::

    from sqlmetrics.gunicorn import child_exit, on_starting, post_fork, post_request, pre_fork, pre_request

gunicorn takes every module-level name here as a setting, so there are few.
"""

from __future__ import annotations

from typing import Any

import sqlmetrics

from . import config as _config
from .client import own_collectors as _own_collectors
from .gunicorn_requests import Requests as _Requests
from .process import identifiers as _identifiers

__all__ = ["child_exit", "on_starting", "post_fork", "post_request", "pre_fork", "pre_request"]

_own_collectors.publish_in_workers()
_store = sqlmetrics.install()
_requests = _Requests() if _config.gunicorn_requests() else None


def on_starting(server: Any) -> None:
    """Drop what earlier runs left in the store, unless a process of it is alive. Runs in the master.

    If the master is root and its workers are not (``--user``), this shares the files with the workers' group.
    """
    _store.begin_run(uid=server.cfg.uid, gid=server.cfg.gid)


def pre_fork(server: Any, worker: Any) -> None:
    """Give a worker the lowest number that no other worker has. Runs in the master."""
    taken = set(map(_number, server.WORKERS.values()))
    worker.sqlmetrics_number = next(number for number in range(1, len(taken) + 2) if number not in taken)


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """Tell a worker its number. Runs in the worker. See ``SQLMETRICS_PROCESS_IDENTIFIER=gunicorn-worker``."""
    _identifiers.worker_number = _number(worker)
    if _requests is not None:
        _requests.begin_worker()


def pre_request(worker: Any, req: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """Note the start of a request, if ``SQLMETRICS_GUNICORN_REQUESTS`` is set. Runs in the worker."""
    if _requests is not None:
        _requests.begin(req)


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """Count a request, if ``SQLMETRICS_GUNICORN_REQUESTS`` is set. Runs in the worker."""
    if _requests is not None:
        _requests.end(req, environ, resp)


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """Take an ended worker out of the ``live*`` gauges. Runs in the master, sometimes in a signal handler."""
    name = _identifiers.name_of(_store.settings.process_identifier, worker.pid)
    if name is not None:
        _store.mark_process_dead(name)


def _number(worker: Any) -> int:
    """Return what `pre_fork` has given the worker; 0 if the configuration has another hook in its place."""
    return getattr(worker, "sqlmetrics_number", 0)
