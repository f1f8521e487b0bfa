"""Checks the files of a store as a set, and makes them anew if they are not in order, under their lock.

The database and the cells file are a pair: the pair's id is in both. If they are not in order, a new pair is made from
what can be read (see `renew`). It takes the old one's place at once, so that every process that has the old one open
finds out by a look at the names.

All evidence that the files are not in order (`Evidence`):

* there is no database, or nothing in it: it was never made, or deleted, or truncated;
* a file that this process has open is not at its name any more (`StoreConnection.is_in_place`);
* the WAL is another database's (`renew.check_wal`);
* the cells file is missing, is another pair's, or was made in an earlier boot of the machine;
* the cells file has let go of a process that the rows do not know as settled: the rows are an older copy
  (`checkup.knows_the_settled`, from one look that fits together whatever others write meanwhile);
* SQLite says that the database is damaged, or a check finds that its texts make no sense, or that rows, journals and
  blocks contradict each other (`checkup.check`).

One look is not enough to make files anew. A process that uses the store comes here when two of its rounds saw the same
change (see `follow`), and here two looks, with the lock held, must find the same evidence (`_agreed`). Only if there is
no file at all, one look is enough.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

import apsw

from .. import config
from ..cells import ownership
from ..cells.cellsfile import CellsFile, boot_id, open_cells
from ..errors import DamagedError, NoStoreError, PathError, StoreError
from ..process import fork, native, waits
from ..process.trouble import Trouble
from . import checkup, database, renew, schema
from .damage import damage_of, is_damage
from .database import file_identity
from .making import making
from .renew import CELLS_SUFFIX, Pair
from .yielding import YieldedError

_LOOKS = 10
_BETWEEN_LOOKS = 0.02
"""Seconds between two looks that must agree, since a person needs some time to delete, restore or copy all files."""


def open_or_create(
    path: str,
    settings: config.Settings,
    trouble: Trouble,
    last: database.StoreConnection | None = None,
    cells: CellsFile | None = None,
    *,
    seconds: float,
) -> Pair:
    """Return the pair of files of the store at `path`; make them, or make them anew, if needed.

    last, cells: what this process has open of the store, if files may have to be made anew.
    seconds: how long to wait for another process that makes the files, or a program that keeps them for itself.
    Raises PathError, ForeignFileError, SchemaError, JournalModeError or StoreError (what is found cannot be used);
    apsw.BusyError if it might help to wait longer, as a process does at set-up.
    """
    while True:
        try:
            return _open_or_create(path, settings, trouble, last, cells, seconds)
        except (LeftToOthersError, renew.OvertakenError):
            if seconds < waits.SET_UP:
                raise
            native.sleep(_BETWEEN_LOOKS)


def _open_or_create(
    path: str,
    settings: config.Settings,
    trouble: Trouble,
    last: database.StoreConnection | None,
    cells: CellsFile | None,
    seconds: float,
) -> Pair:
    config.check_writable(path)
    try:
        with making(path, settings, seconds):
            ownership.check(path)
            found = _agreed(path, last, seconds, is_ours=cells is not None)
            if isinstance(found, Pair):
                renew.forget_unfinished(path)
                _left_since.pop(path, None)
                return found
            if last is None and _is_left_to_others(path):
                raise LeftToOthersError(f"{path}: a living process is to make the files anew")
            renewed = renew.renew(path, settings, last, cells, found.files)
            _left_since.pop(path, None)
    except (OSError, apsw.Error, fork.GaveWayError) as error:
        if isinstance(error, (apsw.InterruptError, fork.GaveWayError)):
            raise YieldedError("another thread forks") from error
        if isinstance(error, (LeftToOthersError, renew.OvertakenError)):
            raise
        if isinstance(error, apsw.BusyError) and seconds < waits.SET_UP:
            raise
        raise StoreError(f"{path}: the store cannot be made or opened: {error}") from error
    if found.damage:
        outcome = (
            f"moved to {path}{renew.DAMAGED_SUFFIX}" if renewed.moved_aside else "mended: what can be read is kept"
        )
        trouble.happened("damaged", f"{path}: the store was damaged ({found.damage}) and is {outcome}")
    return renewed.pair


class LeftToOthersError(apsw.BusyError):
    """A living process should make the files anew, as it may have files open that have lost their names."""


_left_since: dict[str, float] = {}
"""By path of a store: when this process left its files to others, in seconds of `time.monotonic`."""


def _is_left_to_others(path: str) -> bool:
    """Whether other living processes use the store, and have not had enough time to make its files anew.

    A process that has nothing of the store open asks this. It has just started, or was just forked, and may be the
    first that finds the WAL deleted. Others still read the WAL, and would bring all that ended processes have left. But
    if they are idle, they may not notice, so this process waits for a limited time.
    """
    file = open_cells(path + CELLS_SUFFIX, writable=True)
    if file is None or not file.is_used_by_others():
        return False
    now = time.monotonic()
    return now - _left_since.setdefault(path, now) < waits.LEFT_TO_OTHERS


class Evidence(NamedTuple):
    """The evidence that the files are not in order; see above.

    damage: what is wrong with a file, '' if files are missing or belong to different pairs. files: the files that were
    at the names.
    """

    damage: str
    files: renew.Files

    def is_of_nothing(self) -> bool:
        """Whether there is no file at all, so that nothing can be lost."""
        return not any(self.files)


def _agreed(path: str, last: database.StoreConnection | None, seconds: float, *, is_ours: bool) -> Pair | Evidence:
    """Return the pair that is there if it is in order, or evidence to the contrary from two looks."""
    before = None
    for _ in range(_LOOKS):
        found = _look(path, last, seconds, is_ours=is_ours)
        if isinstance(found, Pair) or found.is_of_nothing() or found == before:
            return found
        before = found
        native.sleep(_BETWEEN_LOOKS)
    raise StoreError(f"{path}: the files change faster than they can be looked at")


def _look(path: str, last: database.StoreConnection | None, seconds: float, *, is_ours: bool) -> Pair | Evidence:
    files = renew.files_at(path)
    nothing = Evidence("", files)
    is_cut_off = last is not None and last.holds_database() and not last.is_in_place()
    if is_cut_off or file_identity(path) is None:
        return nothing
    try:
        with contextlib.closing(database.connect(path)) as connection:
            database.wait_for_others(connection, seconds)
            return _fitting(connection, path) or nothing
    except Exception as error:  # any: a text may not be decodable
        is_foreign = isinstance(error, database.NoDatabaseError) and not is_ours and not has_cells(path)
        if is_foreign or not is_damage(error):
            raise
        return Evidence(damage_of(error, path), files)


def has_cells(path: str, *, writable: bool = True) -> bool:
    """Whether there is a cells file of ours, so that the file at the path was a store."""
    file = open_cells(path + CELLS_SUFFIX, writable=writable)
    return file is not None and file.header() is not None


def _fitting(connection: database.StoreConnection, path: str) -> Pair | None:
    """Return the pair if it is in order, None if the files are no pair. Raises an error if one is damaged."""
    version = schema.check(connection, path)
    if connection.readonly("main"):
        raise PathError(
            f"{path}: uid {os.geteuid()} may read but not write it; change its owner or mode (mode=, group=)"
        )
    database.use_wal(connection, path)
    if version == 0:
        return None
    schema.migrate(connection, version)
    renew.check_wal(connection, path)
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
    with database.transaction(connection, "DEFERRED"):  # at one moment: another process may be making it
        version = schema.check(connection, path)
        ids = schema.ids(connection, path) if version else ("", "")
    if version == 0:
        raise NoStoreError(f"{path} is empty; is the app running with that path?")
    may_write = not connection.readonly("main") and os.access(path + CELLS_SUFFIX, os.W_OK)
    file = open_cells(path + CELLS_SUFFIX, writable=may_write)
    header = file.header() if file else None
    if file is None or header is None or header[:3] != (*ids, boot_id()):
        raise DamagedError(
            f"{path}{CELLS_SUFFIX} is missing or does not belong to {path};"
            " it is made anew by a process of the app that counts, or when one starts"
        )
    return file


def open_for_notices(path: str) -> Pair:
    """Return the pair of files of an existing store; see `open_existing`."""
    with contextlib.closing(database.connect(path)) as connection:
        file = open_existing(connection, path)
        return Pair(file, connection.opened[0], schema.ids(connection, path)[0])
