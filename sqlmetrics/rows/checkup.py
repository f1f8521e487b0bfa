"""Checks that database and cells are sound and fit together. SQLite notices damage only where it happens to read.

So one process reads the whole store once a minute, and a process that meets damage asks for a check at once.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import apsw

from ..cells import journal, layout
from ..cells.cellsfile import CellsFile
from ..errors import DamagedError
from ..process import fork, native
from . import database, exemplars, ingest, schema, series
from .damage import is_damage

SECONDS = 60.0
"""Seconds between two checks of a store."""
SHARE = 0.001
"""The share of one core's time that checks may take; a large store is checked more rarely."""
SELECT_UNSETTLED = "SELECT id FROM instance WHERE died IS NULL"
_RETRY_SECONDS = 10.0
"""Seconds until the next check after one that was given up for a fork."""
SELECT_BLOCKS = "SELECT DISTINCT cell / ? FROM cell_copy WHERE process = ?"
DELETE_UNREFERENCED = (
    "DELETE FROM series WHERE family NOT IN (SELECT id FROM family)",
    *(
        f"DELETE FROM {table} WHERE series NOT IN (SELECT id FROM series)"  # noqa: S608
        for table in ("cell_copy", "retired", "kept", "orphan", "exemplar")
    ),
    *(
        f"DELETE FROM {table} WHERE process NOT IN (SELECT id FROM instance)"  # noqa: S608
        for table in ("cell_copy", "kept")
    ),
)
# An index that is read in place of its table hides what it lacks. To count costs a sixth of what `quick_check` costs.
SELECT_INCOMPLETE = """
SELECT 'family' WHERE (SELECT count(*) FROM family NOT INDEXED)
                   <> (SELECT count(*) FROM family INDEXED BY sqlite_autoindex_family_1)
UNION ALL
SELECT 'series' WHERE (SELECT count(*) FROM series NOT INDEXED)
                   <> (SELECT count(*) FROM series INDEXED BY sqlite_autoindex_series_1)
UNION ALL
SELECT 'cell_copy' WHERE (SELECT count(*) FROM cell_copy NOT INDEXED)
                      <> (SELECT count(*) FROM cell_copy INDEXED BY sqlite_autoindex_cell_copy_1)
UNION ALL
SELECT 'gauge_cell' WHERE (SELECT count(*) FROM cell_copy NOT INDEXED WHERE gauge)
                       <> (SELECT count(*) FROM cell_copy INDEXED BY gauge_cell WHERE gauge)
"""
_TRIES = 3
"""What looks like damage may be a process that is being settled, but not at three looks..."""
_PAUSE = 0.02
"""...so many seconds apart: a settler may be between its COMMIT and the cells."""


def check(connection: apsw.Connection, file: CellsFile) -> None:
    """Check everything in the database, and whether cells and journals fit to it.

    Raises DamagedError or apsw.Error.
    """
    check_rows(connection, "quick_check")
    if incomplete := connection.execute(SELECT_INCOMPLETE).fetchall():
        raise DamagedError(f"not in the index: rows of {' '.join(str(name) for (name,) in incomplete)}")
    for tries_left in reversed(range(_TRIES)):
        try:
            _check_processes(connection, file)
            return
        except (DamagedError, journal.JournalGoneError) as error:
            if not tries_left:
                raise DamagedError(f"rows and cells do not fit together: {error!r}") from error
            native.sleep(_PAUSE)


def check_rows(connection: apsw.Connection, pages: str = "integrity_check") -> None:
    """Check every page and reference, and that scrapes can read the texts. Raises DamagedError or apsw.Error.

    pages: the pragma that checks them; `quick_check` takes 40 % of the time, and compares no index with its table.

    References are checked here only. Where SQLite checks them as rows are written, it looks each of them up, and walks
    through all samples for each series that is deleted.
    """
    for pragma in (pages, "foreign_key_check"):
        found = connection.execute(f"PRAGMA {pragma}").fetchone()
        if found not in (None, ("ok",)):
            raise DamagedError(f"{pragma}: {' '.join(map(str, found))}".replace("\n", " ")[:200])
    try:
        schema.check_texts(connection)
        connection.execute("SELECT pid FROM instance").fetchall()
        series.check(connection)
        exemplars.check(connection)
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedError(f"a text is no name, label set, bound or pid: {error!r}"[:200]) from error


