"""The table: one row for each thing measured, the median of each side and of the ratios of all rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
