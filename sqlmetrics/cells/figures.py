"""The figures that a process counts about its own work for the store: seconds of flushes and scrapes, and errors.

They are values of the store like any other, so they add up over processes and outlive them. Their names are reserved,
and a collector shows them on request only. They wait in memory until the process has something to flush anyway, or
else each flush would cause the next one.
"""

from __future__ import annotations

from collections import defaultdict

from ..process.trouble import CAUSES, Trouble
from .part import Part
from .shape import Key, describe, shape_of

FAMILIES = {
    "sqlmetrics_errors": ("counter", "cause", "What could not be done at once, by cause; the log says more."),
    "sqlmetrics_flush_seconds": ("summary", "", "Flushes that wrote rows."),
    "sqlmetrics_scrape_seconds": ("summary", "", "Scrapes."),
    "sqlmetrics_series_limited": ("counter", "family", "Calls of labels() that got the series (other), by family."),
}
"""Families that no app may have: (type, label, help). The views of the schema leave them out, too."""
SAMPLES = {"counter": ("_total",), "summary": ("_count", "_sum")}
Figure = tuple[str, str, str]
"""A sample: its family, the suffix of its name, and the value of its label, or ''."""
Waiting = dict[Figure, float]
"""What a scrape has to add to the figures in the store."""
ZEROS: dict[Figure, float] = {
    **{("sqlmetrics_errors", "_total", cause): 0.0 for cause in CAUSES},
    **{(f"sqlmetrics_{work}_seconds", one, ""): 0.0 for work in ("flush", "scrape") for one in SAMPLES["summary"]},
}
"""The figures that scrapes show before anything was counted."""


class Figures:
    """The figures of one process.

    part: the part of the store where the process counts them; None in a process that only scrapes.
    """

    def __init__(self, trouble: Trouble, part: Part | None = None):
        self.part = part
        self._trouble = trouble
        # Those that a full disk raises must have cells before the disk is full.
        self._noted = defaultdict(float, {("sqlmetrics_errors", "_total", cause): 0.0 for cause in ("cells", "flush")})
        self._counted: dict[Figure, float] = {}

    def took(self, work: str, seconds: float) -> None:
        """Note how long a piece of work took, 'flush' or 'scrape'. Takes no lock, and needs none: see `values`."""
        self._noted[f"sqlmetrics_{work}_seconds", "_count", ""] += 1
        self._noted[f"sqlmetrics_{work}_seconds", "_sum", ""] += seconds

    def limited(self, family: str) -> None:
        """Note that a label set got no series of its own. Call it with the lock of its metric held."""
        self._noted["sqlmetrics_series_limited", "_total", family] += 1

    def bring(self) -> Waiting:
        """Count in the store what was noted. Never waits for another thread.

        Returns what a scrape of this process has to add: everything that was noted if it has no part of a store. If
        it has one, but no writer yet, the figures wait, and no scrape shows them. Otherwise the next scrape, answered
        by another worker, would seem to count backwards.
        """
        if self.part is None:
            return {**ZEROS, **self._all()}
        with self.part.binding(0) as outermost:
            if outermost and self.part.writers:
                self._count(self.part)
        return ZEROS

    def _all(self) -> dict[Figure, float]:
        errors = {("sqlmetrics_errors", "_total", cause): n for cause, n in self._trouble.counts.copy().items()}
        return {**self._noted, **errors}

    def _count(self, part: Part) -> None:
        for figure, amount in self._all().items():
            if amount != self._counted.get(figure):
                writer = part.writer(next(iter(part.writers)), True)
                key, position = _place(figure)
                arena, cell = part.place(writer, key, True)
                arena.cells[cell + position] += amount - self._counted.get(figure, 0.0)
                self._counted[figure] = amount


def _place(figure: Figure) -> tuple[Key, int]:
    """Return the child that has a figure as a sample, and the position of that."""
    family, addition, of = figure
    type_, label, help_ = FAMILIES[family]
    describe((family, type_, ""), help=help_)
    samples = tuple((family + one, "") for one in SAMPLES[type_])
    labels = ((label,), (of,)) if label else ((), ())
    return (shape_of((family, type_, ""), labels[0], samples), labels[1]), SAMPLES[type_].index(addition)
