"""The text side of a scrape: families, series and their labels, and where the value of each goes.

It is kept from one scrape to the next, and only grows: a series gets a position once. Where rows were deleted
(`store.epoch` in the database), another is begun.
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

# In one row: each step to the next gives up the interpreter lock, and a busy process gets it back milliseconds later.
SELECT_FRESH_SERIES = """
SELECT json_group_array(json_array(id, family, name, labels, variant))
  FROM (SELECT id, family, name, labels, variant FROM series WHERE id > ? ORDER BY id LIMIT ?)
"""
SELECT_FAMILIES = "SELECT id, name, type, mode, help, made, unit, registered FROM family ORDER BY id"
_AT_ONCE = 5_000
"""Series that one such row brings: all of a large store would be much memory, twice."""
_UNNAMED = -(2**62)
"""Series that have no row are numbered from here on, upwards: in the order in which they were made."""
_AMOUNTS = tuple(f"_{unit}_total" for unit in ("seconds", "bytes", "joules", "grams", "meters", "ratio"))
"""What the names of counters of base units end in, see https://prometheus.io/docs/practices/naming/."""
FamilyId = tuple[str, str]
"""(name, type)"""


class OtherKindError(Exception):
    """A counter may be declared in a mode, and not in all processes: rows are what a reader has to go by."""


class Family(NamedTuple):
    """A metric family: mode is a gauge's multiprocess mode, else ''; made tells which of two is the newest.

    registered: whether it is in the default registry; None: nothing is known of that.
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
    """One series of a gauge; its lines come with its values, for a mode may show one for each process.

    child: the labels that the variants of an Info or an Enum have in common, as JSON.
    """

    def __init__(self, family: FamilyId, name: str, labels: dict[str, str], child: str):
        self.family = family
        self.name = name
        self.child = child
        self._labels = labels

    def line(self, pid: str | None) -> Line:
        """The line of one process, or of all together."""
        if pid is None:
            return Line(self.name, self._labels)
        return Line(self.name, {**self._labels, "process_pid" if "pid" in self._labels else "pid": pid})


def _is_amount(name: str) -> bool:
    return name.endswith(("_sum", *_AMOUNTS))


def _shown_labels(family: FamilyId, labels: dict[str, str], variant: str) -> dict[str, str]:
    """The labels of a gauge, of one state of an Enum, or of what an Info was given."""
    if family[1] not in STATE_TYPES:
        return labels
    return {**labels, **(label_set(variant) if family[1] == "info" else {family[0]: variant})}


class GaugeLines(Sequence[Line]):
    """The lines of gauges, made when somebody wants them: who writes the text keeps it by gauge and pid."""

    def __init__(self, keys: Sequence[tuple[Gauge, str | None]]):
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, number: Any) -> Any:
        gauge, pid = self._keys[number]
        return gauge.line(pid)


class Lines:
    """The lines of a family whose values are sums, in the order in which they are shown.

    texts: of each line the labels that the app gave, as JSON.
    generation: raised when lines that were there have changed, and not merely more have come.
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
        """Give the children that have come their lines."""

    def values(self, totals: Sequence[float]) -> list[float]:
        """The value of each line. totals: of all positions."""
        raise NotImplementedError

    def numbers(self) -> dict[int, int]:
        """Which line each position has; made when it is asked for, for most families have no exemplars."""
        if self._numbered != self.generation:
            self._numbers, self._numbered = {}, self.generation
        self._number()
        return self._numbers

    def _number(self) -> None:
        """Number the lines that have come."""
        raise NotImplementedError


class Plain(Lines):
    """Of counters and summaries: a line for each series."""

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
    """A histogram's child: the positions of its buckets by their bounds, and the others with their names."""

    labels: dict[str, str]
    buckets: dict[str, int]
    others: dict[str, int]


