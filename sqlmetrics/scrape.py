"""The work of one scrape, within a read transaction: rows, cells and journals become families with samples."""

from __future__ import annotations

from array import array
from collections.abc import Container
from typing import Any, NamedTuple

import apsw
from prometheus_client.samples import Sample

from . import journal, layout
from .cells import CellsFile
from .gauges import Part, aggregate, counted, exact_sum
from .ingest import storable
from .plan import Families, Family, FamilyId, Plan, Series, SeriesKey, read_plan
from .records import ChildRecord, FamilyRecord, ProcessRecord

_PARTS = """
        SELECT sample.series AS series, cell.value AS value
          FROM carray(:cells) AS cell
          JOIN sample ON sample.cell = cell.rowid - 1
         WHERE cell.value IS NOT 0.0
        UNION ALL
        SELECT series, value FROM retired
        UNION ALL
        SELECT series, rest FROM retired WHERE rest <> 0.0
        UNION ALL
        SELECT series, value FROM orphan WHERE process NOT IN (SELECT value FROM carray(:returned))"""
_WANTED = "WHERE series IN (SELECT value FROM carray(:wanted))"
_SUMS = "SELECT series, CASE WHEN count(*) = count(value) THEN sum(value) END FROM ({parts}) {which} GROUP BY series"
SUM_CELLS = _SUMS.format(parts=_PARTS, which="")
"""Sums of all series, in C with the interpreter lock released. Cells that are 0 add nothing; NaN is NULL.

SQLite's sum() corrects for rounding, so that the order of the parts hardly ever matters: with sums that depend on it,
one could be smaller after a process has ended, which Prometheus takes for a counter's reset.
"""
SUM_SOME_CELLS = _SUMS.format(parts=_PARTS, which=_WANTED)
PARTS_OF_SOME = f"SELECT series, value FROM ({_PARTS}) {_WANTED}"  # noqa: S608

GAUGE_CELLS = """
SELECT sample.series, sample.process, sample.cell, sample.timestamp IS NOT NULL
  FROM family
  JOIN series ON series.family = family.id
  JOIN sample ON sample.series = series.id
 WHERE family.type = 'gauge'
"""
GAUGE_REST = """
SELECT retired.series, NULL, retired.value, retired.timestamp, retired.started
  FROM retired JOIN series ON series.id = retired.series JOIN family ON family.id = series.family
 WHERE family.type = 'gauge'
UNION ALL
SELECT orphan.series, NULL, orphan.value, orphan.timestamp, orphan.started
  FROM orphan JOIN series ON series.id = orphan.series JOIN family ON family.id = series.family
 WHERE family.type = 'gauge' AND orphan.process NOT IN (SELECT value FROM carray(:returned))
UNION ALL
SELECT kept.series, process.pid, kept.value, NULL, process.started
  FROM kept JOIN process ON process.id = kept.process
"""
UNSETTLED = "SELECT id, pid, started, journal FROM process WHERE died IS NULL"
NAN = float("nan")


class Process(NamedTuple):
    """A process that is not settled."""

    pid: str
    started: int
    alive: bool


class Remembered:
    """What is the same from one scrape to the next, for as long as the store's version is."""

    def __init__(self) -> None:
        self._plan: tuple[object, Plan] | None = None
        self._gauge_cells: tuple[object, list[tuple[int, int, int, int]]] | None = None

    def plan(self, connection: apsw.Connection, version: object) -> Plan:
        """The plan of a version of the store."""
        if self._plan is None or self._plan[0] != version:
            self._plan = (version, read_plan(connection))
        return self._plan[1]

    def gauge_cells(self, connection: apsw.Connection, version: object) -> list[tuple[int, int, int, int]]:
        """(series, process, cell, whether it has a timestamp) of every gauge's row."""
        if self._gauge_cells is None or self._gauge_cells[0] != version:
            self._gauge_cells = (version, connection.execute(GAUGE_CELLS).fetchall())  # type: ignore[assignment]
        return self._gauge_cells[1]  # type: ignore[index]


class _Tail(NamedTuple):
    """What the journals of all processes hold beyond the rows."""

    families: list[Family]
    children: list[tuple[int, ChildRecord]]
    """(instance, record)"""


