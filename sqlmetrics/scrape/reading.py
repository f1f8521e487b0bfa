"""The work of one scrape, within a read transaction: journals, cells and what the dead left become values of lines."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import Any, NamedTuple

import apsw

from ..cells import journal
from ..cells.cellsfile import CellsFile
from ..cells.records import ChildRecord, ExemplarRecord, FamilyRecord, ProcessRecord, Record
from ..cells.shape import STATE_TYPES
from ..rows.ingest import storable
from ..rows.newest import Newest, among
from .columns import Column, Extra, add_up
from .gauges import Part, aggregate, counted
from .left import Left
from .plan import Family, FamilyId, Gauge, Plan
from .shown import Shown
from .states import last_words
from .wanted import Wanted

VERSION = "SELECT id, pair, epoch, plan, ended, exemplars FROM store"
UNSETTLED = "SELECT id, pid, started, journal FROM process WHERE died IS NULL"
CREATED = """
SELECT family.name, family.type, series.labels, min(series.created)
  FROM series JOIN family ON family.id = series.family
 GROUP BY series.family, series.labels
"""
ROWS = "SELECT series, cell, timestamp IS NOT NULL FROM sample WHERE process = ? ORDER BY cell"


class Process(NamedTuple):
    """A process that is not settled."""

    pid: str
    started: int
    alive: bool


class Remembered:
    """What a reader knows of a store from its scrapes, so that the next one need not read it again."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know nothing."""
        self.of: object = None
        self.plan = Plan()
        self.plan_read = -1
        self.left_read: object = None
        self.left: Left | None = None
        self.exemplars = Newest()
        self.columns: dict[int, Column] = {}
        self.created_read = -1
        self.created: dict[FamilyId, dict[str, float]] = {}
        """When each child was made, by its labels as JSON: what journals told, and rows once somebody wants it."""
        self.kept: dict[object, Any] = {}
        """What those who write the text keep."""

    def catch_up(self, connection: apsw.Connection, version: tuple[object, ...]) -> None:
        """Read what rows there are that it does not know. version: see `VERSION`."""
        *of, plan, ended, exemplars = version
        if self.of != of:
            self.forget()
            self.of = of
        if self.plan_read != plan:
            self.plan.read(connection)
            self.plan_read = plan  # type: ignore[assignment]
        if self.left_read != ended or self.left is None:
            self.left = Left(connection, self.plan)
            self.left_read = ended
        self.exemplars.catch_up(connection, self.plan, int(str(exemplars)))

    def read_created(self, connection: apsw.Connection) -> None:
        """Read when children were made, if that may have changed."""
        if self.created_read != self.plan_read:
            rows: Any = connection.execute(CREATED).fetchall()
            for name, type_, labels, created in rows:
                self.note_created((name, type_), labels, created)
            self.created_read = self.plan_read

    def note_created(self, family: FamilyId, labels: str, created: float) -> None:
        """Of several processes that made a child, the first counts."""
        known = self.created.setdefault(family, {})
        known[labels] = min(created, known.get(labels, created))


