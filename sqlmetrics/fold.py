"""The fold: what an ended process leaves in the rows becomes one row per series that outlives it."""

from __future__ import annotations

import time

import apsw

_ROWS = """
SELECT sample.series, sample.value, sample.timestamp, process.started
  FROM sample
  JOIN process ON process.id = sample.process
  JOIN series ON series.id = sample.series
  JOIN family ON family.id = series.family
 WHERE sample.process = :process AND family.mode {modes}
"""
_ORPHANS = """
SELECT orphan.series, orphan.value, orphan.timestamp, orphan.started
  FROM orphan
  JOIN series ON series.id = orphan.series
  JOIN family ON family.id = series.family
 WHERE orphan.process = :process AND family.mode {modes}
"""
_RETIRE = "INSERT INTO retired (series, value, timestamp, started) {rows} ON CONFLICT (series) DO UPDATE SET "
# A value that is NULL is NaN. SQLite's +, min() and max() of two values give NULL if either is: NaN stays NaN.
# What `value + excluded.value` loses by rounding (Knuth's TwoSum; NULL for Inf and NaN). Without it a sum could be one
# unit in the last place smaller once a process is folded, and Prometheus takes that for a counter's reset.
_ROUNDED_OFF = (
    "(value - ((value + excluded.value) - ((value + excluded.value) - value)))"
    " + (excluded.value - ((value + excluded.value) - value))"
)
_KEEPS = {
    "IN ('', 'sum')": f"value = value + excluded.value, rest = rest + ifnull({_ROUNDED_OFF}, 0.0)",
    "= 'min'": "value = min(value, excluded.value)",
    "= 'max'": "value = max(value, excluded.value)",
    "= 'mostrecent'": "value = excluded.value, timestamp = excluded.timestamp, started = excluded.started"
    " WHERE (excluded.timestamp, excluded.started) >= (ifnull(retired.timestamp, 0.0), retired.started)",
}


def _folds(rows: str) -> tuple[str, ...]:
    return tuple(_RETIRE.format(rows=rows.format(modes=modes)) + update for modes, update in _KEEPS.items())


FOLDS = _folds(_ROWS)
FOLD_ORPHANS = _folds(_ORPHANS)
_ORPHAN = "INSERT INTO orphan (process, series, value, timestamp, started) SELECT :process, * FROM ({rows})"
ORPHAN = _ORPHAN.format(rows=_ROWS.format(modes="IN ('', 'sum', 'min', 'max', 'mostrecent')"))
KEEP_ALL = """
INSERT INTO kept (process, series, value)
SELECT sample.process, sample.series, sample.value
  FROM sample
  JOIN series ON series.id = sample.series
  JOIN family ON family.id = series.family
 WHERE sample.process = :process AND family.mode = 'all'
ON CONFLICT (process, series) DO UPDATE SET value = excluded.value
"""
# Its pid may have been given to another process before it was settled.
DROP_SUCCEEDED = """
DELETE FROM kept
 WHERE process = :process
   AND EXISTS (SELECT 1 FROM process AS this JOIN process AS later
                   ON later.pid = this.pid AND later.pid_namespace = this.pid_namespace AND later.started > this.started
                WHERE this.id = :process)
"""
DELETE_SAMPLES = "DELETE FROM sample WHERE process = :process"
# A process that has no `all` gauge leaves nothing of its own.
BURY = """
DELETE FROM process
 WHERE id = :process AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.process = process.id)
"""
FORGET_OLDEST = """
DELETE FROM process
 WHERE died IS NOT NULL
   AND id NOT IN (SELECT id FROM process WHERE died IS NOT NULL ORDER BY died DESC, id DESC LIMIT :keep_dead)
"""
GAUGES = "SELECT series.id FROM series JOIN family ON family.id = series.family WHERE family.type = 'gauge'"


def fold(connection: apsw.Connection, instance: int, statements: tuple[str, ...] = FOLDS) -> None:
    """Fold the rows of an instance into those that outlive it, within the caller's transaction.

    statements: into which of them; `FOLDS`, or `ORPHAN` where the process may live.
    """
    process = {"process": instance}
    for statement in (*statements, KEEP_ALL, DROP_SUCCEEDED, DELETE_SAMPLES):
        connection.execute(statement, process)
    died = time.clock_gettime_ns(time.CLOCK_REALTIME)
    connection.execute("UPDATE process SET died = ? WHERE id = ?", (died, instance))
    connection.execute(BURY, process)
    connection.execute("UPDATE store SET ended = ended + 1")


def forget_oldest(connection: apsw.Connection, keep_dead: int) -> None:
    """Drop the `all` gauges of the processes that ended longest ago, beyond `keep_dead` of them."""
    connection.execute(FORGET_OLDEST, {"keep_dead": keep_dead})
    if connection.changes():
        connection.execute("UPDATE store SET ended = ended + 1")


def drop_gauges(connection: apsw.Connection) -> None:
    """Forget the gauges of all processes that ended, and nothing else, within the caller's transaction."""
    connection.execute("DELETE FROM kept")
    for table in ("retired", "orphan"):
        connection.execute(f"DELETE FROM {table} WHERE series IN ({GAUGES})")  # noqa: S608
    connection.execute("DELETE FROM process WHERE died IS NOT NULL")
    connection.execute("UPDATE store SET ended = ended + 1")
