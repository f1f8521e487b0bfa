"""The work of one scrape within a read transaction: it puts what journals add beside the rows, and runs the query."""

from __future__ import annotations

import json
from itertools import compress
from typing import Any

import apsw

from ..cells import journal, layout
from ..cells.cellsfile import CellsFile
from ..cells.images import Copies
from ..cells.records import ChildRecord, ExemplarRecord, FamilyRecord, ProcessRecord, Record
from ..cells.shape import MOST_RECENT_MODES, STATE_TYPES
from ..rows.ingest import storable
from . import about, query
from .families import FamilySamples
from .members import Member, members
from .newest import Newest, among
from .parts import Part, of_gauges, of_sums
from .plan import Family, FamilyId, Gauge, GaugeLines, OtherKindError, Plan
from .tables import Announcement, Living, Tables
from .wanted import Wanted

_KEPT_BYTES = 8 * 1024 * 1024
"""A copy of more cells than this, a million samples, is not kept for the next scrape."""
_COSTS = 16
"""In a query for some series, a cell takes about so many times as long as in a query for all series."""
SELECT_VERSION = "SELECT id, pair, epoch, plan, ended, exemplars FROM store"
SELECT_UNSETTLED = "SELECT id, pid, started, journal FROM instance WHERE died IS NULL"
SELECT_CREATED = """
SELECT family.name, family.type, series.labels, min(series.created)
  FROM series JOIN family ON family.id = series.family
 GROUP BY series.family, series.labels
"""
Key = tuple[Gauge, str | None]
"""Identifies a line of a gauge: the gauge, and the pid if the line is one process's."""
GaugeValues = tuple[list[Key], list[float]]


class Sums:
    """The totals of counters, summaries and histograms, by their positions in the plan.

    A scrape queries only totals with a cell that has changed since the last scrape. It queries all totals if anything
    else has changed: processes, series, owners of cells, journals, or what ended processes left.
    """

    def __init__(self) -> None:
        self._all_else: object = None
        self._copies = Copies({}, bytearray())
        self._order: tuple[str, list[int]] = "", []
        self._totals: list[float] = []

    def totals(self, tables: Tables, plan: Plan, copies: Copies, all_else: object) -> list[float]:
        """Bring the totals up to date, and return them. copies: of the cells; all_else: what else they depend on."""
        known = all_else == self._all_else and not tables.is_announced()
        most = len(copies.places) * layout.BLOCK_CELLS // (_COSTS * max(len(tables.upto), 1))
        changed = copies.changed_since(self._copies, most=most) if known else None
        self._all_else = None  # until this is complete
        if changed is None:
            self._totals = self.all_totals(tables, plan, copies, restricted=False)
        elif changed:
            self._ask_again(tables, plan, copies, changed)
        if len(copies.content) <= _KEPT_BYTES:
            self._all_else, self._copies = all_else, copies
        return self._totals

    def all_totals(self, tables: Tables, plan: Plan, copies: Copies, *, restricted: bool) -> list[float]:
        """Query all totals, or (restricted) those of the series in the table `asked`."""
        answer = query.sums(tables.connection, tables.all_cells(copies), restricted=restricted)
        if self._order[0] != answer.series:
            self._order = answer.series, [plan.position_of_row(int(one)) for one in answer.series.split()]
        totals = [0.0] * plan.length
        for position, value in zip(self._order[1], answer.values, strict=True):
            totals[position] = value
        return totals

    def _ask_again(self, tables: Tables, plan: Plan, copies: Copies, changed: list[int]) -> None:
        series, cells = tables.choose(copies, changed)
        answer = query.sums(tables.connection, cells, restricted=True)
        found = dict(zip(map(int, answer.series.split()), answer.values, strict=True))
        for one in series:
            self._totals[plan.position_of_row(one)] = found.get(one, 0.0)


