"""The files of a store as a set: looked at, found in order or made anew, under their lock.

The database and the cells file are a pair: the pair's id is in both. Where they are not in order, a new pair is made of
what can be read (see `renew`). It takes the old one's place in one go, so that every process that has the old one open
finds out by a look at the names.

The evidence that they are not in order, all of it (`Evidence`):

* there is no database, or nothing in it: it was never made, or deleted, or truncated;
* a file that this process has open is not at its name any more (`StoreConnection.is_in_place`);
* the cells file is missing, is another pair's, or was made in an earlier boot of the machine;
* the cells file has let go of a process that the rows do not know as settled: the rows are an older copy
  (`checkup.knows_the_settled`, from one look that fits together whatever others write meanwhile);
* SQLite says that the database is damaged, or a check finds that its texts make no sense, or that rows, journals and
  blocks contradict each other (`checkup.check`).

Nothing is made anew on one look: a process that uses the store comes here when two of its rounds saw the same change
(see `follow`), and here two looks, with the lock held, must find the same evidence (`_agreed`). Only where there is no
file at all there is nothing to be careful of.
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
from .database import file_identity
from .making import making
from .renew import CELLS_SUFFIX, Pair
from .yielding import YieldedError

_LOOKS = 10
_BETWEEN_LOOKS = 0.02
"""Seconds between two looks that must agree; who deletes, restores or copies files needs some for all of them."""


def open_or_create(
    path: str,
    settings: config.Settings,
    trouble: Trouble,
    last: database.StoreConnection | None = None,
    cells: CellsFile | None = None,
    *,
    seconds: float = waits.SET_UP,
) -> Pair:
    """Return the pair of files of the store at `path`; makes it, or makes it anew, as needed.

    last, cells: what this process has open of the store, if that is to be mended.
    seconds: how long to wait for another process that makes the files, or a program that keeps them for itself.
    Raises PathError, ForeignFileError, SchemaError, JournalModeError or StoreError (what is found cannot be used);
    apsw.BusyError where to wait longer, as one does at set-up, might help.
    """
    while True:
        try:
            return _open_or_create(path, settings, trouble, last, cells, seconds)
        except LeftToOthersError:
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
            renewed = renew.renew(path, settings, last, cells)
            _left_since.pop(path, None)
    except (OSError, apsw.Error, fork.GaveWayError) as error:
        if isinstance(error, (apsw.InterruptError, fork.GaveWayError)):
            raise YieldedError("another thread forks") from error
        if (isinstance(error, apsw.BusyError) and seconds < waits.SET_UP) or isinstance(error, LeftToOthersError):
            raise
        raise StoreError(f"{path}: the store cannot be made or opened: {error}") from error
    if found.damage:
        outcome = (
            f"moved to {path}{renew.DAMAGED_SUFFIX}" if renewed.moved_aside else "mended: what can be read is kept"
        )
        trouble.happened("damaged", f"{path}: the store was damaged ({found.damage}) and is {outcome}")
    return renewed.pair


class LeftToOthersError(apsw.BusyError):
    """The files are to be made anew by a living process, which may have open what is not at its name any more."""


_left_since: dict[str, float] = {}
"""By paths of stores, when this process left their files to others, in seconds of `time.monotonic`."""


def _is_left_to_others(path: str) -> bool:
    """Whether others live that use the store, and were not waited for long enough. For who has nothing of it open.

    A process that has just started, or was just forked, may be the first that finds the WAL deleted. Others still
    read it, and would bring all that ended processes left. One that is idle may not notice, so it is a matter of time.
    """
    file = open_cells(path + CELLS_SUFFIX, writable=True)
    if file is None or not file.is_used_by_others():
        return False
    now = time.monotonic()
    return now - _left_since.setdefault(path, now) < waits.LEFT_TO_OTHERS


class Evidence(NamedTuple):
    """Why the files are not a store in order; see above.

    damage: what is the matter with a file that is there, '' where files are missing or of different pairs.
    files: which files were at the names.
    """

    damage: str
    files: tuple[database.Identity | None, ...]

    def is_of_nothing(self) -> bool:
        """Whether there is no file at all, so that nothing can be lost."""
        return not any(self.files)


def _agreed(path: str, last: database.StoreConnection | None, seconds: float, *, is_ours: bool) -> Pair | Evidence:
    """The pair that is there if it is in order, or evidence to the contrary that two looks have found."""
    before = None
    for _ in range(_LOOKS):
        found = _look(path, last, seconds, is_ours=is_ours)
        if isinstance(found, Pair) or found.is_of_nothing() or found == before:
            return found
        before = found
        native.sleep(_BETWEEN_LOOKS)
    raise StoreError(f"{path}: the files change faster than they can be looked at")


def _look(path: str, last: database.StoreConnection | None, seconds: float, *, is_ours: bool) -> Pair | Evidence:
    files = tuple(file_identity(path + suffix) for suffix in ownership.SUFFIXES)
    nothing = Evidence("", files)
    is_cut_off = last is not None and last.holds_database() and not last.is_in_place()
    if is_cut_off or file_identity(path) is None:
        return nothing
    try:
        with contextlib.closing(database.connect(path)) as connection:
            database.wait_for_others(connection, seconds)
            return _fitting(connection, path) or nothing
    except Exception as error:  # also of a text that cannot be decoded
        is_foreign = isinstance(error, database.NoDatabaseError) and not is_ours and not _has_cells(path)
        if is_foreign or not renew.is_damage(error):
            raise
        return Evidence(renew.damage_of(error, path), files)


def _has_cells(path: str) -> bool:
    """Whether a cells file of ours says that what is at the path was a store."""
    file = open_cells(path + CELLS_SUFFIX, writable=True)
    return file is not None and file.header() is not None


def _fitting(connection: database.StoreConnection, path: str) -> Pair | None:
    """The pair if it is in order, None if it is not one. Raises what says that it is damaged."""
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
        raise NoStoreError(f"{path} is empty; has an app that uses this path been started?")
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
