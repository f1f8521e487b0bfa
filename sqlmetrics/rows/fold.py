"""The fold: what ended processes have counted becomes one row per series that outlives them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import apsw

from .database import bump

_UPSERT_RETIRED = (
    "INSERT INTO retired (series, value, timestamp, started) VALUES (?, ?, ?, ?) ON CONFLICT (series) DO UPDATE SET "
)
# A value that is NULL is NaN. SQLite's +, min() and max() of two values give NULL if either is: NaN stays NaN.
# What `value + excluded.value` loses by rounding (Knuth's TwoSum; NULL for Inf and NaN). Without it a sum could be one
# unit in the last place smaller once a process is folded, and Prometheus takes that for a counter's reset.
_ROUNDED_OFF = (
    "(value - ((value + excluded.value) - ((value + excluded.value) - value)))"
    " + (excluded.value - ((value + excluded.value) - value))"
)
_UPSERT_SUM = _UPSERT_RETIRED + f"value = value + excluded.value, rest = rest + ifnull({_ROUNDED_OFF}, 0.0)"
_MOST_RECENT = (
    "value = excluded.value, timestamp = excluded.timestamp, started = excluded.started"
    " WHERE retired.timestamp IS NULL OR (excluded.timestamp, ifnull(excluded.started, 0.0))"
    " >= (retired.timestamp, ifnull(retired.started, 0.0))"
)
_UPSERT_BY_MODE = {
    "min": _UPSERT_RETIRED + "value = min(value, excluded.value)",
    "max": _UPSERT_RETIRED + "value = max(value, excluded.value)",
    "mostrecent": _UPSERT_RETIRED + _MOST_RECENT,
}
_SUMMED = ("", "sum")
"""The modes that are added up; '' is that of everything but gauges."""
_INSERT_ORPHAN = "INSERT INTO orphan (series, value, timestamp, started, process) VALUES (?, ?, ?, ?, ?)"
_UPSERT_KEPT = """
INSERT INTO kept (process, series, value) VALUES (?, ?, ?)
ON CONFLICT (process, series) DO UPDATE SET value = excluded.value
"""
# Lists of processes are bound as JSON: one statement for however many there are.
# A pid may have been given to another process before the one that had it was settled.
DELETE_SUCCEEDED = """
DELETE FROM kept
 WHERE process IN (SELECT this.id FROM instance AS this JOIN instance AS later
                       ON later.pid = this.pid AND later.pid_namespace = this.pid_namespace
                          AND (later.started, later.id) > (this.started, this.id)
                    WHERE this.id IN (SELECT value FROM json_each(:processes)))
"""
DELETE_CELL_COPIES = "DELETE FROM cell_copy WHERE process IN (SELECT value FROM json_each(:processes))"
UPDATE_DIED = "UPDATE instance SET died = :died WHERE id IN (SELECT value FROM json_each(:processes))"
# A process that has no `all` gauge leaves nothing of its own.
DELETE_UNREMEMBERED = """
DELETE FROM instance
 WHERE id IN (SELECT value FROM json_each(:processes))
   AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.process = instance.id)
"""
DELETE_OLDEST = """
DELETE FROM instance
 WHERE died IS NOT NULL
   AND id NOT IN (SELECT id FROM instance WHERE died IS NOT NULL ORDER BY died DESC, id DESC LIMIT :keep_dead)
