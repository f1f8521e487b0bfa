"""The state of a store at one moment, as numbers that take little memory, and the rates between two moments."""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..cells.figures import FAMILIES
from ..scrape.families import FamilySamples
from ..scrape.members import Member
from ..scrape.plan import Family, FamilyId, Line
from ..scrape.reading import Scrape
from ..scrape.wanted import wanted
from .look import Look
from .processes import Process, processes
from .values import Distribution

_NUMBER_BYTES, _LINE_BYTES = 8, 80
COUNTING = ("counter", "histogram", "summary")
"""The types of families that count events."""
_OF_PYTHON = ("process_", "python_")
"""The prefixes of `prometheus_client`'s own collectors: they count no events of the app."""
Who = tuple[str, float | None]
"""A process: its pid, and when it started."""


class Lines:
    """The lines of a family; one object for all moments with the same lines.

    has_events: whether the app counts events in the family; if not, lines are made on demand.
    """

    def __init__(self, family: Family, lines: Sequence[Line]):
        self.family = family
        self.has_events = family.type in COUNTING and not family.name.startswith(_OF_PYTHON)
        self.lines: Sequence[Line] = list(lines) if self.has_events else lines

    @cached_property
    def counting(self) -> list[int]:
        """The lines that count events: those of a counter, and the counts of histograms and summaries."""
        return [n for n, line in enumerate(self.lines) if not line.name.endswith(("_bucket", "_sum", "_created"))]

    @cached_property
    def buckets(self) -> dict[float, list[int]]:
        """The lines of the buckets of all of a histogram's children, by upper bound."""
        found = defaultdict(list)
        for n, line in enumerate(self.lines):
            if line.name.endswith("_bucket"):
                found[float(line.labels["le"])].append(n)
        return dict(sorted(found.items()))

    @cached_property
    def sums(self) -> list[int]:
        """The lines with sums of observations."""
        return [n for n, line in enumerate(self.lines) if line.name.endswith("_sum")]


@dataclass(frozen=True)
class Column:
    """The values of a family at one moment."""

    of: Lines
    values: array[float]

    def since(self, before: Column | None) -> Sequence[float]:
        """Return how much each line has risen since. A line that fell began again at 0, and a new one began at 0."""
        if before is None:
            return self.values
        return [new - old if new >= old else new for new, old in zip(self.values, before.as_of(self.of), strict=True)]

    def as_of(self, other: Lines) -> Sequence[float]:
        """Return the values in the order of other lines; 0 for lines that are missing here."""
        if other is self.of:
            return self.values
        count = len(self.of.lines)
        if other.lines[:count] == self.of.lines:
            return [*self.values, *([0.0] * (len(other.lines) - count))]
        known = {_key(line): value for line, value in zip(self.of.lines, self.values, strict=True)}
        return [known.get(_key(line), 0.0) for line in other.lines]


def _key(line: Line) -> tuple[str, tuple[tuple[str, str], ...]]:
    return line.name, tuple(sorted(line.labels.items()))


@dataclass(frozen=True)
class Sight:
    """A store at one moment.

    at: seconds since the epoch. counted: the events of each process, see `Scrape.counted`. bytes: how much memory this
    moment takes in addition to the moment before, roughly.
    """

    at: float
    columns: dict[FamilyId, Column]
    processes: list[Process]
    counted: dict[Who, float]
    bytes: int = 0

    def numbers(self) -> int:
        """Return how many numbers it has."""
        return sum(len(one.values) for one in self.columns.values())


