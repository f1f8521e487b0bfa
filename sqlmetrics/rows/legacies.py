"""Collects what ended processes have counted, series by series. Rows and journals tell which cells have the values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import apsw

from ..cells import journal, layout
from ..cells.cellsfile import CellsFile
from ..cells.records import ChildRecord, ExemplarRecord, FamilyRecord, ProcessRecord, Record, is_older
from ..cells.sense import Decoder
from ..errors import DamagedError
from ..process import fork
from . import exemplars, nonsense
from .fold import Legacy
from .ingest import DELETE_ORPHANS, INSERT_INSTANCE, insert_other, storable
from .series import SeriesIds, mode_of

# Lists of ids are bound as JSON: one statement for however many there are.
_SELECT_COMMITTED = "SELECT id, journal FROM instance WHERE id IN (SELECT value FROM json_each(?))"
_SELECT_SETTLED = "SELECT slot, settled FROM slot WHERE slot IN (SELECT value FROM json_each(?))"
_SELECT_STARTED = "SELECT id, started FROM instance WHERE id IN (SELECT value FROM json_each(?))"
_SELECT_OF_PROCESSES = """
SELECT cell_copy.process, cell_copy.series, family.mode, cell_copy.cell, cell_copy.value,
       cell_copy.timestamp, cell_copy.stamped
  FROM cell_copy
  JOIN series ON series.id = cell_copy.series
  JOIN family ON family.id = series.family
 WHERE cell_copy.process IN (SELECT value FROM json_each(?))
"""
_SELECT_OF_PROCESS = """
SELECT cell_copy.process, cell_copy.series, family.mode, cell_copy.value, cell_copy.timestamp, instance.started
  FROM cell_copy
  JOIN instance ON instance.id = cell_copy.process
  JOIN series ON series.id = cell_copy.series
  JOIN family ON family.id = series.family
 WHERE cell_copy.process = ?
"""
_SELECT_OF_ORPHANS = """
SELECT orphan.process, orphan.series, family.mode, orphan.value, orphan.timestamp, orphan.started
  FROM orphan
  JOIN series ON series.id = orphan.series
  JOIN family ON family.id = series.family
