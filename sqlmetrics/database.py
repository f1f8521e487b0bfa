"""Connections to the store's SQLite file: opened in one way, checked, and migrated."""

from __future__ import annotations

import ctypes
import functools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from .errors import (
    CarrayError,
    ForeignFileError,
    JournalModeError,
    NoStoreError,
    PathError,
    SchemaError,
    StoreError,
)

APPLICATION_ID = 0x736D6574  # "smet"
BUSY_MS = 20
"""A statement waits this long for another's write lock; who can wait longer tries again (see `retry`)."""
WAL_BYTES = 4 * 1024 * 1024
"""A flusher checkpoints when the WAL is longer than this: 1,000 pages, as SQLite itself would."""


@functools.cache
def migrations() -> list[tuple[int, str]]:
    """The numbered migrations, in order: (number, SQL). Installed beside this module, in a checkout at the top.

    Read once, when this module is imported: a worker that has given up its rights may not read them any more.
    """
    here = Path(__file__).parent
    folder = here / "migrations" if (here / "migrations").is_dir() else here.parent / "migrations"
    return [(int(file.name[:4]), file.read_text("utf-8")) for file in sorted(folder.glob("[0-9]*.sql"))]


migrations()


def schema_version() -> int:
    """The version of the newest migration."""
    return migrations()[-1][0]


def check_carray() -> None:
    """Raise CarrayError unless apsw can bind arrays: scrapes read the cells through SQLite's carray."""
    try:
        apsw.Connection(":memory:").execute(
            "SELECT value FROM carray(?)", (apsw.carray(b"\0" * 8, flags=0),)
        ).fetchall()
    except (AttributeError, apsw.Error) as error:
        raise CarrayError(
            f"apsw {apsw.apsw_version()} at {apsw.__file__} was built without SQLite's carray;"
            " the wheels on PyPI have it: pip install --force-reinstall --only-binary apsw 'apsw>=3.51.1.0'"
        ) from error


# One function for each setting of a connection; `connect` applies them all.


def _wait_a_little(connection: apsw.Connection) -> None:
    """Wait out short transactions of others, but no long ones: a fork must be able to stop a flush."""
    connection.set_busy_timeout(BUSY_MS)


def _keep_wal(connection: apsw.Connection) -> None:
    """Leave -wal and -shm in place at the last close: an unprivileged worker may be unable to make them anew."""
    switch = ctypes.c_int(1)
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(switch))


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


def _check_references(connection: apsw.Connection) -> None:
    """Rows of a deleted process go with it."""
    connection.execute("PRAGMA foreign_keys = ON")


SETTINGS: tuple[Callable[[apsw.Connection], None], ...] = (
    _wait_a_little,
    _keep_wal,
    _sync_at_checkpoints,
    _no_checkpoint_in_commits,
    _shorten_wal,
    _sort_in_memory,
    _check_references,
)


def connect(path: str) -> apsw.Connection:
    """Open an existing store's file; never creates one.

    Raises NoStoreError, PathError (it cannot be opened), ForeignFileError, or StoreError if somebody keeps it locked.
    """
    if not os.path.lexists(path):
        raise NoStoreError(f"no store at {path!r}; is the app that calls sqlmetrics.install() running with that path?")
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
        for apply in SETTINGS:
            apply(connection)
    except apsw.CantOpenError as error:
        raise PathError(f"{path}: cannot be opened as a store, {_why(path)}; name another path") from error
    except apsw.NotADBError:
        raise _not_a_database(path) from None
    return connection


def _why(path: str) -> str:
    if os.path.islink(path):
        return f"it is a symlink to {os.readlink(path)}"
    if os.path.isdir(path):
        return "it is a folder"
    mode = stat.filemode(os.stat(path).st_mode)
    return f"uid {os.geteuid()} may not read and write it ({mode}) or create files beside it"


def _not_a_database(path: str) -> ForeignFileError:
    return ForeignFileError(f"{path}: this file is not a SQLite database; move it away or name another path")


@contextmanager
def transaction(connection: apsw.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Commit at the end, roll back on any exception; the first error is the one that is raised."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself on a full disk and the like
            connection.execute("ROLLBACK")
        raise


def check(connection: apsw.Connection, path: str) -> int:
    """Return the schema version of what is at `path`, 0 if it is empty; refuse what is not ours.

    Raises ForeignFileError or SchemaError; writes nothing.
    """
    try:
        application = connection.pragma("application_id")
        version = connection.pragma("user_version")
        empty = not connection.execute("SELECT count(*) FROM sqlite_schema").get
    except apsw.NotADBError:
        raise _not_a_database(path) from None
    except apsw.BusyError as error:
        raise StoreError(f"{path}: another program keeps the file locked for itself ({error}); stop it") from error
    if application == 0 and version == 0 and empty:
        return 0
    if application != APPLICATION_ID:
        raise ForeignFileError(
            f"{path}: this SQLite file belongs to another program (application_id {application:#x},"
            f" a store has {APPLICATION_ID:#x}); name another path"
        )
    if version > schema_version() and connection.execute("SELECT min_writer FROM store").get > schema_version():
        raise SchemaError(
            f"{path}: the store has schema {version}, this sqlmetrics knows {schema_version()};"
            " upgrade sqlmetrics in this process, or give it a store of its own"
        )
    return int(version)


def use_wal(connection: apsw.Connection, path: str) -> None:
    """Switch to write-ahead logging and read it back. Raises JournalModeError that names the mode found."""
    try:
        mode = connection.pragma("journal_mode", "wal")
    except apsw.BusyError:
        mode = f"{connection.pragma('journal_mode')} (another program keeps it locked)"
    if mode != "wal":
        raise JournalModeError(
            f"{path}: SQLite cannot use journal mode WAL here, it stays {mode};"
            " the store needs a local disk or tmpfs, and nobody else in the file while it is made"
        )


def migrate(connection: apsw.Connection, version: int, store: str) -> None:
    """Apply the migrations above `version`, each with its number in one transaction."""
    for number, sql in migrations():
        if number > version:
            with transaction(connection):
                connection.execute(sql)
                connection.pragma("user_version", number)
                connection.pragma("application_id", APPLICATION_ID)
                if number == 1:
                    connection.execute("INSERT INTO store (id) VALUES (?)", (store,))


def store_id(connection: apsw.Connection, path: str) -> str:
    """The store's id. Raises StoreError if it has none."""
    found = connection.execute("SELECT id FROM store").get
    if not isinstance(found, str):
        raise StoreError(f"{path}: the table store has no row; move the file away and start again")
    return found
