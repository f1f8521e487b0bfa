"""What an ended process has counted, series by series: where its values are is in rows and in its journal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from ..cells import journal, layout
from ..cells.cellsfile import CellsFile
from ..cells.records import ChildRecord, ExemplarRecord, ProcessRecord, Record
from ..errors import DamagedError
from . import exemplars, nonsense
from .fold import Legacy
from .ingest import SeriesIds, committed, insert_other, mode_of

_OF_PROCESS = """
SELECT sample.series, family.mode, sample.cell, sample.value, sample.timestamp, process.started
  FROM sample
  JOIN process ON process.id = sample.process
  JOIN series ON series.id = sample.series
  JOIN family ON family.id = series.family
 WHERE sample.process = ?
"""
_OF_ORPHANS = """
SELECT orphan.process, orphan.series, family.mode, orphan.value, orphan.timestamp, orphan.started
  FROM orphan
  JOIN series ON series.id = orphan.series
  JOIN family ON family.id = series.family
"""
_IDENTITY = "SELECT os_pid, pid_namespace FROM process WHERE id = ?"


class Ended(NamedTuple):
    """A process to be settled; records: of its journal, those that are not rows."""

    slot: int
    instance: int
    records: list[Record]

    @classmethod
    def read(cls, connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> Ended:
        """Read what it has announced; of a damaged journal nothing: what has rows is folded all the same."""
        try:
            reading = journal.read(file, slot, instance, committed(connection, instance) or 0)
        except (journal.JournalGoneError, DamagedError):
            return cls(slot, instance, [])
        nonsense.note(connection.filename, instance, reading)
        return cls(slot, instance, reading.records)

    def identity(self, connection: apsw.Connection) -> tuple[int, int] | None:
        """Its number and its pid namespace, as far as they are known."""
        for record in self.records:
            if isinstance(record, ProcessRecord):
                return record.os_pid, record.pid_namespace
        found: Any = connection.execute(_IDENTITY, (self.instance,)).fetchone()
        return found  # type: ignore[no-any-return]


def legacies_in_cells(
    connection: apsw.Connection, file: CellsFile, ended: Ended, ids: SeriesIds, modes: dict[tuple[str, str], str]
) -> Iterable[Legacy]:
    """What it has in cells, within the caller's transaction; its other records become rows.

    ids, modes: of the series and families that other processes had before it.
    """
    children = []
    for record in ended.records:
        if isinstance(record, ChildRecord):
            children.append(record)
        elif not isinstance(record, ExemplarRecord):
            insert_other(connection, ended.instance, record)
            modes.clear()
    found = {}
    rows: list[Any] = connection.execute(_OF_PROCESS, (ended.instance,)).fetchall()
    for series, mode, cell, value, timestamp, started in rows:
        now = _in_cell(file, ended.slot, cell, value, timestamp)
        found[series] = Legacy(ended.instance, series, mode, *now, started)
    started = _started(connection, ended)
    ids.learn(children)
    for child in children:
        numbers = ids.of(child)  # first: it may make a family
        mode, timestamp = _mode(connection, child, modes), 0.0 if child.stamped else None
        for series, (_, _, cell) in zip(numbers, child.samples(), strict=True):
            # Of a gauge that was announced twice, the last cell counts.
            now = _in_cell(file, ended.slot, cell, 0.0, timestamp)
            found[series] = Legacy(ended.instance, series, mode, *now, started)
    exemplars.write(connection, file, [record for record in ended.records if isinstance(record, ExemplarRecord)])
    return found.values()


def _in_cell(
    file: CellsFile, slot: int, cell: int, value: float | None, timestamp: float | None
) -> tuple[float | None, float | None]:
    """Value and timestamp; those that are known already if damage says that the cell is none of the process's."""
    block = cell // layout.BLOCK_CELLS
    if not 0 <= block < layout.CELL_BLOCKS or file.blocks.owners[block] != slot + 1:
        return value, timestamp
    if timestamp is not None:
        timestamp = file.cells[cell - 1]  # first: it is written after the value
    return file.cells[cell], timestamp


def _started(connection: apsw.Connection, ended: Ended) -> int:
    found = connection.execute("SELECT started FROM process WHERE id = ?", (ended.instance,)).get
    return found if isinstance(found, int) else 0


def _mode(connection: apsw.Connection, child: ChildRecord, modes: dict[tuple[str, str], str]) -> str:
    key = (child.family, child.type)
    if key not in modes:
        modes[key] = mode_of(connection, child) or ""
    return modes[key]


def legacies_in_rows(connection: apsw.Connection, instance: int) -> list[Legacy]:
    """What it had when its rows were written; its cells are gone."""
    rows: list[Any] = connection.execute(_OF_PROCESS, (instance,)).fetchall()
    return [Legacy(instance, series, mode, value, stamp, at) for series, mode, _, value, stamp, at in rows]


def legacies_of_orphans(connection: apsw.Connection) -> list[Legacy]:
    """What processes had whose cells were lost earlier."""
    rows: list[Any] = connection.execute(_OF_ORPHANS).fetchall()
    return [Legacy(*row) for row in rows]
