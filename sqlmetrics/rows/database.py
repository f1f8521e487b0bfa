"""Connections to the store's SQLite file: opened in one way, and watched."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import apsw

from ..cells import ownership
from ..cells.descriptors import identity_of
from ..errors import ForeignFileError, JournalModeError, NoStoreError, PathError
from ..process import waits
from . import undisturbed
from .undisturbed import unbelieved
from .yielding import Connection, YieldedError, opening

WAL_BYTES = 4 * 1024 * 1024
"""A flusher checkpoints when the WAL is longer than this: 1,000 pages, as SQLite itself would."""


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

Identity = tuple[int, int]
"""(device, inode) of a file."""


def file_identity(path: str) -> Identity | None:
    """Return the identity of the file at a path, None if there is none.

    It does not open the file, as closing it would drop SQLite's locks. Raises OSError if the system cannot tell (EIO,
    ENOMEM), which is no sign that the file is gone.
    """
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None
    return identity_of(status)


def found_at(path: str) -> Identity | None:
    """Do the same for a path that a user has named. Raises PathError if the folder may not be entered, or OSError."""
    try:
        return file_identity(path)
    except PermissionError as error:
        raise PathError(
            f"{path}: uid {os.geteuid()} may not enter the folder; change its owner or mode, or name another path"
        ) from error


class StoreConnection(Connection):
    """A connection that knows which files it has open."""

    is_of_file = True
    path = ""
    opened: tuple[Identity | None, ...] = ()
    is_copy = False
    """Whether it is a copy in memory of a database that was deleted; see `in_memory`."""

    def note_files(self) -> None:
        """Note that the files at their names now are the open ones."""
        self.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # opens the WAL
        self.opened = self.at_names()

    def at_names(self) -> tuple[Identity | None, ...]:
        """Return the identities of the files that now have the names of the database, the WAL and its index."""
        return tuple(file_identity(self.path + suffix) for suffix in ("", "-wal", "-shm"))

    def is_in_place(self) -> bool:
        """Whether other processes that open the store find the files that this connection has open."""
        return not self.is_copy and None not in self.opened and self.opened == self.at_names()

    def is_torn(self) -> bool:
        """Whether a reading may mix two states: SQLite was told that nobody writes, but somebody did."""
        return False

    def holds_database(self) -> bool:
        """Whether no other file has taken the name of the database, whatever became of the WAL."""
        return file_identity(self.path) in (None, self.opened[0])

    def in_memory(self) -> StoreConnection:
        """Return a copy in memory of the files, which were deleted. It may stay open over a fork. Raises apsw.Error."""
        copy = undisturbed.connect(StoreConnection, ":memory:")
        copy_into(copy, self)
        copy.path, copy.opened, copy.is_copy = self.path, self.opened, True
        copy.is_of_file = False
        return copy


def copy_into(empty: apsw.Connection, source: apsw.Connection) -> None:
    """Fill an empty database in memory with a copy of another database. Raises apsw.Error."""
    data = bytearray(source.serialize("main") or b"")  # None: no page at all
    data[18:20] = b"\1\1"  # not WAL, as https://www.sqlite.org/c3ref/deserialize.html says
    empty.deserialize("main", data)


class CutOffError(apsw.BusyError):
    """A file of this connection was deleted or replaced: nobody would read what it writes. Open another one."""


# One function for each setting of a connection; `connect` applies them all.


def wait_for_others(connection: apsw.Connection, seconds: float) -> None:
    """Make statements wait so many seconds for locks of others."""
    connection.set_busy_timeout(round(1000 * seconds))


def _wait_a_little(connection: apsw.Connection) -> None:
    """Wait out short transactions of others, but no long ones: a fork must be able to stop a flush."""
    wait_for_others(connection, waits.WRITE_LOCK)


def _keep_wal(connection: apsw.Connection) -> None:
    """Leave -wal and -shm in place at the last close: an unprivileged worker may be unable to make them anew."""
    switch = ctypes.c_int(1)
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(switch))


def _leave_wal_at_close(connection: apsw.Connection) -> None:
    """No checkpoint at the last close: the WAL may be a deleted file by then, and the database another's."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def _sync_at_checkpoints(connection: apsw.Connection) -> None:
    """No fsync at a commit: with WAL a power cut may lose the last commits but damages nothing.

    https://www.sqlite.org/pragma.html#pragma_synchronous
    """
    connection.execute("PRAGMA synchronous = NORMAL")


def _no_checkpoint_in_commits(connection: apsw.Connection) -> None:
    """Only the flusher checkpoints, so that no fsync happens where somebody waits."""
    connection.execute("PRAGMA wal_autocheckpoint = 0")


def _shorten_wal(connection: apsw.Connection) -> None:
    """When the WAL starts over, cut it to the size at which it is checkpointed."""
    connection.pragma("journal_size_limit", WAL_BYTES)


def _sort_in_memory(connection: apsw.Connection) -> None:
    """Large GROUP BYs need no writable temporary folder."""
    connection.execute("PRAGMA temp_store = MEMORY")


def leave_zeros(connection: apsw.Connection) -> None:
    """Overwrite what is deleted, whole pages too: label values may be personal data."""
    connection.execute("PRAGMA secure_delete = ON")