class Cumulative(Lines):
    """Of histograms: a bucket counts all smaller ones, and the count, which no process keeps, is the last bucket."""

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
        """Give the children that have come their lines."""
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
    """All families and series that were met in rows and journals."""

    def __init__(self) -> None:
        self.families: dict[FamilyId, Family] = {}
        self.sums: dict[FamilyId, Lines] = {}
        self.gauges: set[FamilyId] = set()
        self.all_gauges: list[Gauge] = []
        self.length = 0
        """How many positions have been given."""
        self.ids: dict[int | Gauge, int] = {}
        """By what the query knows each series: its id in rows, or, as long as it has none, a number below 0."""
        self.renamed: list[tuple[int, int]] = []
        """(id, former id) of series that have become rows; whoever has written the former one takes them out."""
        self.names: dict[FamilyId, set[str]] = {}
        """Of the samples of each family."""
        self.numbers: dict[FamilyId, int] = {}
        """By what the query knows each family."""
        self._places: dict[tuple[FamilyId, str, str, str], int | Gauge] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._of_row: dict[int, int | Gauge] = {}
        self._newest_row = 0
        self._last_unnamed = _UNNAMED
        self._unnamed: dict[int, FamilyId] = {}

    def read(self, connection: apsw.Connection) -> None:
        """Read the families, and the series that have come since the last time.

        Raises OtherKindError where it knows as sums what are gauges in rows, or the other way round.
        """
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
        """Read label sets that are not known, all at once: one by one takes six times as long."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._labels))
        try:
            found = json.loads(f"[{','.join(fresh)}]")
        except ValueError:
            found = []
        if len(found) != len(fresh):
            found = [label_set(text) for text in fresh]  # this says which of them makes no sense
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
        """Add a family; of those of one name and type the newest counts."""
        self.numbers.setdefault(family[:2], len(self.numbers))
        self.names.setdefault(family[:2], set())
        known = self.families.get(family[:2])
        if known is None or not is_older(family.made, known.made):
            if known is not None and family.registered is None:
                family = family._replace(registered=known.registered)
            self.families[family[:2]] = family

    def id_of(self, family: FamilyId, name: str, labels: str, variant: str) -> int:
        """By what the query knows a series that a journal tells of."""
        place = self._place(family, name, labels, variant)
        number = self.ids.get(place)
        if number is None:
            self._last_unnamed += 1
            number = self._last_unnamed
            self._unnamed[number] = family
            self._name(place, number)
        return number

    def unnamed(self, families: Container[FamilyId]) -> list[int]:
        """The numbers of the series of these families that have no row yet."""
        return [number for number, family in self._unnamed.items() if family in families]

    def _place(self, family: FamilyId, name: str, labels: str, variant: str) -> int | Gauge:
        """What stands for a series: its position among all sums, or, of a gauge, the gauge itself."""
        key = (family, name, labels, variant)
        known = self._places.get(key)
        return self._add(*key) if known is None else known

    def amounts(self) -> list[int]:
        """By what the query knows the sums whose steps are no events of the app: what was observed, and base units."""
        return [
            self.ids[place]
            for (family, name, _, _), place in self._places.items()
            if isinstance(place, int) and (_is_amount(name) or family[0] in FAMILIES)
        ]

    def known_place(self, family: FamilyId, name: str, labels: str, variant: str) -> int | Gauge | None:
        """The same, None for a series that was not met."""
        return self._places.get((family, name, labels, variant))

    def children(self) -> dict[FamilyId, list[dict[str, str]]]:
        """The labels of each child, as the app gave them, by families."""
        texts: dict[FamilyId, dict[str, None]] = {}
        for family, _, text, _ in self._places:
            texts.setdefault(family, {})[text] = None
        return {family: [dict(self._labels[text]) for text in found] for family, found in texts.items()}

    def place_of_row(self, series: int) -> int | Gauge:
        """The same for the id that a series has in rows, which have been read. Raises DamagedError."""
        try:
            return self._of_row[series]
        except KeyError:
            raise DamagedError(f"rows name series {series}, which is not there") from None

    def position_of_row(self, series: int) -> int:
        """The position of a sum. Raises DamagedError."""
        place = self.place_of_row(series)
        if not isinstance(place, int):
            raise DamagedError(f"rows add up series {series}, which is a gauge")
        return place

    def gauge_of_row(self, series: int) -> Gauge:
        """The gauge of that id. Raises DamagedError."""
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
        """Lay out the lines of what has come since the last time."""
        for lines in self.sums.values():
            lines.lay_out()