class Gauges:
    """The order of an answer's values, which stays the same as long as no series comes or goes."""

    def __init__(self) -> None:
        self._answer: object = None
        self._order: dict[FamilyId, tuple[list[Key], list[int]]] = {}

    def sort(self, plan: Plan, answer: query.Totals) -> dict[FamilyId, GaugeValues]:
        """Return the lines of each family, and their values."""
        if self._answer != (plan, answer.series, answer.pids):
            self._order = self._lay_out(plan, answer)
            self._answer = plan, answer.series, answer.pids
        values = answer.values
        return {family: (keys, [values[n] for n in numbers]) for family, (keys, numbers) in self._order.items()}

    @staticmethod
    def _lay_out(plan: Plan, answer: query.Totals) -> dict[FamilyId, tuple[list[Key], list[int]]]:
        order: dict[FamilyId, tuple[list[Key], list[int]]] = {}
        for number, (one, pid) in enumerate(zip(answer.series.split(), json.loads(answer.pids), strict=True)):
            gauge = plan.gauge_of_row(int(one))
            keys, numbers = order.setdefault(gauge.family, ([], []))
            keys.append((gauge, pid))
            numbers.append(number)
        return order


class Remembered:
    """What a reader knows of a store from its scrapes, so that the next scrape need not read it again."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget everything."""
        self.of: object = None
        self.plan = Plan()
        self.plan_read = -1
        self.tables: Tables | None = None
        self.sums = Sums()
        self.gauges = Gauges()
        self.exemplars = Newest()
        self.introduced: dict[int, ProcessRecord] = {}
        """The own records of processes, from their journals, by instance."""
        self.created_read = -1
        self.created: dict[FamilyId, dict[str, float]] = {}
        """When each child was made, by its labels as JSON: from journals, and from rows as soon as it is wanted."""
        self.kept: dict[object, Any] = {}
        """What the code that writes text keeps, see `text.texts`."""

    def tables_of(self, connection: apsw.Connection) -> Tables:
        """Return the connection's tables for the query. Call it in no transaction."""
        if self.tables is None or self.tables.connection is not connection:
            self.tables = Tables(connection)
        return self.tables

    def catch_up(self, connection: apsw.Connection, version: tuple[object, ...]) -> None:
        """Read rows that are new since the last scrape. version: see `SELECT_VERSION`."""
        *of, plan, _, exemplars = version
        if self.of != of:
            self._begin_anew(of)
        if self.plan_read != plan:
            try:
                self.plan.read(connection)
            except OtherKindError:
                self._begin_anew(of)
                self.plan.read(connection)
            self.plan_read = plan  # type: ignore[assignment]
        self.exemplars.catch_up(connection, self.plan, int(str(exemplars)))

    def _begin_anew(self, of: object) -> None:
        tables = self.tables
        self.forget()
        self.tables, self.of = tables, of
        if tables is not None:
            tables.empty()

    def read_created(self, connection: apsw.Connection) -> None:
        """Read when children were made, if that may have changed."""
        if self.created_read != self.plan_read:
            rows: Any = connection.execute(SELECT_CREATED).fetchall()
            for name, type_, labels, created in rows:
                self.note_created((name, type_), labels, created)
            self.created_read = self.plan_read

    def note_created(self, family: FamilyId, labels: str, created: float) -> None:
        """Note when a process made a child; of several processes, the first counts."""
        known = self.created.setdefault(family, {})
        known[labels] = min(created, known.get(labels, created))


