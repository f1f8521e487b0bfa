"""Names of a process that are ready made, for those whose pid says too little."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable

from . import under_uwsgi

worker_number = 0
"""This worker's among those of its gunicorn, from 1; 0 where there is none. Set by `sqlmetrics.gunicorn`."""


_hostname = functools.cache(socket.gethostname)
"""Asked once: a process is named at each of its operations."""


def hostname_pid() -> str:
    """Such as ``web-7d9f-12``: containers that share a store may each have a process 12."""
    return f"{_hostname()}-{os.getpid()}"


def gunicorn_worker() -> int:
    """The lowest number that no other worker has; the pid in gunicorn's master, or without its hooks."""
    return worker_number or os.getpid()


def uwsgi_worker() -> int:
    """``uwsgi.worker_id()``; the pid in uWSGI's master, or elsewhere."""
    return under_uwsgi.worker_id() or os.getpid()


READY_MADE: dict[str, Callable[[], object]] = {
    "hostname-pid": hostname_pid,
    "gunicorn-worker": gunicorn_worker,
    "uwsgi-worker": uwsgi_worker,
}
"""By what ``SQLMETRICS_PROCESS_IDENTIFIER`` calls them."""
