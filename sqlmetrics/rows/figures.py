"""What a process counts of its own work for the store: seconds of flushes and scrapes, and errors by cause.

They are values of the store like any other, so they are added up over processes and outlive them, under reserved
names that a collector shows on request only. They wait in memory until the process has something to flush anyway:
else each flush would be the cause of the next.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ..client.binder import Binder
from ..process import native
from ..scrape.plan import Family, Line
from ..scrape.shown import Shown
from ..trouble import CAUSES, Trouble
from ..values import SharedValue

if TYPE_CHECKING:
    from ..store.store import Store

_HELP = {
    "sqlmetrics_errors": ("counter", "What could not be done at once, by cause; the log says more."),
    "sqlmetrics_flush_seconds": ("summary", "Flushes that wrote rows."),
    "sqlmetrics_scrape_seconds": ("summary", "Scrapes."),
    "sqlmetrics_series_limited": ("counter", "Calls of labels() that got the series (other), by family."),
}
NAMES = frozenset(_HELP)
"""Families that no app may have; the views of the schema leave them out, too."""


_LABEL = {"sqlmetrics_errors": "cause", "sqlmetrics_series_limited": "family"}
"""The label of each family that has one."""


class Figure(NamedTuple):
    """One sample: its name, and the value of its label, or ''."""

    name: str
    of: str = ""

    def family(self) -> str:
        """The name of its family."""
        return self.name.rsplit("_", 1)[0]

    def labels(self) -> dict[str, str]:
        """Its label, if it has one."""
        label = _LABEL.get(self.family())
        return {label: self.of} if label else {}


Waiting = dict[Figure, float]
"""What a process has noted and not counted in the store."""
_FIRST: Waiting = {Figure("sqlmetrics_errors_total", cause): 0 for cause in ("cells", "flush")}


class Figures:
    """The figures of one process.

    store: where it counts them; None in a process that only scrapes. trouble: of such a process.
    """

    def __init__(self, store: Store | None = None, trouble: Trouble | None = None):
        self._store = store
        self._trouble = trouble
        self._durations: deque[tuple[str, float]] = deque(maxlen=1000)  # if nobody ever asks
        self._errors_seen: Counter[str] = Counter()
        self._limited: dict[str, int] = {}
        self._limited_seen: Counter[str] = Counter()
        # What a full disk brings about is to have its cells before the disk is full.
        self._waiting = _FIRST.copy()
        self._values: dict[Figure, SharedValue] = {}
        # Not by the flusher, when there is something to count: a fork waits for it, and a new binder waits for forks.
        self._class: type[SharedValue] = _value_class(store) if store else SharedValue
        self._busy = native.allocate_lock()

    def clear(self) -> None:
        """In a child: it has noted nothing yet."""
        for noted in (self._durations, self._errors_seen, self._limited, self._limited_seen, self._values):
            noted.clear()
        self._waiting = _FIRST.copy()
        self._busy = native.allocate_lock()

    def took(self, work: str, seconds: float) -> None:
        """Note how long a piece of work took, 'flush' or 'scrape'. Takes no lock."""
        self._durations.append((work, seconds))

    def limited(self, family: str) -> None:
        """Note that a label set got no series of its own. Call it with the lock of its metric held."""
        self._limited.setdefault(family, 0)
        self._limited[family] += 1

    def bring(self) -> Waiting:
        """Count in the store what was noted. Never waits for another thread.

        Returns what a scrape of this process has to add: all that was noted, if there is no store to count it in.
        Where there is one, but this process has no part of it yet, what was noted waits, and no scrape shows it: the
        next scrape may be another worker's, which does not know of it, and would seem to count backwards.
        """
        if self._busy.acquire(blocking=False):
            try:
                self._gather()
                if self._store is not None:
                    self._count(self._store)
            finally:
                self._busy.release()
        return dict(self._waiting) if self._store is None else {}

    def _gather(self) -> None:
        while self._durations:
            work, seconds = self._durations.popleft()
            self._add(Figure(f"sqlmetrics_{work}_seconds_count"), 1)
            self._add(Figure(f"sqlmetrics_{work}_seconds_sum"), seconds)
        trouble = self._trouble if self._store is None else self._store.trouble
        errors = trouble.counts.copy() if trouble is not None else {}
        for cause, count in errors.items():
            self._add(Figure("sqlmetrics_errors_total", cause), count - self._errors_seen[cause])
            self._errors_seen[cause] = count
        for family, count in self._limited.copy().items():
            self._add(Figure("sqlmetrics_series_limited_total", family), count - self._limited_seen[family])
            self._limited_seen[family] = count

    def _add(self, figure: Figure, amount: float) -> None:
        self._waiting[figure] = self._waiting.get(figure, 0) + amount

    def _count(self, store: Store) -> None:
        while self._waiting and store.part.writers:
            figure, amount = self._waiting.popitem()
            if figure not in self._values:
                self._make(figure)
            self._values[figure].inc(amount)

    def _make(self, figure: Figure) -> None:
        type_, help_ = _HELP[figure.family()]
        labels = figure.labels()
        for one in [figure] if labels else _pair(figure.family()):
            self._values[one] = self._class(
                type_, figure.family(), one.name, tuple(labels), tuple(labels.values()), help_
            )


def _value_class(store: Store) -> type[SharedValue]:
    class Value(SharedValue):
        """A value of this store, under a name that this process has in it already."""

        _binder = Binder(lambda: next(iter(store.part.writers)), lambda: store)

    return Value


def _pair(family: str) -> list[Figure]:
    return [Figure(f"{family}_count"), Figure(f"{family}_sum")]


_ALL = [
    *(Figure("sqlmetrics_errors_total", cause) for cause in CAUSES),
    *_pair("sqlmetrics_flush_seconds"),
    *_pair("sqlmetrics_scrape_seconds"),
]


def completed(counted: Iterable[Shown], waiting: Waiting) -> list[Shown]:
    """The figures' families: what the store has of them, and what waits in this process; 0 where there is nothing."""
    values = dict.fromkeys([*_ALL, *waiting], 0.0)
    for shown in counted:
        for (name, labels), value in zip(shown.lines, shown.values, strict=True):
            if (one := Figure(name, next(iter(labels.values()), ""))).family() in _HELP:
                values[one] = value
    families = []
    for name, (type_, help_) in _HELP.items():
        ours = [one for one in values if one.family() == name]
        lines = [Line(one.name, one.labels()) for one in ours]
        numbers = [values[one] + waiting.get(one, 0.0) for one in ours]
        families.append(Shown(Family(name, type_, "", help_, 0), lines, numbers))
    return families
