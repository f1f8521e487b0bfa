"""What others tell a store: that a process has ended, or that the store is to be emptied."""

from __future__ import annotations

import os

from . import installed as stores


def mark_process_dead(pid: object, path: str | os.PathLike[str] | None = None) -> None:
    """Note that a process has ended. Its ``live*`` gauges leave the scrapes; the store keeps what must outlive it.

    pid: the name from the process identifier, ``os.getpid()`` by default; compared as a string.
    path: the store's file or folder; default: the installed store, else what the environment names. The folder of
        ``PROMETHEUS_MULTIPROC_DIR`` means the same as no path.

    You never have to call it, because the kernel tells scrapes which processes are alive. You may call it more than
    once, and in a signal handler. If the process is alive after all, its next operation brings its rows back.
    Raises PathError or NoStoreError.
    """
    stores.existing_store(stores.meant(path)).mark_process_dead(pid)


def reset(path: str | os.PathLike[str] | None = None, *, force: bool = False) -> None:
    """Empty the store of all series of all processes. Counters begin at zero.

    Raises StoreInUseError while a living process has a part of it. With `force`, it empties the store all the same,
    and these processes begin at zero. Raises PathError, NoStoreError, apsw.BusyError (locked for seconds).
    """
    stores.existing_store(path).reset(force=force, keep_own=False)