"""
_SELECT_IDENTITY = "SELECT os_pid, pid_namespace FROM instance WHERE id = ?"
_SELECT_REMEMBERED = "SELECT id, pid, pid_namespace FROM instance WHERE died IS NOT NULL"
_DELETE_NAMESAKES = (
    "DELETE FROM kept WHERE process IN (SELECT value FROM json_each(?))",
    "DELETE FROM instance WHERE id IN (SELECT value FROM json_each(?))",
)


class Ended(NamedTuple):
    """A process to be settled. records: those of its journal that are not rows yet."""

    slot: int
    instance: int
    records: list[Record]

    def identity(self, connection: apsw.Connection) -> tuple[int, int] | None:
        """Return the pid and the pid namespace of the process; None if they are unknown."""
        for record in self.records:
            if isinstance(record, ProcessRecord):
                return record.os_pid, record.pid_namespace
        found: Any = connection.execute(_SELECT_IDENTITY, (self.instance,)).fetchone()
        return found  # type: ignore[no-any-return]


def unsettled(connection: apsw.Connection, file: CellsFile, slots: list[tuple[int, int]]) -> list[Ended]:
    """Return those of these (slot, instance) that are not settled yet, with what they have announced."""
    if not slots:
        return []
    settled = dict(_rows(connection, _SELECT_SETTLED, [slot for slot, _ in slots]))
    ended = [(s, i) for s, i in slots if settled.get(s) != i and file.has(s, i)]  # as `ingest.is_settled` says
    committed = dict(_rows(connection, _SELECT_COMMITTED, [instance for _, instance in ended]))
    decoder = Decoder()
    return [
        Ended(slot, instance, _announced(connection, file, slot, instance, committed.get(instance, 0), decoder))
        for slot, instance in ended
    ]


def _rows(connection: apsw.Connection, sql: str, numbers: list[int]) -> list[Any]:
    return connection.execute(sql, (json.dumps(numbers),)).fetchall()


def _announced(
    connection: apsw.Connection, file: CellsFile, slot: int, instance: int, start: int, decoder: Decoder
) -> list[Record]:
    """Read the rest of a journal; nothing of a damaged one: then only what has rows is folded."""
    try:
        reading = journal.read(file, slot, instance, start, decoder)
    except (journal.JournalGoneError, DamagedError):
        return []
    nonsense.note(connection.filename, instance, reading)
    return reading.records


class _Column(NamedTuple):
    """One series of several processes. places: the order in which they were announced; 0 for those in rows."""

    places: list[int]
    processes: list[int]
    values: list[Any]
    timestamps: list[Any]


class _Group:
    """One label set of one metric in several processes, whose journals describe it with the same text."""

    def __init__(self, child: ChildRecord):
        self.child = child
        self.places: list[int] = []
        self.processes: list[int] = []
        self.cells: list[Any] = []
        """The content of each process's cells."""

    def add(self, file: CellsFile, ended: Ended, child: ChildRecord, place: int) -> None:
        """Add the child of one process."""
        if child.created < self.child.created:
            self.child = child
        first, count = child.cell - child.stamped, len(child.names) * (1 + child.stamped)
        owned = _is_owned(file, ended.slot, first)  # or the record is damaged
        self.cells.append(file.cells[first : first + count].tolist() if owned else [0.0] * count)
        self.places.append(place)
        self.processes.append(ended.instance)

    def columns(self) -> Iterator[_Column]:
        """Yield one column for each sample of the child."""
        cells = list(zip(*self.cells, strict=True))
        stamped = self.child.stamped
        for place in range(len(self.child.names)):
            values = list(cells[2 * place + 1 if stamped else place])
            timestamps = [time or None for time in cells[2 * place]] if stamped else [None] * len(values)
            yield _Column(self.places, self.processes, values, timestamps)


def _is_owned(file: CellsFile, slot: int, cell: int) -> bool:
    block = cell // layout.BLOCK_CELLS
    return 0 <= block < layout.CELL_BLOCKS and file.blocks.owners[block] == slot + 1


def legacies_in_cells(
    connection: apsw.Connection, file: CellsFile, ended: list[Ended], ids: SeriesIds
) -> Iterator[Legacy]:
    """Yield what processes have in cells, within the caller's transaction. Their other records become rows.

    ids: knows the series that earlier processes had.
    """
    _introduce(connection, ended)
    _tell_families(connection, ended)
    started = dict(_rows(connection, _SELECT_STARTED, [one.instance for one in ended]))
    found: dict[int, tuple[str, list[_Column]]] = {}
    for series, mode, column in chain(_in_rows(connection, file, ended), _in_journals(connection, file, ended, ids)):
        found.setdefault(series, (mode, []))[1].append(column)
    for one in ended:
        exemplars.write(connection, file, [record for record in one.records if isinstance(record, ExemplarRecord)])
    for series, (mode, columns) in found.items():
        fork.give_way()
        processes, values, timestamps = _each_once(columns)
        yield Legacy(series, mode, processes, values, timestamps, [started.get(one) for one in processes])


def _each_once(columns: list[_Column]) -> tuple[list[int], list[float | None], list[float | None]]:
    """Join columns of one series. If a process has announced a gauge twice, its last cell counts."""
    _, processes, values, timestamps = (list(chain(*lists)) for lists in zip(*columns, strict=True))
    if len(set(processes)) == len(processes):
        return processes, values, timestamps
    parts = sorted((part for column in columns for part in zip(*column, strict=True)), key=lambda part: part[0])
    last = {process: (process, value, timestamp) for _, process, value, timestamp in parts}
    return tuple(map(list, zip(*last.values(), strict=True)))  # type: ignore[return-value]