"""
DELETE_KEPT_OF_NOBODY = "DELETE FROM kept WHERE process NOT IN (SELECT id FROM instance)"
SELECT_GAUGES = "SELECT series.id FROM series JOIN family ON family.id = series.family WHERE family.type = 'gauge'"


def exact_sum(values: Iterable[float]) -> float:
    """Return the sum, rounded only once, so that it does not depend on the order."""
    values = list(values)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # a partial sum beyond all floats, or Inf and -Inf
        return sum(values)


class Legacy(NamedTuple):
    """The values that ended processes had of one series; each process has the same place in all lists.

    timestamps: when a `mostrecent` gauge was set; started: when the process started. Both are in seconds since the
    epoch, None if unknown or never.
    """

    series: int
    mode: str
    processes: list[int]
    values: list[float | None]
    timestamps: list[float | None]
    started: list[float | None]

    @classmethod
    def of_one(
        cls, process: int, series: int, mode: str, value: float | None, timestamp: float | None, started: float | None
    ) -> Legacy:
        """Return the legacy of one process."""
        return cls(series, mode, [process], [value], [timestamp], [started])


def fold(connection: apsw.Connection, legacies: Iterable[Legacy]) -> None:
    """Add what ended processes had to the rows that outlive them, within the caller's transaction."""
    sums: dict[int, tuple[float | None, list[float | None]]] = {}
    others: dict[str, list[Sequence[Any]]] = {mode: [] for mode in _UPSERT_BY_MODE}
    kept: list[Sequence[Any]] = []
    for one in legacies:
        every = repeat(one.series)
        if one.mode in _SUMMED:
            sums.setdefault(one.series, (one.started[0], []))[1].extend(one.values)
        elif one.mode == "all":
            kept += zip(one.processes, every, one.values, strict=False)
        elif one.mode in others:  # `live*` gauges end with their process
            others[one.mode] += zip(every, one.values, one.timestamps, one.started, strict=False)
    connection.executemany(_UPSERT_SUM, [row for series, values in sums.items() for row in _summed(series, *values)])
    for mode, rows in others.items():
        connection.executemany(_UPSERT_BY_MODE[mode], rows)
    connection.executemany(_UPSERT_KEPT, kept)
    bump(connection, "ended")


def _summed(series: int, started: float | None, parts: list[float | None]) -> list[Sequence[Any]]:
    """Return one row with the sum of a series, and another one for what was rounded off, if anything was."""
    values = [math.nan if value is None else value for value in parts]
    total = exact_sum(values)
    rest = exact_sum([*values, -total]) if math.isfinite(total) else 0.0
    rows = [total, rest] if rest else [total]
    return [(series, value, None, started) for value in rows]


def orphan(connection: apsw.Connection, legacies: Iterable[Legacy]) -> None:
    """Keep what processes had that have lost their cells but may live, until they bring it back themselves."""
    for one in legacies:
        parts = zip(one.processes, one.values, one.timestamps, one.started, strict=True)
        if one.mode == "all":
            connection.executemany(_UPSERT_KEPT, [(process, one.series, value) for process, value, _, _ in parts])
        elif one.mode in _SUMMED or one.mode in _UPSERT_BY_MODE:
            connection.executemany(_INSERT_ORPHAN, [(one.series, *values, process) for process, *values in parts])
    bump(connection, "ended")


def end(connection: apsw.Connection, instances: Iterable[int]) -> None:
    """Delete the rows of processes whose legacies were folded or kept, within the caller's transaction."""
    bindings = {"processes": json.dumps(list(instances)), "died": time.clock_gettime(time.CLOCK_REALTIME)}
    for statement in (DELETE_SUCCEEDED, DELETE_CELL_COPIES, UPDATE_DIED, DELETE_UNREMEMBERED):
        connection.execute(statement, bindings)


def forget_oldest(connection: apsw.Connection, keep_dead: int) -> None:
    """Delete the `all` gauges of processes that ended longest ago, so that those of `keep_dead` processes stay."""
    connection.execute(DELETE_OLDEST, {"keep_dead": keep_dead})
    if connection.changes():
        connection.execute(DELETE_KEPT_OF_NOBODY)
        bump(connection, "ended")


def drop_gauges(connection: apsw.Connection) -> None:
    """Delete the gauges of all ended processes, and nothing else, within the caller's transaction."""
    connection.execute("DELETE FROM kept")
    for table in ("retired", "orphan"):
        connection.execute(f"DELETE FROM {table} WHERE series IN ({SELECT_GAUGES})")  # noqa: S608
    connection.execute("DELETE FROM instance WHERE died IS NOT NULL")
    bump(connection, "ended")