def drop_unreferenced(connection: apsw.Connection) -> None:
    """Delete rows of missing series, families or processes: one of them is no reason to lose all others."""
    for statement in DELETE_UNREFERENCED:
        connection.execute(statement)


def _check_processes(connection: apsw.Connection, file: CellsFile) -> None:
    if not knows_the_settled(connection, file):
        raise DamagedError("the rows do not know a process that the cells have let go")
    _check_strangers(connection, file)
    for slot, instance in file.held_slots():
        if not ingest.is_settled(connection, file, slot, instance):
            journal.read(file, slot, instance, ingest.committed(connection, instance) or 0)
            _check_blocks(connection, file, slot, instance)


def _check_strangers(connection: apsw.Connection, file: CellsFile) -> None:
    """Raise DamagedError if rows have an instance that the cells do not have.

    It reads the rows before and after the cells: an instance that is in both was not settled in between.
    """
    unknown = _unsettled(connection) - {instance for _, instance in file.held_slots()}
    if unknown and (strangers := unknown & _unsettled(connection)):
        raise DamagedError(f"the rows know process instances that the cells do not: {strangers}")


def _unsettled(connection: apsw.Connection) -> set[int]:
    return {int(str(number)) for (number,) in connection.execute(SELECT_UNSETTLED).fetchall()}


def _check_blocks(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> None:
    """Raise DamagedError if rows are about cells that their process does not own.

    It reads the rows before the cells: a block has its owner before rows are about it, until the process is settled.
    """
    blocks = {block for (block,) in connection.execute(SELECT_BLOCKS, (layout.BLOCK_CELLS, instance)).fetchall()}
    if blocks.difference(file.blocks.owned_by(slot)) and not ingest.is_settled(connection, file, slot, instance):
        raise DamagedError(f"rows of process instance {instance} are about cells that it does not own")


def knows_the_settled(connection: apsw.Connection, file: CellsFile) -> bool:
    """Whether every process whose slot is free again is settled in the rows; in an older copy of them it is not.

    Call it outside of a transaction: rows that are read after a look at the slots are never older than that look. They
    may be newer, if a slot was claimed and settled in between, but then a second look finds other uses.
    """
    header, look = file.header(), file.look()
    rows: list[Any] = connection.execute("SELECT slot, settled FROM slot").fetchall()
    settled: dict[int, int] = dict(rows)
    unknown = [
        slot
        for slot, (state, uses) in enumerate(zip(look.states, look.uses, strict=True))
        if state not in (layout.HELD, layout.CLAIMED)
        and not (state == layout.FREE and header is not None and uses == header.uses)
        and settled.get(slot) != layout.instance_of(uses, slot)
    ]
    return header is not None and not any(file.uses[slot] == look.uses[slot] for slot in unknown)


def check_if_due(path: str, file: CellsFile) -> None:
    """Check the store if no process has done so for a while; if it is damaged, note that in the cells file.

    The check has its own connection: the flusher's may have pages in memory that are damaged on the disk.
    """
    now = time.clock_gettime(time.CLOCK_MONOTONIC)  # the same in all processes of a boot
    if now < file.due[0] <= now + 86_400:
        return
    file.due[0] = now + SECONDS
    is_complete = True
    try:
        with contextlib.closing(database.connect(path)) as connection:
            check(connection, file)
    except (apsw.InterruptError, fork.GaveWayError):
        is_complete = False  # another thread forks
    except Exception as error:  # any: a text may not be decodable
        if is_damage(error):
            file.doubt()
        elif not isinstance(error, apsw.Error):
            raise
    took = time.clock_gettime(time.CLOCK_MONOTONIC) - now
    file.due[0] = now + (max(SECONDS, took / SHARE) if is_complete else _RETRY_SECONDS)
