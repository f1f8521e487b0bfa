"""The table: one row for each thing measured, the median of each side and of the ratios of all rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

WHAT = 36
WIDTHS = (8, 9, 9, 10, 7, 9)
UNITS = {"ns": 1e9, "us": 1e6, "ms": 1e3, "MiB": 2**-20, "files": 1}
"""What a second, a byte or a file is in each."""


@dataclass(frozen=True)
class Row:
    """What was measured; times: for each side, the seconds (or bytes, or files) of each round, in their order."""

    what: str
    times: Mapping[str, Sequence[float]]
    unit: str
    to_mmap: float | None = None
    """The ratio to mmap that is aimed at, or less."""
    to_memory: float | None = None

    def ratio(self, other: str) -> float | None:
        """The median over the rounds of sqlmetrics' time divided by the other side's of the same round."""
        if other not in self.times:
            return None
        return median(mine / its for mine, its in zip(self.times["sqlmetrics"], self.times[other], strict=True))


def print_head() -> None:
    """Print the table's first lines."""
    print("Medians; a ratio is sqlmetrics' figure divided by the other's in the same round: below 1 is better.\n")
    _print("what", "baseline", "memory", "mmap", "sqlmetrics", "to mmap", "to memory", "target")


def print_row(row: Row) -> None:
    """Print one row as soon as it is known."""
    times = [_time(row, side) for side in ("baseline", "memory", "mmap", "sqlmetrics")]
    ratios = [_ratio(row.ratio(other)) for other in ("mmap", "memory")]
    _print(row.what, *times, *ratios, _target(row))


def _print(what: str, *cells: str) -> None:
    numbers = [cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=False)]
    print("  ".join([what.ljust(WHAT), *numbers, cells[-1]]), flush=True)


def _time(row: Row, side: str) -> str:
    if side not in row.times:
        return "-"
    return f"{median(row.times[side]) * UNITS[row.unit]:.{0 if row.unit in ('ns', 'files') else 1}f} {row.unit}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _target(row: Row) -> str:
    parts = []
    for name, aim in (("mmap", row.to_mmap), ("memory", row.to_memory)):
        ratio = row.ratio(name)
        if aim is not None and ratio is not None:
            parts.append(f"<= {aim:.2f} of {name}: {'met' if ratio <= aim else 'missed'}")
    return ", ".join(parts) or "-"