class Scrape:
    """The work of one try, within a read transaction.

    slots: (slot, instance) of who was not settled before it.
    Raises journal.JournalGoneError if a process was settled meanwhile: begin again.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        file: CellsFile,
        remembered: Remembered,
        wanted: Wanted,
        slots: list[tuple[int, int]],
    ):
        self._connection = connection
        self._file = file
        self._wanted = wanted
        self._store: tuple[Any, ...] = connection.execute(VERSION).fetchone()  # type: ignore[assignment]
        remembered.catch_up(connection, self._store)
        if wanted.created:
            remembered.read_created(connection)
        self._remembered = remembered
        self._plan = remembered.plan
        self.processes: dict[int, Process] = {}
        self._look_around(slots)
        self.census = file.blocks.census()
        """How often each block had been given out when it was certain whose they are; see `region.Region.changed`."""
        if not file.are_live(self.processes):
            raise journal.JournalGoneError  # settled since, and its blocks may be others' by now
        self._plan.lay_out()

    def saw_dead(self) -> bool:
        """Whether a process has ended and nobody has settled it yet."""
        return not all(process.alive for process in self.processes.values())

    def _look_around(self, slots_before: list[tuple[int, int]]) -> None:
        """Find the processes that are not settled, whether they live, and what their journals add."""
        settled: dict[int, int] = dict(self._connection.execute("SELECT slot, settled FROM slot").fetchall())  # type: ignore[arg-type]
        known = {row[0]: row[1:] for row in self._connection.execute(UNSETTLED).fetchall()}
        columns: dict[int, Column] = {}
        for slot, instance in self._file.live_slots():
            if settled.get(slot) != instance:
                alive = self._file.is_alive(slot)
                column = columns[instance] = self._column(slot, instance, known.pop(instance, None))
                self.processes[instance] = Process(column.pid, column.started, alive)
        self._remembered.columns = columns  # without those of processes that are settled
        gone = [s for s in slots_before if s[1] not in self.processes and settled.get(s[0]) != s[1]]
        if known or gone:
            # Settled since the snapshot was taken; a short-lived process may not even have had a row in it.
            raise journal.JournalGoneError

    def _column(self, slot: int, instance: int, row: Any) -> Column:
        """The column of a process, with all that it has announced by now."""
        column = self._remembered.columns.get(instance)
        if column is not None:
            try:
                return self._follow(column, slot, instance)
            except journal.JournalGoneError:
                pass  # it is rows by now, and the journal's pages were given back
        return self._follow(self._from_rows(instance, row), slot, instance)

    def _from_rows(self, instance: int, row: Any) -> Column:
        column = Column(*row) if row else Column()
        for series, cell, stamped in self._connection.execute(ROWS, (instance,)).fetchall():
            column.put(self._plan.place_of_row(series), cell, stamped=bool(stamped))  # type: ignore[arg-type]
        return column

    def _follow(self, column: Column, slot: int, instance: int) -> Column:
        records, end, _ = journal.read(self._file, slot, instance, column.upto)
        for record in records:
            self._apply(column, record)
        column.upto = end
        return column

    def _apply(self, column: Column, record: Record) -> None:
        if isinstance(record, ChildRecord):
            family, labels = (record.family, record.type), record.labels()
            if family not in self._plan.families:
                self._plan.add_family(Family(*record.stand_in()))
            self._remembered.note_created(family, labels, record.created)
            for name, variant, cell in record.samples():
                column.put(self._plan.place(family, name, labels, variant), cell, stamped=record.stamped)
        elif isinstance(record, FamilyRecord):
            self._plan.add_family(Family(*record))
        elif isinstance(record, ExemplarRecord):
            self._remembered.exemplars.note(self._plan, record)
        else:
            self._introduce(column, record)

    def _introduce(self, column: Column, record: ProcessRecord) -> None:
        column.pid, column.started = storable(record.pid), record.started
        if record.store == self._store[0]:
            column.lost = record.lost

    def result(self) -> list[Shown]:
        """Every family with its lines; a mostrecent gauge that was never set is a family without any."""
        extra: Extra = {}
        gauges = self._gauge_parts()
        returned = {0, *(lost for column in self._remembered.columns.values() for lost in column.lost)}
        assert self._remembered.left is not None
        self._remembered.left.add_to(extra, gauges, returned)
        totals = self._totals(extra)
        found = []
        for family in self._plan.families.values():
            is_sum = family[:2] not in self._plan.gauges
            shown = self._sum(family, totals) if is_sum else self._gauge(family, gauges)
            if shown is not None:
                found.append(shown)
        return found

    def _totals(self, extra: Extra) -> list[float]:
        assert self._remembered.left is not None
        length = self._plan.length
        read = [column.read(self._file.bytes, length, extra) for column in self._remembered.columns.values()]
        columns = [self._remembered.left.column(length), *(column for column in read if column is not None)]
        return add_up(columns, extra, self._wanted_positions(), length)

    def _wanted_positions(self) -> Iterable[int] | None:
        names = self._wanted.names
        if names is None:
            return None
        families = (lines for lines in self._plan.sums.values() if any(line.name in names for line in lines.lines))
        return (position for lines in families for position in lines.positions())

    def _sum(self, family: Family, totals: list[float]) -> Shown | None:
        source = self._plan.sums.get(family[:2])
        if source is None:
            return None
        lines, values, names = source.lines, source.values(totals), self._wanted.names
        created = self._remembered.created.get(family[:2]) if self._wanted.created else None
        exemplars = self._remembered.exemplars.of(family[:2], source)
        if names is None:
            return Shown(family, lines, values, (source, None), created=created, exemplars=exemplars)
        chosen = [line.name in names for line in lines]
        if not any(chosen):
            return None
        found = list(compress(lines, chosen)), list(compress(values, chosen))
        return Shown(family, *found, (source, chosen), created=created, exemplars=among(exemplars, chosen))

    def _gauge_parts(self) -> dict[Gauge, list[Part]]:
        parts: dict[Gauge, list[Part]] = {}
        cells = self._file.cells
        for instance, column in self._remembered.columns.items():
            pid, started, alive = self.processes[instance]
            for gauge, (cell, stamped) in column.gauges.items():
                # The timestamp first: it is written after the value, so it is never newer than the value read.
                timestamp = cells[cell - 1] if stamped else 0.0
                part = Part(pid, cells[cell], timestamp, started, alive, instance)
                parts.setdefault(gauge, []).append(part)
        return parts

    def _gauge(self, family: Family, parts: dict[Gauge, list[Part]]) -> Shown | None:
        names, mode = self._wanted.names, self._wanted.mode_of(family)
        found = {
            gauge: chosen
            for gauge in self._plan.gauges[family[:2]]
            if (names is None or gauge.name in names) and (chosen := counted(mode, parts.get(gauge, [])))
        }
        if family.type in STATE_TYPES:
            keys, values = last_words(found)
        else:
            none = [(None, 0.0)] if self._wanted.unset else []
            shown = [(gauge, *one) for gauge, chosen in found.items() for one in aggregate(mode, chosen) or none]
            keys, values = [(gauge, pid) for gauge, pid, _ in shown], [value for _, _, value in shown]
        lines = [gauge.line(pid) for gauge, pid in keys]
        return Shown(family, lines, values, keys=keys) if keys or (found and names is None) else None
