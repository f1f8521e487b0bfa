"""How far the rows are behind what was counted: noted by flushes in rows, and seen in the cells file by a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from ..cells import given, journal, layout
from ..cells.cellsfile import CellsFile
from ..cells.records import ChildRecord, ExemplarRecord, FamilyRecord, ProcessRecord, Record
from ..errors import DamagedError

NOTE_COMPLETE = "UPDATE process SET flushed = ?, partial = 0 WHERE id = ?"
NOTE_PARTIAL = "UPDATE process SET partial = 1 WHERE id = ? AND NOT partial"
_NOTED = "SELECT id, journal, ifnull(flushed, 0) FROM process WHERE died IS NULL"
# NaN is NULL in both.
_IS_ANOTHER = """
SELECT EXISTS (SELECT 1
                 FROM carray(:cells) AS item CROSS JOIN main.sample ON sample.cell = item.rowid + :before
                WHERE sample.process = :process AND sample.value IS NOT item.value)
"""


class Lag(NamedTuple):
    """How far the rows are behind.

    seconds: since when there has been something that is not in rows. Of what processes have announced, since the first
        of it was announced; of values, which do not say when they were changed, since this process saw it first. 0
        where all is in rows, or is seen for the first time.
    journal_bytes: what living processes have announced and what is not in rows.
    """

    seconds: float
    journal_bytes: int


_seen: dict[str, dict[int, tuple[int, int]]] = {}
"""By stores and instances: the last complete flush of one whose rows have other values, and when that was seen."""


def note_complete(connection: apsw.Connection, instances: Iterable[int], at: int) -> None:
    """Note that all that these had counted at a time is in rows, within the caller's transaction.

    at: nanoseconds since the epoch.
    """
    connection.executemany(NOTE_COMPLETE, [(at, instance) for instance in instances])


def note_partial(connection: apsw.Connection, instances: Iterable[int]) -> None:
    """Note that the rows of these have a part of what they have counted since, within the caller's transaction."""
    connection.executemany(NOTE_PARTIAL, [(instance,) for instance in instances])


def lag(connection: apsw.Connection, file: CellsFile) -> Lag:
    """How far the rows are behind now, within a read transaction. Raises apsw.Error."""
    now, noted = given.now_ns(), _noted(connection)
    before, seen = _seen.get(connection.filename, {}), dict[int, tuple[int, int]]()
    oldest, journal_bytes = now, 0
    for slot, instance in file.live_slots():
        if not file.is_alive(slot):
            continue
        committed, flushed = noted.get(instance, (0, 0))
        if file.published[slot] > committed:
            journal_bytes += file.published[slot] - committed
            oldest = min(oldest, _announced(file, slot, instance, committed, now))
        if _has_other_values(connection, file, slot, instance):
            known = before.get(instance)
            seen[instance] = known if known and known[0] == flushed else (flushed, now)
            oldest = min(oldest, seen[instance][1])
    _seen[connection.filename] = seen
    return Lag((now - oldest) / 1e9, journal_bytes)


def _noted(connection: apsw.Connection) -> dict[int, tuple[int, int]]:
    rows: list[Any] = connection.execute(_NOTED).fetchall()
    return {instance: (committed, flushed) for instance, committed, flushed in rows}


def _announced(file: CellsFile, slot: int, instance: int, committed: int, now: int) -> int:
    """When a process announced the first of what is not in rows, in nanoseconds since the epoch."""
    try:
        records = journal.read(file, slot, instance, committed, most=layout.PAGE).records
    except (journal.JournalGoneError, DamagedError):
        return now
    return next((at for at in map(_time_of, records) if at is not None), now)


def _time_of(record: Record) -> int | None:
    """None of a family, whose record says when it was described, and a child's or another's comes after it."""
    match record:
        case ProcessRecord():
            return record.started
        case ChildRecord():
            return int(record.created * 1e9)
        case ExemplarRecord():
            return int(record.timestamp * 1e9)
        case FamilyRecord():
            return None


def _has_other_values(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> bool:
    """Whether a cell has another value than its row."""
    for first, end in _runs(file.blocks.owned_by(slot)):
        cells = file.cells[first * layout.BLOCK_CELLS : end * layout.BLOCK_CELLS]
        bindings = {"cells": apsw.carray(cells), "before": first * layout.BLOCK_CELLS - 1, "process": instance}
        if connection.execute(_IS_ANOTHER, bindings).get:
            return True
    return False


def _runs(blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, end) of blocks that follow one another."""
    first = end = -1
    for block in sorted(blocks):
        if block != end:
            if end > first:
                yield first, end
            first = block
        end = block + 1
    if end > first:
        yield first, end
