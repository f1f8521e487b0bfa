"""What is told to a store from outside: that a process has ended, or that all of it is to go."""

from __future__ import annotations

import os

from . import installed as stores


def mark_process_dead(pid: object, path: str | os.PathLike[str] | None = None) -> None:
    """Note that a process has ended: its ``live*`` gauges leave the scrapes, what must outlive it is kept.

    pid: what the process identifier gave for it, ``os.getpid()`` by default; compared as a string.
    path: the store's file or folder; default: the installed store, else what the environment names. The folder of
        ``PROMETHEUS_MULTIPROC_DIR`` means the same as no path.

    It is never necessary (the kernel tells scrapes who is alive), may be called more than once, and from a
    signal handler. Should the process live after all, its next operation brings its rows back.
    Raises PathError or NoStoreError.
    """
    stores.existing_store(stores.meant(path)).mark_process_dead(pid)


def reset(path: str | os.PathLike[str] | None = None, *, force: bool = False) -> None:
    """Empty the store: every series of every process is gone, counters begin at zero.

    Raises StoreInUseError while a living process holds a part of it, unless `force` is given: then what these
    processes count next starts anew. Raises PathError, NoStoreError, apsw.BusyError (locked for seconds).
    """
    stores.existing_store(path).reset(force=force, keep_own=False)
