"""Connections that only look: they change no file of a store, not even SQLite's index of its write-ahead log (WAL).

So they need the right to read and no other, and work on a read-only mount, with and without living processes:

* If there is an index (``-shm``), it is opened for reading. SQLite uses it while another process has it open; otherwise
  it reads the WAL into memory (https://www.sqlite.org/wal.html#read_only_databases).
* If index or WAL is missing, SQLite would make it. So if the WAL is missing or empty, and all rows are in the database,
  SQLite is told that nobody changes that file. `Onlooking.is_torn` checks afterwards whether anybody did.
"""

from __future__ import annotations

import os
import stat
from urllib.parse import quote

import apsw

from ..cells import ownership
from ..errors import ForeignFileError, PathError, StoreError
from . import database, files, undisturbed

_FLAGS = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW
_State = tuple[int, int, int, int, int]


class Onlooking(database.StoreConnection):
    """A connection that only looks."""

    state: _State | None = None
    """The status of the database at the beginning, if SQLite opened it as `immutable`."""

    def is_in_place(self) -> bool:
        """Whether the files at their names are the open ones, and an `immutable` one has not changed."""
        return not self.is_torn() and (self.state is not None or super().is_in_place())

    def is_torn(self) -> bool:
        """Whether somebody has changed a database that SQLite opened as `immutable`."""
        return self.state is not None and not (_is_all_in_database(self.path) and _state(self.path) == self.state)


def connect(path: str) -> Onlooking:
    """Open an existing store's file to look at it.

    Raises NoStoreError, PathError (it may not be read), ForeignFileError (NoDatabaseError if it was a store, and is
    damaged), StoreError, or apsw.BusyError if it is being made anew.
    """
    try:
        return database.opened(path, _open, looking=True)
    except database.NoDatabaseError as error:
        if files.has_cells(path, writable=False):
            raise
        raise ForeignFileError(str(error)) from None
    except apsw.CantOpenError as error:
        raise PathError(f"{path}: cannot be opened as a store ({error}); is it a symlink or a folder?") from error


def _open(path: str) -> Onlooking:
    _refuse_unreadable(path)
    if os.path.lexists(path + "-shm") and os.path.lexists(path + "-wal"):
        return _connect(path, "readonly_shm=1")
    if not _is_all_in_database(path):
        raise StoreError(
            f"{path}-wal holds rows, and without {path}-shm they cannot be read by one who changes nothing;"
            f" have somebody who may write open it once, with: sqlite3 {path} .tables"
        )
    state = _state(path)
    connection = _connect(path, "immutable=1")
    connection.state = state
    return connection


def _connect(path: str, how: str) -> Onlooking:
    connection = undisturbed.connect(Onlooking, f"file:{quote(path)}?mode=ro&{how}", _FLAGS)
    return database.set_up(connection, path)


def _is_all_in_database(path: str) -> bool:
    try:
        return os.stat(path + "-wal", follow_symlinks=False).st_size == 0
    except FileNotFoundError:
        return True


def _state(path: str) -> _State:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _refuse_unreadable(path: str) -> None:
    """Raise PathError that names the file that may not be read, and the ways in."""
    for suffix in ownership.SUFFIXES:
        name = path + suffix
        if os.path.lexists(name) and not os.access(name, os.R_OK):
            status = os.stat(name, follow_symlinks=False)
            raise PathError(
                f"{name} ({stat.filemode(status.st_mode)}) belongs to uid {status.st_uid}, gid {status.st_gid}, and uid"
                f" {os.geteuid()} may not read it; look as that user (sudo -u '#{status.st_uid}'), or have the app make"
                " its files readable for a group (SQLMETRICS_MODE=640, SQLMETRICS_GROUP)"
            )