def _in_rows(connection: apsw.Connection, file: CellsFile, ended: list[Ended]) -> Iterator[tuple[int, str, _Column]]:
    slots = {one.instance: one.slot for one in ended}
    found: dict[int, tuple[str, _Column]] = {}
    for process, series, mode, cell, value, timestamp, stamped in _rows(connection, _SELECT_OF_PROCESSES, list(slots)):
        if _is_owned(file, slots[process], cell):
            if stamped:
                timestamp = file.cells[cell - 1] or None  # read first, as it is written after the value
            value = file.cells[cell]
        _, column = found.setdefault(series, (mode, _Column([], [], [], [])))
        for values, new in zip(column, (0, process, value, timestamp), strict=True):
            values.append(new)
    for series, (mode, column) in found.items():
        yield series, mode, column


def _in_journals(
    connection: apsw.Connection, file: CellsFile, ended: list[Ended], ids: SeriesIds
) -> Iterator[tuple[int, str, _Column]]:
    groups: dict[int, _Group] = {}
    for place, (one, child) in enumerate(_children(ended), 1):
        fork.give_way()
        key = id(child.labelvalues)  # children of one text share this list; see `Decoder`
        if key not in groups:
            groups[key] = _Group(child)
        groups[key].add(file, one, child, place)
    ids.learn([group.child for group in groups.values()])
    for group in groups.values():
        numbers = ids.of(group.child)  # first: it may make a family
        mode = mode_of(connection, group.child) or ""
        for series, column in zip(numbers, group.columns(), strict=True):
            yield series, mode, column


def _children(ended: list[Ended]) -> Iterator[tuple[Ended, ChildRecord]]:
    return ((one, record) for one in ended for record in one.records if isinstance(record, ChildRecord))


def _introduce(connection: apsw.Connection, ended: list[Ended]) -> None:
    """Make rows of the processes, as `ingest.insert_other` does for one that lives."""
    cards = [(one.instance, record) for one in ended for record in one.records if isinstance(record, ProcessRecord)]
    if not cards:
        return
    pids = {(storable(card.pid), card.pid_namespace) for _, card in cards}
    namesakes = [
        number for number, *identity in connection.execute(_SELECT_REMEMBERED).fetchall() if tuple(identity) in pids
    ]
    if namesakes:
        for statement in _DELETE_NAMESAKES:
            connection.execute(statement, (json.dumps(namesakes),))
    rows = [(instance, storable(card.pid), *card[1:4]) for instance, card in cards]
    connection.executemany(INSERT_INSTANCE, rows)
    connection.executemany(DELETE_ORPHANS, [(lost, card.store) for _, card in cards for lost in card.lost])


def _tell_families(connection: apsw.Connection, ended: list[Ended]) -> None:
    """Write family records to rows; equal ones of several processes are written once."""
    said: dict[tuple[str, str], list[FamilyRecord]] = {}
    for one in ended:
        for record in one.records:
            if isinstance(record, FamilyRecord):
                _add_to(said.setdefault((record.name, record.type), []), record)
    for records in said.values():
        for record in records:
            insert_other(connection, 0, record)


def _add_to(records: list[FamilyRecord], record: FamilyRecord) -> None:
    """Add a record unless a newer one was added; it replaces an older one with the same content."""
    if records and is_older(record.made, records[-1].made):
        return
    if records and record._replace(made=records[-1].made) == records[-1]:
        records.pop()
    records.append(record)


def legacies_in_rows(connection: apsw.Connection, instance: int) -> list[Legacy]:
    """Return what a process had when its rows were written, because its cells are gone."""
    return [Legacy.of_one(*row) for row in _execute(connection, _SELECT_OF_PROCESS, (instance,))]


def legacies_of_orphans(connection: apsw.Connection) -> list[Legacy]:
    """Return what processes had whose cells were lost earlier."""
    return [Legacy.of_one(*row) for row in _execute(connection, _SELECT_OF_ORPHANS)]


def _execute(connection: apsw.Connection, sql: str, bindings: tuple[int, ...] = ()) -> list[Any]:
    return connection.execute(sql, bindings).fetchall()
