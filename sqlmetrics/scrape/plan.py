"""The plan of a scrape: families, series and their labels, and the place of each value.

A reader keeps its plan from one scrape to the next. It only grows: a series gets its position once. After rows were
deleted (`store.epoch` in the database), the reader begins another plan.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate, count, islice
from typing import Any, NamedTuple

import apsw

from ..cells.figures import FAMILIES
from ..cells.records import is_older
from ..cells.shape import STATE_TYPES, checked_label_set, label_set
from ..errors import DamagedError
from ..rows.series import read_help

# All in one row: each step to the next row gives up the interpreter lock, which a busy process gets back ms later.
SELECT_FRESH_SERIES = """
SELECT json_group_array(json_array(id, family, name, labels, variant))
  FROM (SELECT id, family, name, labels, variant FROM series WHERE id > ? ORDER BY id LIMIT ?)
"""
SELECT_FAMILIES = "SELECT id, name, type, mode, help, made, unit, registered FROM family ORDER BY id"
_AT_ONCE = 5_000
"""The most series in one such row: all series of a large store would take much memory, twice."""
_UNNAMED = -(2**62)
"""Series without a row are numbered from here on, upwards, in the order in which they were made."""
_AMOUNTS = tuple(f"_{unit}_total" for unit in ("seconds", "bytes", "joules", "grams", "meters", "ratio"))
"""The suffixes of counters of base units, see https://prometheus.io/docs/practices/naming/."""
FamilyId = tuple[str, str]
"""(name, type)"""


class OtherKindError(Exception):
    """The rows have a family as a gauge that the plan has as a sum, or the other way round: begin another plan.

    An app may declare a counter of its own class with a mode, in some processes only.
    """


class Family(NamedTuple):
    """A metric family. mode: a gauge's multiprocess mode, else ''. made: when its metadata changed; the newest wins.

    registered: whether it is in the default registry; None: unknown.
    """

    name: str
    type: str
    mode: str
    help: str
    made: float | None
    unit: str = ""
    registered: bool | None = None


class Line(NamedTuple):
    """A sample of a scrape without its value."""

    name: str
    labels: dict[str, str]


class Gauge:
    """One series of a gauge. Its lines are made with its values, because a mode may show one for each process.

    child: the labels that the variants of an Info or an Enum have in common, as JSON.
    """

    def __init__(self, family: FamilyId, name: str, labels: dict[str, str], child: str):
        self.family = family
        self.name = name
        self.child = child
        self._labels = labels

    def line(self, pid: str | None) -> Line:
        """Return the line of one process, or (None) of all together."""
        if pid is None:
            return Line(self.name, self._labels)
        return Line(self.name, {**self._labels, "process_pid" if "pid" in self._labels else "pid": pid})


def _is_amount(name: str) -> bool:
    return name.endswith(("_sum", *_AMOUNTS))


def _shown_labels(family: FamilyId, labels: dict[str, str], variant: str) -> dict[str, str]:
    """Return the labels of a gauge, of one state of an Enum, or of one label set of an Info."""
    if family[1] not in STATE_TYPES:
        return labels
    return {**labels, **(label_set(variant) if family[1] == "info" else {family[0]: variant})}


class GaugeLines(Sequence[Line]):
    """The lines of gauges, made on demand, because the code for text needs gauge and pid only."""

    def __init__(self, keys: Sequence[tuple[Gauge, str | None]]):
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, number: Any) -> Any:
        gauge, pid = self._keys[number]
        return gauge.line(pid)


class Lines:
    """The lines of a family whose values are sums, in the order in which they are shown.

    texts: the app's labels of each line, as JSON.
    generation: raised when existing lines have changed; new lines do not raise it.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.texts: list[str] = []
        self.generation = 0
        self._numbers: dict[int, int] = {}
        self._numbered = 0

    def add(self, name: str, labels: dict[str, str], text: str, variant: str, position: int) -> None:
        """Add a series; text: its labels as JSON."""
        raise NotImplementedError

    def lay_out(self) -> None:
        """Make the lines of new children."""

    def values(self, totals: Sequence[float]) -> list[float]:
        """Return the value of each line. totals: by position."""
        raise NotImplementedError

    def numbers(self) -> dict[int, int]:
        """Return the number of each position's line. It is made on demand, as most families have no exemplars."""
        if self._numbered != self.generation:
            self._numbers, self._numbered = {}, self.generation
        self._number()
        return self._numbers

    def _number(self) -> None:
        """Number the new lines."""
        raise NotImplementedError