class Scrape:
    """The work of one try, within a read transaction.

    names: of the samples that are wanted, None for all. slots: (slot, instance) of who was not settled before it.
    Raises journal.JournalGoneError if a process was settled meanwhile: begin again.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        file: CellsFile,
        remembered: Remembered,
        names: Container[str] | None,
        slots: list[tuple[int, int]],
    ):
        self._connection = connection
        self._file = file
        self._names = names
        self._version: Any = connection.execute("SELECT id, pair, plan FROM store").fetchone()
        self.processes: dict[int, Process] = {}
        self._returned = [0]  # instances whose values are in other cells by now
        self._slots_before = slots
        tail = self._look_around()
        self._plan = remembered.plan(connection, self._version)
        self._gauge_cells = remembered.gauge_cells(connection, self._version)
        self._extra: dict[int, list[float]] = {}
        if tail.families or tail.children:
            self._merge(tail)

    def saw_dead(self) -> bool:
        """Whether a process has ended and nobody has settled it yet."""
        return not all(process.alive for process in self.processes.values())

    def _look_around(self) -> _Tail:
        """Find the processes that are not settled, whether they live, and what their journals add to the rows."""
        settled: dict[int, int] = dict(self._rows("SELECT slot, settled FROM slot"))
        known = {row[0]: row[1:] for row in self._rows(UNSETTLED)}
        tail = _Tail([], [])
        for slot, instance in self._file.live_slots():
            if settled.get(slot, 0) < instance:
                alive = self._file.is_alive(slot)
                pid, started, done = known.pop(instance, ("", 0, 0))
                records, _ = journal.read(self._file, slot, instance, done)
                for record in records:
                    if isinstance(record, ProcessRecord):
                        pid, started = storable(record.pid), record.started
                        if record.store == self._version[0]:
                            self._returned += record.lost
                    elif isinstance(record, FamilyRecord):
                        tail.families.append(Family(*record))
                    else:
                        tail.children.append((instance, record))
                self.processes[instance] = Process(pid, started, alive)
        gone = [s for s in self._slots_before if s[1] not in self.processes and settled.get(s[0], 0) < s[1]]
        if known or gone:
            # Settled since the snapshot was taken; a short-lived process may not even have had a row in it.
            raise journal.JournalGoneError
        return tail

    def _rows(self, sql: str, **bindings: object) -> list[Any]:
        return self._connection.execute(sql, bindings).fetchall()

    def _merge(self, tail: _Tail) -> None:
        """Extend the plan and the cells by what is in journals only."""
        numbers = self._plan.series
        fresh: dict[SeriesKey, int] = {}
        gauges = list(self._gauge_cells)
        with_rows = {cell for _, _, cell, _ in gauges}
        for instance, child in tail.children:
            labels = child.labels()
            for name, le, cell in child.samples():
                key = ((child.family, child.type), name, labels, le)
                number = numbers.get(key) or fresh.setdefault(key, -1 - len(fresh))
                if child.type != "gauge":
                    self._extra.setdefault(number, []).append(self._file.cells[cell])
                elif cell not in with_rows:  # a gauge may be announced again
                    gauges.append((number, instance, cell, int(child.stamped)))
        self._gauge_cells = gauges
        self._plan = self._plan.copy()
        self._plan.add_families(tail.families)
        self._plan.add_series(Series(number, *key) for key, number in fresh.items())

    def result(self) -> Families:
        """Every family with its samples; a mostrecent gauge that was never set is a family without any."""
        sums = self._sums()
        gauges = self._gauges()
        families = []
        for key, family in self._plan.families.items():
            samples = gauges.get(key) if family.type == "gauge" else _add_up(self._plan, key, sums)
            if self._names is not None:
                samples = [sample for sample in samples or () if sample.name in self._names] or None
            if samples is not None:
                families.append((family, samples))
        return families

    def _sums(self) -> dict[int, float]:
        bindings: dict[str, object] = {"cells": self._all_cells(), "returned": _numbers(self._returned)}
        if self._names is None:
            rows = self._rows(SUM_CELLS, **bindings)
        else:
            rows = self._rows(SUM_SOME_CELLS, **bindings, wanted=_numbers(self._wanted()))
        sums: dict[int, float] = {series: NAN if total is None else total for series, total in rows}
        if self._extra:
            self._add_extra(sums, bindings)
        return sums

    def _add_extra(self, sums: dict[int, float], bindings: dict[str, object]) -> None:
        """Add what is in journals only: to the sums of whole numbers, but to the parts of the others (rounding)."""
        rounded = [s for s, more in self._extra.items() if not all(x.is_integer() for x in (sums.get(s, 0.0), *more))]
        parts: dict[int, list[float]] = {series: list(self._extra[series]) for series in rounded}
        for series, value in self._rows(PARTS_OF_SOME, **bindings, wanted=_numbers([0, *rounded])):
            parts[series].append(NAN if value is None else value)
        for series, more in self._extra.items():
            sums[series] = exact_sum(parts[series]) if series in parts else sums.get(series, 0.0) + sum(more)

    def _wanted(self) -> list[int]:
        assert self._names is not None
        wanted = [0]
        for lines in self._plan.lines.values():
            if any(line.name in self._names for line in lines):
                wanted += [line.series for line in lines]
        return wanted

    def _all_cells(self) -> object:
        count = max(1, self._file.blocks.ever()) * layout.BLOCK_CELLS
        return apsw.carray(self._file.cells[:count])

    def _gauges(self) -> dict[FamilyId, list[Sample]]:
        parts: dict[int, list[Part]] = {}
        cells = self._file.cells
        for series, instance, cell, stamped in self._gauge_cells:
            process = self.processes[instance]
            # The timestamp first: it is written after the value, so it is never newer than the value read.
            timestamp = cells[cell - 1] if stamped else 0.0
            part = Part(process.pid, cells[cell], timestamp, process.started, process.alive, instance)
            parts.setdefault(series, []).append(part)
        for series, pid, value, timestamp, started in self._rows(GAUGE_REST, returned=_numbers(self._returned)):
            part = Part(pid, NAN if value is None else value, timestamp or 0.0, started, False, 0)
            parts.setdefault(series, []).append(part)
        samples: dict[FamilyId, list[Sample]] = {}
        for one in self._plan.gauges:
            if one.id in parts:
                mode = self._plan.families[one.family].mode
                if chosen := counted(mode, parts[one.id]):
                    shown = aggregate(mode, chosen, self._plan.labels[one.id])
                    samples.setdefault(one.family, []).extend(Sample(one.name, *line) for line in shown)
        return samples


def _add_up(plan: Plan, key: FamilyId, sums: dict[int, float]) -> list[Sample]:
    samples = []
    value = 0.0
    for name, labels, series, adds_up in plan.lines.get(key, ()):
        value = sums.get(series, 0.0) + (value if adds_up else 0.0)
        # As Sample(name, labels, value) does, in a third of the time: there are thousands of these in a scrape.
        samples.append(_new_sample(Sample, (name, labels, value, None, None, None)))
    return samples


_new_sample = tuple.__new__


def _numbers(numbers: list[int]) -> object:
    """A list of integers (not an empty one) for carray."""
    return apsw.carray(memoryview(array("q", numbers)))
