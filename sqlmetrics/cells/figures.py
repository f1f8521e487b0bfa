"""What a process counts of its own work for the store: seconds of flushes and scrapes, and errors by cause.

They are values of the store like any other, so they are added up over processes and outlive them, under reserved
names that a collector shows on request only. They wait in memory until the process has something to flush anyway:
else each flush would be the cause of the next.
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
"""A sample: its family, what its name has in addition, and the value of its label, or ''."""
Waiting = dict[Figure, float]
"""What a scrape has to add to what the store has of them."""
ZEROS: dict[Figure, float] = {
    **{("sqlmetrics_errors", "_total", cause): 0.0 for cause in CAUSES},
    **{(f"sqlmetrics_{work}_seconds", one, ""): 0.0 for work in ("flush", "scrape") for one in SAMPLES["summary"]},
}
"""Those that are shown before anything was counted."""


class Figures:
    """The figures of one process.

    part: what it has of the store in which it counts them; None in a process that only scrapes.
    """

    def __init__(self, trouble: Trouble, part: Part | None = None):
        self.part = part
        self._trouble = trouble
        # What a full disk brings about is to have its cells before the disk is full.
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

        Returns what a scrape of this process has to add: all that was noted, if there is no store to count it in.
        Where there is one, but this process has no part of it yet, what was noted waits, and no scrape shows it: the
        next scrape may be another worker's, which does not know of it, and would seem to count backwards.
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
    """The child that a figure is of, and its position in it."""
    family, addition, of = figure
    type_, label, help_ = FAMILIES[family]
    describe((family, type_, ""), help=help_)
    samples = tuple((family + one, "") for one in SAMPLES[type_])
    labels = ((label,), (of,)) if label else ((), ())
    return (shape_of((family, type_, ""), labels[0], samples), labels[1]), SAMPLES[type_].index(addition)