class Plain(Lines):
    """The lines of counters and summaries: one for each series."""

    def __init__(self) -> None:
        super().__init__()
        self._positions: list[int] = []

    def add(self, name: str, labels: dict[str, str], text: str, variant: str, position: int) -> None:  # noqa: ARG002
        """Add a series."""
        self.lines.append(Line(name, labels))
        self.texts.append(text)
        self._positions.append(position)

    def values(self, totals: Sequence[float]) -> list[float]:
        """The value of each line."""
        return [totals[position] for position in self._positions]

    def _number(self) -> None:
        first = len(self._numbers)
        self._numbers.update(zip(self._positions[first:], count(first), strict=False))


class _Child(NamedTuple):
    """A histogram's child: the positions of its buckets by bound, and the other positions by name."""

    labels: dict[str, str]
    buckets: dict[str, int]
    others: dict[str, int]


class Cumulative(Lines):
    """The lines of histograms: buckets are cumulative, and the count, which no process keeps, is the last bucket."""

    def __init__(self, family: str) -> None:
        super().__init__()
        self._family = family
        self._children: dict[str, _Child] = {}
        self._fresh: dict[str, None] = {}
        self._laid_out: dict[str, tuple[list[int], list[int]]] = {}
        self._children_numbered = self._lines_numbered = 0

    def add(self, name: str, labels: dict[str, str], text: str, variant: str, position: int) -> None:
        """Add a series."""
        child = self._children.setdefault(text, _Child(labels, {}, {}))
        (child.buckets if variant else child.others)[variant or name] = position
        if text in self._laid_out:  # another process has other buckets
            self._laid_out.clear()
            self._fresh = dict.fromkeys(self._children)
            self.lines, self.texts = [], []
            self.generation += 1
        self._fresh[text] = None

    def lay_out(self) -> None:
        """Make the lines of new children."""
        for text in self._fresh:
            child = self._children[text]
            bounds = sorted(child.buckets, key=float)
            self.lines += [Line(f"{self._family}_bucket", {**child.labels, "le": le}) for le in bounds]
            if bounds:
                self.lines.append(Line(f"{self._family}_count", child.labels))
            self.lines += [Line(name, child.labels) for name in child.others]
            self.texts += [text] * (len(self.lines) - len(self.texts))
            self._laid_out[text] = [child.buckets[le] for le in bounds], list(child.others.values())
        self._fresh = {}

    def values(self, totals: Sequence[float]) -> list[float]:
        """The value of each line."""
        values: list[float] = []
        for buckets, others in self._laid_out.values():
            if buckets:
                values += accumulate([totals[position] for position in buckets])
                values.append(values[-1])
            values += [totals[position] for position in others]
        return values

    def _number(self) -> None:
        if not self._numbers:
            self._children_numbered = self._lines_numbered = 0
        for buckets, others in islice(self._laid_out.values(), self._children_numbered, None):
            self._numbers.update(zip(buckets, count(self._lines_numbered), strict=False))
            self._lines_numbered += len(buckets) + bool(buckets) + len(others)
            self._children_numbered += 1


