"""The store's connections stay what they are, whatever the app has told `apsw` to do to each connection.

An app that uses `apsw` itself may have `apsw.connection_hooks`: functions that are called with every new connection of
the process. They set timeouts, journal modes or row traces that fit the app's database, run SQL, or raise.
"""

from __future__ import annotations

from collections import UserList
from collections.abc import Callable, Iterator
from typing import TypeVar

import apsw

from ..process import native
from .yielding import Connection

Hook = Callable[[apsw.Connection], None]

C = TypeVar("C", bound=apsw.Connection)
_NEW = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
VFS = "unix"
"""SQLite's own way to files; the app may have made another one the default (``apsw.set_default_vfs``)."""

_opening: set[int] = set()


class _Hooks(UserList[Hook]):
    """The app's hooks, which are none for a thread that opens a connection of the store.

    It takes the place of the app's list for good. To put that back after each opening would be a race between threads.
    """

    def __init__(self, theirs: list[Hook]):
        super().__init__()
        self.data = theirs  # itself: the app may have kept hold of it

    def __iter__(self) -> Iterator[Hook]:
        return iter(()) if native.get_ident() in _opening else iter(self.data)


def connect(kind: type[C], filename: str, flags: int = _NEW) -> C:
    """Open a database with a class of connections, and no hook of the app's. Raises apsw.Error."""
    if not isinstance(apsw.connection_hooks, _Hooks):
        apsw.connection_hooks = _Hooks(apsw.connection_hooks)  # type: ignore[assignment]
    thread = native.get_ident()
    _opening.add(thread)
    try:
        return kind(filename, flags=flags, vfs=VFS)
    finally:
        _opening.discard(thread)


def in_memory() -> apsw.Connection:
    """An empty database in memory."""
    return connect(Connection, ":memory:")
