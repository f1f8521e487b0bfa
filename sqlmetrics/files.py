"""The files of a store as a set: found, made, or put in order again, under the lock of their folder.

The database and the cells file belong together: the database's id is in the cells file's header. Where they do
not match, or the machine was rebooted since, the rows win: what the processes of that time had is folded, and
a new cells file is made.
"""

from __future__ import annotations

import contextlib
import os
import uuid

import apsw

from . import config, database, settle
from .cells import CellsFile, boot_id, create_cells, open_cells
from .connections import file_identity
from .errors import NoStoreError, PathError, StoreError
from .locks import folder_lock

CELLS_SUFFIX = "-cells"
_COMPANIONS = ("-wal", "-shm", CELLS_SUFFIX)
_TRIES = 250
"""How often a store that another program keeps locked is tried at set-up, 20 ms each: five seconds."""


def open_or_create(path: str, settings: config.Settings) -> CellsFile:
    """Return the cells file of the store at `path`, making or mending the store as needed.

    Raises PathError, ForeignFileError, SchemaError, JournalModeError, StoreError (what is found cannot be used) or
    CarrayError.
    """
    database.check_carray()
    config.check_writable(path)
    try:
        with folder_lock(os.path.dirname(path)):
            if file_identity(path) is None:
                _make_empty(path, settings)
            connection = database.connect(path)
            try:
                return _in_order(connection, path, settings)
            finally:
                connection.close()
    except (OSError, apsw.Error) as error:
        raise StoreError(f"{path}: the store cannot be made or opened: {error}") from error


def _make_empty(path: str, settings: config.Settings) -> None:
    """Make an empty file with the right mode; what is left of a store without its database goes first."""
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, settings.mode)
    try:
        os.fchmod(fd, settings.mode)  # SQLite gives -wal and -shm the same mode and owner
        if settings.gid() >= 0:
            os.fchown(fd, -1, settings.gid())
    except OSError as error:
        os.unlink(path)
        raise PathError(f"{path}: mode {settings.mode:o} and group {settings.group} cannot be set: {error}") from error
    finally:
        os.close(fd)


def _in_order(connection: apsw.Connection, path: str, settings: config.Settings) -> CellsFile:
    connection.set_busy_timeout(database.BUSY_MS * _TRIES)
    version = database.check(connection, path)
    if connection.readonly("main"):
        raise PathError(
            f"{path}: uid {os.geteuid()} may read but not write it; change its owner or mode (mode=, group=)"
        )
    database.use_wal(connection, path)
    if version < database.schema_version():
        database.migrate(connection, version, uuid.uuid4().hex)
    store = database.store_id(connection, path)
    file = open_cells(path + CELLS_SUFFIX, writable=True)
    if file is not None and file.header() == (store, boot_id()):
        return file
    return _replace_cells(connection, path, store, settings)


def _replace_cells(connection: apsw.Connection, path: str, store: str, settings: config.Settings) -> CellsFile:
    with database.transaction(connection):
        uses = settle.adopt(connection)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + CELLS_SUFFIX)
    return create_cells(path + CELLS_SUFFIX, store, uses=uses, mode=settings.mode, gid=settings.gid())


def open_existing(connection: apsw.Connection, path: str) -> CellsFile:
    """Return the cells file of an existing store for reading; makes and mends nothing.

    Raises NoStoreError, ForeignFileError, SchemaError or StoreError.
    """
    with database.transaction(connection, "DEFERRED"):  # one look: it may be in the making
        version = database.check(connection, path)
        store = database.store_id(connection, path) if version else ""
    if version == 0:
        raise NoStoreError(f"{path} is empty; is the app that calls sqlmetrics.install() running with that path?")
    file = open_cells(path + CELLS_SUFFIX, writable=os.access(path + CELLS_SUFFIX, os.W_OK))
    if file is None or file.header() != (store, boot_id()):
        raise StoreError(
            f"{path}{CELLS_SUFFIX} is missing or does not belong to {path};"
            " it is made anew when a process of the app starts"
        )
    return file


def open_for_notices(path: str) -> CellsFile:
    """Return the cells file of an existing store; see `open_existing`."""
    connection = database.connect(path)
    try:
        return open_existing(connection, path)
    finally:
        connection.close()
