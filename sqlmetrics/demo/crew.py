"""What the demo knows of the workers by its own requests, and so what every gauge has to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlencode

MEANINGS = {
    "all": "each process, ended ones too",
    "min": "the least, ended ones too",
    "max": "the greatest, ended ones too",
    "sum": "the sum, ended ones too",
    "mostrecent": "the last one set, ended ones too",
    "liveall": "each living process",
    "livemin": "the least of the living",
    "livemax": "the greatest of the living",
    "livesum": "the sum of the living",
    "livemostrecent": "the last one set by the living",
}
_COMBINE: dict[str, Callable[[Iterable[float]], float]] = {"min": min, "max": max, "sum": sum}
Shown = float | dict[str, float] | None
"""A gauge in a scrape: one value, or one for each pid; None if it is not shown."""


class Crew:
    """The workers and the number each has set its gauges to: n, but -n those of mode min.

    living: pids of the workers that live. ended: of those that do not.
    """

    def __init__(self) -> None:
        self.living: set[str] = set()
        self.ended: set[str] = set()
        self._numbers: dict[str, int] = {}  # the newest set is the last

    def has_set(self, pid: str, number: int) -> None:
        """Note what a worker has set its gauges to."""
        self.living.add(pid)
        self._numbers.pop(pid, None)
        self._numbers[pid] = number

    def has_ended(self, pid: str) -> None:
        """Note that a worker was killed."""
        self.living.remove(pid)
        self.ended.add(pid)

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Those of the numbers that no worker has."""
        return sorted(set(numbers) - set(self._numbers.values()))

    def expected(self, mode: str) -> Shown:
        """What a scrape has to show for the gauge of a mode."""
        pids = self.living if mode.startswith("live") else self.living | self.ended
        kind = mode.removeprefix("live")
        sign = -1 if kind == "min" else 1
        values = {pid: float(sign * self._numbers.get(pid, 0)) for pid in pids}  # a gauge starts at 0
        if kind == "all":
            return values
        if kind == "mostrecent":
            return next((values[pid] for pid in reversed(self._numbers) if pid in pids), None)
        return _COMBINE[kind](values.values())


def query(number: int) -> str:
    """The query string that sets the ten gauges of the worker that is asked."""
    return urlencode({mode: -number if mode.endswith("min") else number for mode in MEANINGS})