class Sights:
    """Looks at a store again and again; keeps what has not changed only once."""

    def __init__(self) -> None:
        self._known: dict[FamilyId, tuple[object, Lines]] = {}

    def take(self, look: Look) -> Sight:
        """Look at the store now. Raises as `Look` does."""
        before = [lines for _, lines in self._known.values()]  # keeps the objects, so that no new one gets their ids
        columns, members, counted = look.ask(wanted(), self._answer)
        known = set(map(id, before))
        numbers = sum(len(one.values) for one in columns.values())
        made = sum(len(one.values) for one in columns.values() if id(one.of) not in known)
        return Sight(time.time(), columns, processes(members), counted, _NUMBER_BYTES * numbers + _LINE_BYTES * made)

    def _answer(self, scrape: Scrape) -> tuple[dict[FamilyId, Column], list[Member], dict[Who, float]]:
        families = [one for one in scrape.result() if one.family.name not in FAMILIES]
        columns = {one.family[:2]: Column(self._lines(one), array("d", one.values)) for one in families}
        self._known = {family: self._known[family] for family in columns}
        return columns, scrape.members(), {(who.pid, who.started): n for who, n in scrape.counted().items()}

    def _lines(self, one: FamilySamples) -> Lines:
        """Return the lines that were kept, if they have not changed."""
        mark = one.keys if one.source is None else (one.source[0], one.source[0].generation)
        known = self._known.get(one.family[:2])
        if known is None or not (known[0] is mark or known[0] == mark) or len(known[1].lines) != len(one.values):
            known = self._known[one.family[:2]] = mark, Lines(one.family, one.lines)
        return known[1]


@dataclass(frozen=True)
class FamilyRate:
    """The rates of a family between two moments.

    per_second: events; None if the family counts none. distribution: that of the observations between the moments, for
    histograms and summaries.
    """

    name: str
    type: str
    series: int
    per_second: float | None
    distribution: Distribution | None


@dataclass(frozen=True)
class ProcessRate:
    """The rates of a process between two moments. cpu: 1 is one whole CPU; per_second: events."""

    process: Process
    cpu: float | None
    per_second: float | None


@dataclass(frozen=True)
class Rates:
    """All rates between two moments. ended: the processes that are not alive any more."""

    seconds: float
    families: list[FamilyRate]
    processes: list[ProcessRate]
    ended: list[Process] = field(default_factory=list)


def rates(before: Sight, after: Sight) -> Rates:
    """Return the rates between two moments."""
    seconds = max(after.at - before.at, 1e-9)
    known = {who_is(one): one for one in before.processes}
    living = {who_is(one) for one in after.processes if one.is_alive}
    return Rates(
        seconds,
        [_family(before.columns.get(family), column, seconds) for family, column in after.columns.items()],
        [_process(known.get(who_is(one)), one, before, after, seconds) for one in after.processes],
        [one for who, one in known.items() if one.is_alive and who not in living],
    )


def _family(before: Column | None, after: Column, seconds: float) -> FamilyRate:
    family, of = after.of.family, after.of
    series = len(of.lines)
    if not of.has_events:
        return FamilyRate(family.name, family.type, series, None, None)
    rises = after.since(before)
    events = sum(rises[n] for n in of.counting)
    spread = None if family.type == "counter" else distribution(of, rises)
    return FamilyRate(family.name, family.type, series, events / seconds, spread)


def distribution(of: Lines, rises: Sequence[float]) -> Distribution:
    """Return the distribution of all children together."""
    count, total = sum(rises[n] for n in of.counting), sum(rises[n] for n in of.sums)
    return Distribution(count, total, [(bound, sum(rises[n] for n in at)) for bound, at in of.buckets.items()])


def _process(was: Process | None, now: Process, before: Sight, after: Sight, seconds: float) -> ProcessRate:
    cpu, counted = None, after.counted.get(who_is(now))
    if was is not None and was.cpu_seconds is not None and now.cpu_seconds is not None:
        cpu = max(now.cpu_seconds - was.cpu_seconds, 0.0) / seconds
    if counted is not None:
        counted = max(counted - before.counted.get(who_is(now), 0.0), 0.0) / seconds
    return ProcessRate(now, cpu, counted)


def who_is(process: Process) -> Who:
    """Return what distinguishes a process from all others, even from those with its name."""
    return process.pid, process.started
