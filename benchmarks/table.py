"""The table: one row for each thing measured, the median of each side and of the ratios of all rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

SIDES = ("memory", "mmap", "mpmetrics", "distributed", "sqlmetrics")
UNITS = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1, "MiB": 2**-20, "bytes": 1, "files": 1, "%": 100, "1/s": 1}
"""What a second, a byte, a file, a share or a request in each second is in each."""
HEAD = ("what", *SIDES, "ratio", "to reach", "")


@dataclass(frozen=True)
class Row:
    """What was measured; times: for each side, the seconds (or what else) of each round, in their order.

    target: the ratio of sqlmetrics' figure to that of side `to` that is aimed at, or less; None: none.
    larger: more is better, so the ratio is the other's figure divided by sqlmetrics'.
    most: what sqlmetrics' own figure is to be, or less, where there is nothing to divide it by.
    """

    what: str
    times: Mapping[str, Sequence[float]]
    unit: str
    to: str = "mmap"
    target: float | None = None
    larger: bool = False
    most: float | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    """Instead of a side's figure."""

    def ratio(self) -> float | None:
        """The median over the rounds of sqlmetrics' figure divided by the other's of the same round."""
        if self.to not in self.times or "sqlmetrics" not in self.times:
            return None
        pairs = list(zip(self.times["sqlmetrics"], self.times[self.to], strict=True))
        return median(its / mine if self.larger else mine / its for mine, its in pairs)

    def cells(self) -> tuple[str, ...]:
        """The row's texts, as `HEAD` names them."""
        ratio = self.ratio()
        return (
            self.what,
            *(self._figure(side) for side in SIDES),
            "-" if ratio is None else f"{_short(ratio)} of {self.to}",
            *self._verdict(ratio),
        )

    def _verdict(self, ratio: float | None) -> tuple[str, str]:
        if self.most is not None and "sqlmetrics" not in self.times:
            return f"{_short(self.most * UNITS[self.unit])} {self.unit}", "-"
        if self.most is not None:
            is_met = median(self.times["sqlmetrics"]) <= self.most
            return f"{_short(self.most * UNITS[self.unit])} {self.unit}", "met" if is_met else "missed"
        if ratio is None or self.target is None:
            return "-", "-"
        return _short(self.target), "met" if ratio <= self.target else "missed"

    def _figure(self, side: str) -> str:
        if side not in self.times:
            return self.notes.get(side, "-")
        return f"{_short(median(self.times[side]) * UNITS[self.unit])} {self.unit}"


def _short(number: float) -> str:
    if number and abs(number) < 0.1:
        return f"{number:.2g}"
    return f"{number:.2f}" if abs(number) < 10 else f"{number:,.0f}"


def markdown(rows: Sequence[Row]) -> str:
    """The table, as a page shows it."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def print_head() -> None:
    """Print the table's first lines."""
    print("Medians; a ratio is sqlmetrics' figure divided by the other's in the same round: below 1 is better.\n")
    _print(HEAD)


def print_row(row: Row) -> None:
    """Print one row as soon as it is known."""
    _print(row.cells())


def _print(cells: Sequence[str]) -> None:
    widths = (54, *(12 for _ in SIDES), 16, 8, 6)
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip(), flush=True)


RESULTS = {
    "child.inc()": "`counter.inc()`",
    'metric.labels("GET", "/x").inc()': '`counter.labels("GET", "/x").inc()`',
    "histogram.observe()": "`histogram.observe()`",
    "gauge.set()": "`gauge.set()`",
    "mostrecent gauge.set()": "`gauge.set()`, mode `mostrecent`",
    "new counter child, 1,000 in one process": "a new label set of a counter",
    "new histogram child, alone": "a new label set of a histogram",
    "scrape, 16 x 5,100 samples, own function": "scrape, 16 processes of 5,100 samples, one has changed",
    "scrape, 16 x 5,100 samples, every sample changed": "scrape, 16 processes of 5,100 samples, all have changed",
    "scrape, 16 x 5,100 samples, generate_latest": "the same by `prometheus_client.generate_latest`, one has changed",
    "the first scrape of a process": "the first scrape of a process, 16 processes of 5,100 samples",
    "the first crowd, 10,000 dead workers": "scrape, 16 processes of 5,100 samples, after 10,000 workers have ended",
    "scrape, 64 x 20,009 samples": "scrape, 64 processes of 20,009 samples",
    "memory of a process that scrapes it": "memory of the process that scrapes these 64",
    "scrape, 16 x 1,000 gauges of mode all": "scrape, 16 processes of 1,000 gauges, mode `all`",
    "first scrape of a worker, 4 x 20,000 new counters": "scrape right after 4 processes made 20,000 new series each",
    "longest stall of an event loop during a scrape": "longest stall of an event loop during a scrape",
    "gunicorn, 4 workers: requests/s": "gunicorn with 4 workers, five metrics per request: requests per second",
    "99th percentile with a scrape each second": "the same: 99th percentile of a request, with a scrape each second",
    "first operation after a fork, 5,000 children": "the first operation after a fork, 5,000 label sets",
    "CPU of a process that lives for one job": "CPU of a process that lives for one job",
    "memory for each series and process": "memory for each series and process",
    "disk for each series and process": "disk for each series and process",
    "files, 1,000 died": "files after 1,000 processes have ended",
    "background CPU, 1,000/s over 5,000 counters": "background CPU at 1,000 operations/s over 5,000 counters",
    "background CPU, 1,000/s over 5,000 histograms": "background CPU at 1,000 operations/s over 5,000 histograms",
    "import sqlmetrics, beside import prometheus_client": "the import",
}
"""The rows that the page for users has, in its order, and what they are called there."""


def results(lines: Iterable[Sequence[str]]) -> str:
    """The table for users, as Markdown: some of the lines (see `Row.cells`), without targets and other rivals.

    A line that is not there, as after a run of other sizes, is left out: a run must not fail at its end.
    """
    found = {line[0]: dict(zip(HEAD, line, strict=True)) for line in lines}
    sides = ("memory", "mmap", "sqlmetrics")
    shown = [(called, *(found[name][side] for side in sides)) for name, called in RESULTS.items() if name in found]
    head = ("what", "`prometheus_client` in one process", "its multiprocess mode", "sqlmetrics")
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---", *["---:"] * 3), *shown))
