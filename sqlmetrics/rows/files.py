"""The files of a store as a set: looked at, found in order or made anew, under the lock of their folder.

The database and the cells file are a pair: the pair's id is in both. Where they do not match, where the machine was
rebooted since, or where one of them is damaged, a new pair is made of what can be read (see `renew`). It takes the
old one's place in one go, so that every process that has the old one open finds out by a look at the names.
"""

from __future__ import annotations

import contextlib
import os

import apsw

from .. import config
from ..cells.cellsfile import CellsFile, boot_id, open_cells
from ..cells.locks import folder_lock
from ..errors import DamagedError, NoStoreError, PathError, StoreError
from ..trouble import Trouble
from . import checkup, database, renew, schema, trust
from .database import file_identity
from .renew import CELLS_SUFFIX, Pair

_TRIES = 250
"""How often a store that another program keeps locked is tried at set-up, 20 ms each: five seconds."""


def open_or_create(
    path: str,
    settings: config.Settings,
    trouble: Trouble,
    last: database.StoreConnection | None = None,
    cells: CellsFile | None = None,
) -> Pair:
    """Return the pair of files of the store at `path`; makes it, or makes it anew, as needed.

    last, cells: what this process has open of the store, if that is to be mended.
    Raises PathError, ForeignFileError, SchemaError, JournalModeError or StoreError (what is found cannot be used).
    """
    config.check_writable(path)
    try:
        with folder_lock(os.path.dirname(path)):
            trust.check(path)
            is_cut_off = last is not None and last.holds_database() and not last.is_in_place()
            found, damage = (None, "") if is_cut_off else _look(path, is_ours=cells is not None)
            if found is not None:
                return found
            renewed = renew.renew(path, settings, last, cells)
    except (OSError, apsw.Error) as error:
        raise StoreError(f"{path}: the store cannot be made or opened: {error}") from error
    if damage:
        outcome = (
            f"moved to {path}{renew.DAMAGED_SUFFIX}" if renewed.moved_aside else "mended: what can be read is kept"
        )
        trouble.report("damaged", f"{path}: the store was damaged ({damage}) and is {outcome}")
        trouble.over("damaged", f"{path}: the store is in order")
    return renewed.pair


def _look(path: str, *, is_ours: bool) -> tuple[Pair | None, str]:
    """The pair that is there if it is in order, or else None and, where files are damaged, what is the matter."""
    if file_identity(path) is None:
        return None, ""
    try:
        with contextlib.closing(database.connect(path)) as connection:
            return _fitting(connection, path), ""
    except (apsw.Error, DamagedError, database.NoDatabaseError) as error:
        is_foreign = isinstance(error, database.NoDatabaseError) and not is_ours and not _has_cells(path)
        if is_foreign or not renew.is_damage(error):
            raise
        return None, str(error)


def _has_cells(path: str) -> bool:
    """Whether a cells file of ours says that what is at the path was a store."""
    file = open_cells(path + CELLS_SUFFIX, writable=True)
    return file is not None and file.header() is not None


def _fitting(connection: database.StoreConnection, path: str) -> Pair | None:
    connection.set_busy_timeout(database.BUSY_MS * _TRIES)
    version = schema.check(connection, path)
    if connection.readonly("main"):
        raise PathError(
            f"{path}: uid {os.geteuid()} may read but not write it; change its owner or mode (mode=, group=)"
        )
    database.use_wal(connection, path)
    if version == 0:
        return None
    schema.migrate(connection, version)
    file = open_cells(path + CELLS_SUFFIX, writable=True)
    header = file.header() if file else None
    if file is None or header is None or header[:3] != (*schema.ids(connection, path), boot_id()):
        return None
    if not checkup.knows_the_settled(connection, file):
        return None
    if file.is_doubted() or not file.is_in_use():
        checkup.check(connection, file)
    file.trust()
    return Pair(file, connection.opened[0], header.store)


def open_existing(connection: apsw.Connection, path: str) -> CellsFile:
    """Return the cells file of an existing store for reading; makes and mends nothing.

    Raises NoStoreError, ForeignFileError, SchemaError or DamagedError.
    """
    with database.transaction(connection, "DEFERRED"):  # one look: it may be in the making
        version = schema.check(connection, path)
        ids = schema.ids(connection, path) if version else ("", "")
    if version == 0:
        raise NoStoreError(f"{path} is empty; is the app that calls sqlmetrics.install() running with that path?")
    file = open_cells(path + CELLS_SUFFIX, writable=os.access(path + CELLS_SUFFIX, os.W_OK))
    header = file.header() if file else None
    if file is None or header is None or header[:3] != (*ids, boot_id()):
        raise DamagedError(
            f"{path}{CELLS_SUFFIX} is missing or does not belong to {path};"
            " it is made anew by a process of the app that counts, or when one starts"
        )
    return file


def open_for_notices(path: str) -> Pair:
    """Return the pair of files of an existing store; see `open_existing`."""
    trust.check(path)
    with contextlib.closing(database.connect(path)) as connection:
        file = open_existing(connection, path)
        return Pair(file, connection.opened[0], schema.ids(connection, path)[0])
