"""Opens databases, whatever the app has told `apsw` to do, and whatever another user has put beside them.

**Hooks.** An app that uses `apsw` itself may have `apsw.connection_hooks`: functions that are called with every new
connection of the process. They set timeouts, journal modes or row traces that fit the app's database, run SQL, or
raise. The store's connections stay what they are.

**A planted journal.** SQLite takes a file called ``-journal`` for what a crash has left ("hot journal",
https://www.sqlite.org/lockingv3.html#hot_journals) and writes its pages into the database, although that is in WAL
mode, which has none. It ignores it while somebody has the lock that a writer of such a journal would have. So this code
takes that lock, by SQLite's own means, while it opens the database. Once the WAL is open, SQLite does not look again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import UserList
from collections.abc import Callable, Iterator
from typing import TypeVar

import apsw

from ..cells import ownership
from ..errors import ForeignFileError
from ..process import native, waits
from .yielding import Connection

Hook = Callable[[apsw.Connection], None]

C = TypeVar("C", bound=apsw.Connection)
_NEW = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
VFS = "unix"
"""SQLite's own way to files; the app may have made another one the default (``apsw.set_default_vfs``)."""

_opening: set[int] = set()


class _Hooks(UserList[Hook]):
    """The app's hooks; but an empty list for a thread that opens a connection of the store.

    It replaces the app's list for good, because putting that back after each opening would be a race between threads.
    """

    def __init__(self, theirs: list[Hook]):
        super().__init__()
        self.data = theirs  # not a copy: the app may still change its list

    def __iter__(self) -> Iterator[Hook]:
        return iter(()) if native.get_ident() in _opening else iter(self.data)


def connect(kind: type[C], filename: str, flags: int = _NEW) -> C:
    """Open a database with this class of connections, and without the app's hooks. Raises apsw.Error."""
    if not isinstance(apsw.connection_hooks, _Hooks):
        apsw.connection_hooks = _Hooks(apsw.connection_hooks)  # type: ignore[assignment]
    thread = native.get_ident()
    _opening.add(thread)
    try:
        return kind(filename, flags=flags, vfs=VFS)
    finally:
        _opening.discard(thread)


def in_memory() -> apsw.Connection:
    """Open an empty database in memory."""
    return connect(Connection, ":memory:")


_IN_WAL_MODE = b"\2\2"
"""Bytes 18 and 19 of a database, see https://www.sqlite.org/fileformat2.html#file_format_version_numbers."""


@contextlib.contextmanager
def unbelieved(path: str) -> Iterator[None]:
    """Make SQLite ignore a ``-journal`` that is planted, or that appears while the database at `path` is opened.

    SQLite may use one of the same user, left by a shell, say. Raises ForeignFileError or apsw.BusyError if there is a
    planted one and the lock cannot be taken: the database is in another mode, or others keep it locked.
    """
    planted = ownership.planted_journal(path)
    with contextlib.ExitStack() as stack:
        if planted or not os.path.lexists(path + ownership.JOURNAL_SUFFIX):
            is_locked = stack.enter_context(_reserved(path, patiently=bool(planted)))
            if planted and not is_locked:
                raise ForeignFileError(f"{planted} (SQLite would obey it)")
        yield


@contextlib.contextmanager
def _reserved(path: str, *, patiently: bool) -> Iterator[bool]:
    """Take the lock; False if the database is in another mode, is read-only, or (not patiently) is busy."""
    try:
        file = apsw.VFSFile(VFS, path, [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0])
    except apsw.Error:
        yield False
        return
    try:
        yield _reserve(file, patiently=patiently)
    finally:
        file.xClose()


def _reserve(file: apsw.VFSFile, *, patiently: bool) -> bool:
    end = time.monotonic() + waits.UNBELIEVED
    while True:
        try:
            file.xLock(apsw.SQLITE_LOCK_SHARED)
            if file.xRead(2, 18) == _IN_WAL_MODE:
                file.xLock(apsw.SQLITE_LOCK_RESERVED)
                return True
            return False
        except apsw.BusyError:
            file.xUnlock(apsw.SQLITE_LOCK_NONE)
            if time.monotonic() >= end:
                if patiently:
                    raise
                return False
            native.sleep(0.001)
        except apsw.Error:  # the file is read-only
            return False
