"""What a gauge's ten multiprocess modes make of the values of its processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Part(NamedTuple):
    """One process's value of a gauge; pid is None for what ended processes left behind together."""

    pid: str | None
    value: float
    timestamp: float
    started: int
    alive: bool
    instance: int

    def age(self) -> tuple[int, int]:
        """Orders processes by when they came."""
        return self.started, self.instance


def aggregate(mode: str, parts: list[Part]) -> Iterable[tuple[str | None, float]]:
    """Return (pid or None, value) of each sample that a gauge of that mode shows; `parts` is not empty."""
    mode = mode.removeprefix("live")
    if mode == "all":
        return _each(parts)
    if mode == "mostrecent":
        # A gauge that was never set has no time, and is not shown. A tie goes to the later process.
        newest = max(parts, key=lambda part: (part.timestamp, part.age()))
        return [(None, newest.value)] if newest.timestamp > 0 else []
    return [(None, _OF_ALL[mode]([part.value for part in parts]))]


def counted(mode: str, parts: list[Part]) -> list[Part]:
    """The parts that a mode looks at: the `live` modes only those of living processes."""
    return [part for part in parts if part.alive] if mode.startswith("live") else parts


def _each(parts: list[Part]) -> Iterable[tuple[str | None, float]]:
    """One sample per pid; where two processes share one, the later is shown."""
    return {part.pid: part.value for part in sorted(parts, key=Part.age) if part.pid is not None}.items()


def _or_nan(choose: Callable[[list[float]], float]) -> Callable[[list[float]], float]:
    """NaN wins: comparisons with it are all false, so the answer would depend on the order."""

    def chosen(values: list[float]) -> float:
        return math.nan if any(map(math.isnan, values)) else choose(values)

    return chosen


def exact_sum(values: Iterable[float]) -> float:
    """The sum, rounded once: so it does not depend on the order."""
    values = list(values)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond all floats on the way, or Inf and -Inf
        return sum(values)


_OF_ALL: dict[str, Callable[[list[float]], float]] = {"min": _or_nan(min), "max": _or_nan(max), "sum": exact_sum}
