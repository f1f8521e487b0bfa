"""What ended processes left behind, as the rows have it: the same for all scrapes until another one ends."""

from __future__ import annotations

from array import array
from collections.abc import Container
from typing import Any

import apsw

from .columns import Extra
from .gauges import Part
from .plan import Gauge, Plan

RETIRED = "SELECT series, value, rest, timestamp, started FROM retired"
ORPHANS = "SELECT series, value, timestamp, started, process FROM orphan"
KEPT = """
SELECT kept.series, kept.value, process.pid, process.started
  FROM kept JOIN process ON process.id = kept.process
"""
_NAN = float("nan")


class Left:
    """What was left, by positions and gauges."""

    def __init__(self, connection: apsw.Connection, plan: Plan):
        self._sums = array("d", bytes(8 * plan.length))
        self._rests: list[tuple[int, float]] = []
        self._orphans: list[tuple[int, int | Gauge, Part]] = []
        self._gauges: list[tuple[Gauge, Part]] = []
        for series, value, rest, timestamp, started in _rows(connection, RETIRED):
            place = plan.place_of_row(series)
            self._add(place, _part(None, value, timestamp, started))
            if rest:
                self._add_rest(place, _part(None, rest, None, started))
        for series, value, timestamp, started, process in _rows(connection, ORPHANS):
            self._orphans.append((process, plan.place_of_row(series), _part(None, value, timestamp, started)))
        for series, value, pid, started in _rows(connection, KEPT):
            self._add(plan.place_of_row(series), _part(pid, value, None, started))

    def _add(self, place: int | Gauge, part: Part) -> None:
        if isinstance(place, Gauge):
            self._gauges.append((place, part))
        else:
            self._sums[place] = part.value

    def _add_rest(self, place: int | Gauge, part: Part) -> None:
        if isinstance(place, Gauge):
            self._gauges.append((place, part))
        else:
            self._rests.append((place, part.value))

    def column(self, length: int) -> memoryview[float]:
        """The sums that were left, one for each position. length: how many there are by now."""
        if length > len(self._sums):
            self._sums = array("d", self._sums.tobytes() + bytes(8 * (length - len(self._sums))))
        return memoryview(self._sums)

    def add_to(self, extra: Extra, gauges: dict[Gauge, list[Part]], returned: Container[int]) -> None:
        """Add what is not in the column. returned: instances whose values are in other cells by now."""
        for position, rest in self._rests:
            extra.setdefault(position, []).append(rest)
        for gauge, part in self._gauges:
            gauges.setdefault(gauge, []).append(part)
        for process, place, part in self._orphans:
            if process in returned:
                continue
            if isinstance(place, Gauge):
                gauges.setdefault(place, []).append(part)
            else:
                extra.setdefault(place, []).append(part.value)


def _rows(connection: apsw.Connection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


def _part(pid: str | None, value: float | None, timestamp: float | None, started: int) -> Part:
    """A part of an ended process; a value that is NULL is NaN, SQLite has no other way to store it."""
    return Part(pid, _NAN if value is None else value, timestamp or 0.0, started, False, 0)
