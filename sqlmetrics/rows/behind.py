"""The lag of rows behind what was counted: flushes note it in rows, and a scrape sees it in the cells file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from ..cells import exact, journal, layout
from ..cells.cellsfile import CellsFile
from ..cells.records import ChildRecord, ExemplarRecord, ProcessRecord
from ..errors import DamagedError

UPDATE_FLUSHED = "UPDATE instance SET flushed = ?, partial = 0 WHERE id = ?"
UPDATE_PARTIAL = "UPDATE instance SET partial = 1 WHERE id = ? AND NOT partial"
SELECT_FLUSHED = "SELECT id, journal, flushed FROM instance WHERE died IS NULL"
# NaN is NULL in both.
SELECT_HAS_OTHER_VALUES = """
SELECT EXISTS (SELECT 1
                 FROM carray(:cells) AS item CROSS JOIN main.cell_copy ON cell_copy.cell = item.rowid + :before
                WHERE cell_copy.process = :process AND cell_copy.value IS NOT item.value)
"""


_seen: dict[str, dict[int, tuple[float | None, float]]] = {}
"""By store and instance whose rows are out of date: its last complete flush, and when this process saw that first."""


def note_complete(connection: apsw.Connection, instances: Iterable[int], at: float) -> None:
    """Note that the rows of these instances have all that was counted up to a time, within the caller's transaction.

    at: seconds since the epoch.
    """
    connection.executemany(UPDATE_FLUSHED, [(at, instance) for instance in instances])


def note_partial(connection: apsw.Connection, instances: Iterable[int]) -> None:
    """Note that the rows of these instances have a part of what was counted since, within the caller's transaction."""
    connection.executemany(UPDATE_PARTIAL, [(instance,) for instance in instances])


def lag(connection: apsw.Connection, file: CellsFile) -> tuple[float, int]:
    """Return how far the rows of living processes are behind, in seconds and in bytes of journals.

    The seconds count since something was not in rows. A record says when it was announced. A value does not say when it
    was changed, so it counts from when this process saw it first. 0 if everything is in rows, or is seen for the first
    time. Call it within a read transaction. Raises apsw.Error.
    """
    now = exact.system_now()
    rows: Any = connection.execute(SELECT_FLUSHED).fetchall()
    noted = {instance: (committed, flushed) for instance, committed, flushed in rows}
    known, seen = _seen.get(connection.filename, {}), dict[int, tuple[float | None, float]]()
    since, announced = [now], 0
    for slot, instance in [one for one in file.held_slots() if file.is_alive(one[0])]:
        committed, flushed = noted.get(instance, (0, None))
        if file.published[slot] > committed:
            announced += file.published[slot] - committed
            since.append(_announced_at(file, slot, instance, committed) or now)
        if has_other_values(connection, file, slot, instance):
            before = known.get(instance)
            seen[instance] = before if before and before[0] == flushed else (flushed, now)
            since.append(seen[instance][1])
    _seen[connection.filename] = seen
    return now - min(since), announced


def _announced_at(file: CellsFile, slot: int, instance: int, committed: int) -> float | None:
    """Return when a process announced its first record that is not in rows; None if that record is gone."""
    try:
        records = journal.read(file, slot, instance, committed, most=layout.PAGE).records
    except (journal.JournalGoneError, DamagedError):
        return None
    for record in records:
        match record:
            case ProcessRecord():
                return record.started
            case ChildRecord():
                return record.created
            case ExemplarRecord():
                return record.timestamp
    return None  # a family says when it was described, and a child's or another's record comes after it


def has_other_values(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> bool:
    """Whether a cell has another value than its row."""
    for block in file.blocks.owned_by(slot):
        first = block * layout.BLOCK_CELLS
        cells = apsw.carray(file.cells[first : first + layout.BLOCK_CELLS])
        if connection.execute(SELECT_HAS_OTHER_VALUES, {"cells": cells, "before": first - 1, "process": instance}).get:
            return True
    return False