SETTINGS: tuple[Callable[[apsw.Connection], None], ...] = (
    _wait_a_little,
    _keep_wal,
    _leave_wal_at_close,
    _sync_at_checkpoints,
    _no_checkpoint_in_commits,
    _shorten_wal,
    _sort_in_memory,
    leave_zeros,
)


def connect(path: str) -> StoreConnection:
    """Open an existing store's file; never creates one.

    Raises NoStoreError, PathError (it cannot be opened), ForeignFileError, or StoreError if somebody keeps it locked.
    """
    try:
        return opened(path, _open)
    except apsw.CantOpenError as error:
        raise PathError(f"{path}: cannot be opened as a store, {_why(path)}") from error


def _open(path: str) -> StoreConnection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
    return set_up(undisturbed.connect(StoreConnection, path, flags), path)


S = TypeVar("S", bound=StoreConnection)


def opened(path: str, open_: Callable[[str], S], *, looking: bool = False) -> S:
    """Open an existing store's file with `open_`; make sure that nobody has put another file there meanwhile.

    looking: see `ownership.check`. Raises NoStoreError, ForeignFileError, CutOffError, PathError if there is no plain
    file, and what `open_` does.
    """
    before = found_at(path)
    if before is None:
        raise NoStoreError(f"no store at {path!r}; is the app running with that path?")
    ownership.check(path, looking=looking)
    if kind := _other_kind(path):
        raise PathError(f"{path}: cannot be opened as a store, {kind}; name another path")
    try:
        with opening(), unbelieved(path):
            connection = open_(path)
    except apsw.NotADBError:
        raise not_a_database(path) from None
    except apsw.CantOpenError:
        if file_identity(path) != before:
            raise CutOffError(f"{path}: the store was replaced at this moment") from None
        raise
    try:
        ownership.check(path, looking=looking)  # again: somebody may have put a file there meanwhile
        if connection.opened[0] != before:
            raise CutOffError(f"{path}: the store was replaced at this moment")
    except BaseException:
        connection.close()
        raise
    return connection


def set_up(connection: S, path: str) -> S:
    """Apply all settings to a connection to the store at `path`, which is closed if that fails. Raises apsw.Error."""
    try:
        connection.path = path
        for apply in SETTINGS:
            apply(connection)
        connection.note_files()
    except BaseException:
        connection.close()
        raise
    return connection


def _other_kind(path: str) -> str:
    """Return what there is instead of a plain file; '' if it is one, or is gone.

    SQLite would open a fifo or a device, and what it reads there looks like a damaged store, which is moved away.
    """
    if os.path.islink(path):
        return f"it is a symlink to {os.readlink(path)}"
    if os.path.isdir(path):
        return "it is a folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return f"it is no plain file ({stat.filemode(os.stat(path).st_mode)})"
    return ""


def _why(path: str) -> str:
    if kind := _other_kind(path):
        return f"{kind}; name another path"
    mode = stat.filemode(os.stat(path).st_mode)
    if os.access(path, os.R_OK | os.W_OK) and os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        return f"though uid {os.geteuid()} may ({mode}): look for a limit on open files (ulimit -n)"
    return f"uid {os.geteuid()} may not read and write it ({mode}) or create files beside it; name another path"


class NoDatabaseError(ForeignFileError):
    """The file is not a SQLite database at all: it belongs to another program, or is ours and damaged."""


def not_a_database(path: str) -> NoDatabaseError:
    """Return the error for a file that is not a SQLite database."""
    return NoDatabaseError(f"{path}: this file is not a SQLite database; move it away or name another path")


@contextmanager
def transaction(connection: apsw.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Run a transaction: commit at the end, roll back on any exception, and raise the first error.

    With the write lock held, raises CutOffError if the files are not in their places any more. So nobody writes to
    files after another process has read them for the last time.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        if kind == "IMMEDIATE" and isinstance(connection, StoreConnection) and not connection.is_in_place():
            raise CutOffError(f"{connection.filename}: a file of the store was deleted or replaced")
        yield
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def bump(connection: apsw.Connection, counter: str) -> None:
    """Raise one of the counters in the table `store`, which tell readers what they have to read again."""
    connection.execute(f"UPDATE store SET {counter} = {counter} + 1")  # noqa: S608


def roll_back(connection: apsw.Connection) -> None:
    """End a transaction if one is open: SQLite itself rolls back on a full disk and the like."""
    if connection.in_transaction:
        execute = connection.at_once if isinstance(connection, Connection) else connection.execute
        execute("ROLLBACK")


def use_wal(connection: StoreConnection, path: str) -> None:
    """Switch to write-ahead logging and read it back. Raises JournalModeError that names the mode found."""
    try:
        mode = connection.pragma("journal_mode", "wal")
    except YieldedError:
        raise
    except apsw.BusyError:
        mode = f"{connection.pragma('journal_mode')} (another program keeps it locked)"
    if mode != "wal":
        raise JournalModeError(
            f"{path}: SQLite cannot use journal mode WAL here, it stays {mode};"
            " the store needs a local disk or a tmpfs, and no other program may have the file open meanwhile"
        )
    if None in connection.opened:
        connection.note_files()
