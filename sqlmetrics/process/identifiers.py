"""Ready-made process identifiers, for apps whose pids say too little."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable

from . import under_uwsgi

worker_number = 0
"""The number of this worker among those of its gunicorn, from 1; 0 without gunicorn. `sqlmetrics.gunicorn` sets it."""


_hostname = functools.cache(socket.gethostname)
"""Cached, because each operation calls the process identifier."""


def hostname_pid() -> str:
    """Return host name and pid, such as ``web-7d9f-12``: containers that share a store may each have a process 12."""
    return f"{_hostname()}-{os.getpid()}"


def name_of(identifier: Callable[[], object], pid: int) -> str | None:
    """Return what a process identifier called the process of this host with this pid; None if that is not known.

    Then the pid is no name either: in a container, worker 7 may be alive when the process 7 has ended.
    """
    if identifier is os.getpid:
        return str(pid)
    return f"{_hostname()}-{pid}" if identifier is hostname_pid else None


def gunicorn_worker() -> int:
    """Return the lowest number that no other worker has; the pid in gunicorn's master, or without its hooks."""
    return worker_number or os.getpid()


def uwsgi_worker() -> int:
    """Return ``uwsgi.worker_id()``; the pid in uWSGI's master, or elsewhere."""
    return under_uwsgi.worker_id() or os.getpid()


READY_MADE: dict[str, Callable[[], object]] = {
    "hostname-pid": hostname_pid,
    "gunicorn-worker": gunicorn_worker,
    "uwsgi-worker": uwsgi_worker,
}
"""The functions by their names in ``SQLMETRICS_PROCESS_IDENTIFIER``."""