class Plan:
    """All families and series that a reader has met in rows and journals."""

    def __init__(self) -> None:
        self.families: dict[FamilyId, Family] = {}
        self.sums: dict[FamilyId, Lines] = {}
        self.gauges: set[FamilyId] = set()
        self.all_gauges: list[Gauge] = []
        self.length = 0
        """The number of positions."""
        self.ids: dict[int | Gauge, int] = {}
        """The number of each series in the query: its id in rows or, as long as it has none, a number below 0."""
        self.renamed: list[tuple[int, int]] = []
        """(id, former id) of series that have become rows, for `Tables.rename`, which empties the list."""
        self.names: dict[FamilyId, set[str]] = {}
        """The names of each family's samples."""
        self.numbers: dict[FamilyId, int] = {}
        """The number of each family in the query."""
        self._places: dict[tuple[FamilyId, str, str, str], int | Gauge] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._of_row: dict[int, int | Gauge] = {}
        self._newest_row = 0
        self._last_unnamed = _UNNAMED
        self._unnamed: dict[int, FamilyId] = {}

    def read(self, connection: apsw.Connection) -> None:
        """Read the families, and the series that are new since the last time. Raises OtherKindError."""
        ids: dict[int, FamilyId] = {}
        rows: list[Any] = connection.execute(SELECT_FAMILIES).fetchall()
        for number, name, type_, mode, help_, made, unit, registered in rows:
            about = (read_help(help_), made, str(unit), bool(registered))
            family = Family(str(name), str(type_), str(mode), *about)
            ids[int(str(number))] = family[:2]
            if (family[:2] in self.sums and family.mode) or (family[:2] in self.gauges and not family.mode):
                raise OtherKindError(f"{name} was met in a journal as what it is not in rows")
            self.add_family(family)
        count = _AT_ONCE
        while count == _AT_ONCE:
            rows = json.loads(str(connection.execute(SELECT_FRESH_SERIES, (self._newest_row, _AT_ONCE)).get))
            self._read_labels([row[3] for row in rows])
            for number, of, name, labels, variant in rows:
                self._name(self._place(ids[of], name, labels, variant), number)
                self._newest_row = number
            count = len(rows)

    def _read_labels(self, texts: Iterable[str]) -> None:
        """Read unknown label sets, all at once: one by one would take six times as long."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._labels))
        try:
            found = json.loads(f"[{','.join(fresh)}]")
        except ValueError:
            found = []
        if len(found) != len(fresh):
            found = [label_set(text) for text in fresh]  # this raises for the one that makes no sense
        for text, labels in zip(fresh, found, strict=True):
            self._labels[text] = checked_label_set(labels, text)

    def _name(self, place: int | Gauge, number: int) -> None:
        former = self.ids.get(place)
        if former is not None:
            self.renamed.append((number, former))
            del self._of_row[former], self._unnamed[former]
        self.ids[place] = number
        self._of_row[number] = place

    def add_family(self, family: Family) -> None:
        """Add a family; of several with one name and type, the newest wins."""
        self.numbers.setdefault(family[:2], len(self.numbers))
        self.names.setdefault(family[:2], set())
        known = self.families.get(family[:2])
        if known is None or not is_older(family.made, known.made):
            if known is not None and family.registered is None:
                family = family._replace(registered=known.registered)
            self.families[family[:2]] = family

    def id_of(self, family: FamilyId, name: str, labels: str, variant: str) -> int:
        """Return the number in the query of a series from a journal."""
        place = self._place(family, name, labels, variant)
        number = self.ids.get(place)
        if number is None:
            self._last_unnamed += 1
            number = self._last_unnamed
            self._unnamed[number] = family
            self._name(place, number)
        return number

    def unnamed(self, families: Container[FamilyId]) -> list[int]:
        """Return the numbers of these families' series that have no row yet."""
        return [number for number, family in self._unnamed.items() if family in families]

    def _place(self, family: FamilyId, name: str, labels: str, variant: str) -> int | Gauge:
        """Return the place of a series: its position among all sums, or its gauge; make it if it is new."""
        key = (family, name, labels, variant)
        known = self._places.get(key)
        return self._add(*key) if known is None else known

    def amounts(self) -> list[int]:
        """Return the numbers of sums that do not count events of the app: sums of observations, and base units."""
        return [
            self.ids[place]
            for (family, name, _, _), place in self._places.items()
            if isinstance(place, int) and (_is_amount(name) or family[0] in FAMILIES)
        ]

    def known_place(self, family: FamilyId, name: str, labels: str, variant: str) -> int | Gauge | None:
        """Return the place of a series; None if it was not met."""
        return self._places.get((family, name, labels, variant))

    def children(self) -> dict[FamilyId, list[dict[str, str]]]:
        """Return the app's labels of each child, by family."""
        texts: dict[FamilyId, dict[str, None]] = {}
        for family, _, text, _ in self._places:
            texts.setdefault(family, {})[text] = None
        return {family: [dict(self._labels[text]) for text in found] for family, found in texts.items()}

    def place_of_row(self, series: int) -> int | Gauge:
        """Return the place of a series by its number in the query. Raises DamagedError."""
        try:
            return self._of_row[series]
        except KeyError:
            raise DamagedError(f"rows name series {series}, which is not there") from None

    def position_of_row(self, series: int) -> int:
        """Return the position of a sum by its number. Raises DamagedError."""
        place = self.place_of_row(series)
        if not isinstance(place, int):
            raise DamagedError(f"rows add up series {series}, which is a gauge")
        return place

    def gauge_of_row(self, series: int) -> Gauge:
        """Return a gauge by its number. Raises DamagedError."""
        place = self.place_of_row(series)
        if not isinstance(place, Gauge):
            raise DamagedError(f"rows call series {series} a gauge, which is none")
        return place

    def _add(self, family: FamilyId, name: str, text: str, variant: str) -> int | Gauge:
        if name not in self.names[family]:
            self.names[family].update((name, f"{family[0]}_count") if family[1] == "histogram" and variant else (name,))
        labels = self._labels.get(text)
        if labels is None:
            labels = self._labels[text] = label_set(text)
        place: int | Gauge
        if family[1] in STATE_TYPES or self.families[family].mode:
            place = Gauge(family, name, _shown_labels(family, labels, variant), text)
            self.gauges.add(family)
            self.all_gauges.append(place)
        else:
            place = self.length
            if family not in self.sums:
                self.sums[family] = Cumulative(family[0]) if family[1] == "histogram" else Plain()
            self.sums[family].add(name, labels, text, variant, place)
            self.length += 1
        self._places[family, name, text, variant] = place
        return place

    def lay_out(self) -> None:
        """Make the lines of all that is new since the last time."""
        for lines in self.sums.values():
            lines.lay_out()