class Scrape:
    """The work of one try, within a read transaction.

    slots: (slot, instance) of the processes that were not settled before it.
    Raises journal.JournalGoneError if a process was settled meanwhile: then begin again.
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
        self._store: tuple[Any, ...] = connection.execute(SELECT_VERSION).fetchone()  # type: ignore[assignment]
        remembered.catch_up(connection, self._store)
        if wanted.created:
            remembered.read_created(connection)
        assert remembered.tables is not None
        self._remembered = remembered
        self._plan = remembered.plan
        self._tables = remembered.tables
        self._tables.rename(self._plan)
        self.processes: dict[int, Living] = {}
        self._look_around(slots)
        self._write_tables()
        self.census = file.blocks.census()
        """The generation of each block, at a moment when their owners were certain; see `region.Region.changed`."""
        if not file.are_unsettled(self.processes):
            raise journal.JournalGoneError  # one was settled meanwhile, and its blocks may have new owners

    def about(self) -> list[FamilySamples]:
        """Return the families about the store's state."""
        return about.gauges(self._connection, self._file, self.processes.values())

    def children(self) -> dict[FamilyId, list[dict[str, str]]]:
        """Return the labels of each child, by family."""
        return self._plan.children()

    def members(self) -> list[Member]:
        """Return the processes of the store."""
        said, announced = self._remembered.introduced, self._tables.announced_by()
        return members(self._connection, self._file, self.processes, said, announced)

    def saw_dead(self) -> bool:
        """Whether a process is dead and not settled yet."""
        return not all(process.alive for process in self.processes.values())

    def _look_around(self, slots_before: list[tuple[int, int]]) -> None:
        """Find the processes that are not settled, whether they are alive, and what their journals add."""
        settled: dict[int, int] = dict(self._connection.execute("SELECT slot, settled FROM slot").fetchall())  # type: ignore[arg-type]
        known = {row[0]: row[1:] for row in self._connection.execute(SELECT_UNSETTLED).fetchall()}
        held = [(slot, instance) for slot, instance in self._file.held_slots() if settled.get(slot) != instance]
        self._tables.keep_only(instance for _, instance in held)  # first, as cells of settled ones may have new owners
        for slot, instance in held:
            alive = self._file.is_alive(slot)
            row: Any = known.pop(instance, None)
            self._follow(slot, instance, row[2] if row else 0)
            pid, started = row[:2] if row else self._introduction(instance)
            self.processes[instance] = Living(instance, pid, started, alive)
        for gone in self._remembered.introduced.keys() - self.processes.keys():
            del self._remembered.introduced[gone]
        missing = [s for s in slots_before if s[1] not in self.processes and settled.get(s[0]) != s[1]]
        if known or missing:
            # It was settled after the snapshot was taken. A short-lived process may not even have a row there.
            raise journal.JournalGoneError

    def _introduction(self, instance: int) -> tuple[str, float | None]:
        record = self._remembered.introduced.get(instance)
        return (storable(record.pid), record.started) if record else ("", None)

    def _follow(self, slot: int, instance: int, committed: int) -> None:
        """Put what a process has announced beside the rows. committed: bytes of its journal that are rows."""
        start = self._tables.follow(instance, committed)
        records, end, _ = journal.read(self._file, slot, instance, start)
        found: list[Announcement] = []
        for record in records:
            self._apply(instance, record, end, found)
        self._tables.announce(instance, end, found)

    def _apply(self, instance: int, record: Record, end: int, found: list[Announcement]) -> None:
        if isinstance(record, ChildRecord):
            family, labels = (record.family, record.type), record.labels()
            if family not in self._plan.families:
                self._plan.add_family(Family(*record.stand_in()))
            self._remembered.note_created(family, labels, record.created)
            for name, variant, cell in record.samples():
                number = self._plan.id_of(family, name, labels, variant)
                # As in the rows, not as in the newest declaration: an app may declare a counter with a mode later.
                is_gauge = isinstance(self._plan.place_of_row(number), Gauge)
                found.append(Announcement(cell, number, is_gauge, record.stamped, end))
        elif isinstance(record, FamilyRecord):
            self._plan.add_family(Family(*record))
        elif isinstance(record, ExemplarRecord):
            self._remembered.exemplars.note(self._plan, record)
        else:
            self._remembered.introduced[instance] = record

    def _write_tables(self) -> None:
        """Write what the query needs to know to its tables."""
        plan, said = self._plan, self._remembered.introduced.values()
        plan.lay_out()
        self._tables.write_living(self.processes.values())
        self._tables.write_returned({0, *(lost for one in said if one.store == self._store[0] for lost in one.lost)})
        shown = {family: self._wanted.mode_of(plan.families[family]) or "sum" for family in plan.gauges}
        self._tables.write_gauges(plan, shown)
        self._stamped = any(kind not in STATE_TYPES and mode in MOST_RECENT_MODES for (_, kind), mode in shown.items())
        names = self._wanted.names
        self._asked = {
            family for family in plan.families if names is None or any(one in names for one in plan.names[family])
        }
        if names is not None:
            self._tables.ask(json.dumps(list(self._asked)), plan.unnamed(self._asked))

    def result(self) -> list[FamilySamples]:
        """Return every wanted family with its lines; a mostrecent gauge that was never set has none."""
        tables, plan, restricted = self._tables, self._plan, self._wanted.names is not None
        copies = tables.read(self._file, self.census.owners, stamped=self._stamped)
        sums = self._remembered.sums
        if restricted:
            totals = sums.all_totals(tables, plan, copies, restricted=True)
        else:
            totals = sums.totals(tables, plan, copies, (self._store[:-1], self.census, dict(tables.upto)))
        answer = query.gauges(self._connection, tables.gauges, restricted=restricted)
        gauges = self._remembered.gauges.sort(plan, answer)
        if self._stamped:
            self._add_unset(gauges, query.set_or_not(self._connection, tables.gauges, restricted=restricted))
        found = []
        for family in self._plan.families.values():
            if family[:2] in self._asked:
                is_sum = family[:2] not in self._plan.gauges
                shown = self._sum(family, totals) if is_sum else self._gauge(family, gauges)
                if shown is not None:
                    found.append(shown)
        return found

    def parts(self) -> list[Part]:
        """Return each process's part of the wanted families."""
        tables, plan, restricted = self._tables, self._plan, self._wanted.names is not None
        copies = tables.read(self._file, self.census.owners, stamped=self._stamped)
        sums = query.parts_of_sums(self._connection, tables.all_cells(copies), restricted=restricted)
        gauges = query.parts_of_gauges(self._connection, tables.gauges, restricted=restricted)
        found = [*of_sums(plan, sums, self._asked, self.processes), *of_gauges(plan, gauges, tables.living)]
        return [part for part in found if self._wanted.names is None or part.line.name in self._wanted.names]

    def counted(self) -> dict[Living, float]:
        """Return how many events each process that is not settled has counted: increments and observations."""
        tables = self._tables
        cells = tables.all_cells(tables.read(self._file, self.census.owners, stamped=self._stamped))
        found = query.counted(self._connection, cells, self._plan.amounts())
        return {living: found.get(instance, 0.0) for instance, living in self.processes.items()}

    def _add_unset(self, gauges: dict[FamilyId, GaugeValues], there: set[int]) -> None:
        """Add mostrecent gauges that nobody has set: their families and, if that is wanted, their lines."""
        for number in sorted(there):
            gauge = self._plan.gauge_of_row(number)
            keys, values = gauges.setdefault(gauge.family, ([], []))
            if self._wanted.unset and (gauge, None) not in keys:
                gauges[gauge.family] = [*keys, (gauge, None)], [*values, 0.0]

    def _sum(self, family: Family, totals: list[float]) -> FamilySamples | None:
        source = self._plan.sums.get(family[:2])
        if source is None:
            return None
        lines, values, names = source.lines, source.values(totals), self._wanted.names
        created = self._remembered.created.get(family[:2]) if self._wanted.created else None
        exemplars = self._remembered.exemplars.of(family[:2], source)
        if names is None:
            return FamilySamples(family, lines, values, (source, None), created=created, exemplars=exemplars)
        chosen = [line.name in names for line in lines]
        if not any(chosen):
            return None
        found = list(compress(lines, chosen)), list(compress(values, chosen))
        return FamilySamples(family, *found, (source, chosen), created=created, exemplars=among(exemplars, chosen))

    def _gauge(self, family: Family, gauges: dict[FamilyId, GaugeValues]) -> FamilySamples | None:
        names, found = self._wanted.names, gauges.get(family[:2])
        if found is None:
            return None
        keys, values = found
        if names is not None:
            chosen = [gauge.name in names for gauge, _ in keys]
            keys, values = list(compress(keys, chosen)), list(compress(values, chosen))
        return FamilySamples(family, GaugeLines(keys), values, keys=keys) if keys or names is None else None
