"""What a gauge's ten multiprocess modes make of the values of its processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

Labels = dict[str, str]


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


def aggregate(mode: str, parts: list[Part], labels: Labels) -> list[tuple[Labels, float]]:
    """Return (labels, value) of each sample that a gauge of that mode shows; `parts` is not empty."""
    mode = mode.removeprefix("live")
    if mode == "all":
        return _each(parts, labels)
    if mode == "mostrecent":
        # A gauge that was never set has no time, and is not shown. A tie goes to the later process.
        newest = max(parts, key=lambda part: (part.timestamp, part.age()))
        return [(labels, newest.value)] if newest.timestamp > 0 else []
    return [(labels, _OF_ALL[mode]([part.value for part in parts]))]


def counted(mode: str, parts: list[Part]) -> list[Part]:
    """The parts that a mode looks at: the `live` modes only those of living processes."""
    return [part for part in parts if part.alive] if mode.startswith("live") else parts


def _each(parts: list[Part], labels: Labels) -> list[tuple[Labels, float]]:
    """One sample per pid; where two processes share one, the later is shown."""
    newest: dict[str, Part] = {}
    for part in sorted(parts, key=Part.age):
        if part.pid is not None:
            newest[part.pid] = part
    name = "process_pid" if "pid" in labels else "pid"
    return [({**labels, name: pid}, part.value) for pid, part in newest.items()]


def _or_nan(choose: Callable[[list[float]], float]) -> Callable[[list[float]], float]:
    """NaN wins: comparisons with it are all false, so the answer would depend on the order."""

    def chosen(values: list[float]) -> float:
        return math.nan if any(map(math.isnan, values)) else choose(values)

    return chosen


def exact_sum(values: list[float]) -> float:
    """The sum, rounded once: so it does not depend on the order."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond all floats on the way, or Inf and -Inf
        return sum(values)


_OF_ALL: dict[str, Callable[[list[float]], float]] = {"min": _or_nan(min), "max": _or_nan(max), "sum": exact_sum}
