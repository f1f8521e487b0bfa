"""The query that answers a scrape: the view `totals`, over values that are read in place from cells.

Only the view's text defines the ten modes, Info and Enum. It reads two relations, `counts` and `gauges`. In the store
these are views over rows. `WITH_COUNTS` and `WITH_GAUGES` replace them by relations with the same columns, in which the
value of a sample is the one that its cell has now.

The cells come as an array that SQLite reads without a call into Python (https://www.sqlite.org/carray.html). So the
interpreter lock is free while the query runs: its answer is one row.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from ..rows.schema import migrations

_ONLY = "IN (SELECT series FROM asked)"
# Zeros are dropped from sums, because sorting takes most of the time. `cell_copy.cell` is in that condition so that it
# is evaluated after the row was found: finding the row of the next cell takes 35 ns, but 180 ns if zeros were skipped
# before. A series of which nothing is left is shown as 0, because the plan has it.
WITH_COUNTS = """
WITH counts (series, value{and_process}) AS (
    SELECT cell_copy.series, item.value{and_its_process}
      FROM {numbered_cells}
     WHERE (item.value IS NOT 0.0 OR cell_copy.cell < 0) AND NOT cell_copy.gauge {and_sample}
    UNION ALL
    SELECT series, value{and_process} FROM announced WHERE NOT gauge {and_series}
    UNION ALL
    SELECT series, value{and_nobody} FROM retired WHERE series NOT IN (SELECT id FROM known) {and_series}
    UNION ALL
    SELECT series, rest{and_nobody} FROM retired WHERE rest <> 0.0 AND series NOT IN (SELECT id FROM known) {and_series}
    UNION ALL
    SELECT series, value{and_nobody} FROM orphan
     WHERE series NOT IN (SELECT id FROM known) AND process NOT IN (SELECT id FROM returned) {and_series}
),
gauges (series, family, child, mode, pid, value, timestamp, started) AS (
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE 0  -- asked for by themselves
)
"""
WITH_GAUGES = """
WITH gauge_cell (number, value) AS NOT MATERIALIZED (
    SELECT block.first + (item.rowid - 1) % 512, item.value
      FROM carray(:gauge_cells) AS item CROSS JOIN block ON block.place = (item.rowid - 1) / 512
),
counts (series, value) AS (
    SELECT NULL, NULL WHERE 0
),
gauges (series, family, child, mode, pid, value, timestamp, started) AS (
    WITH part (series, pid, value, timestamp, started, alive) AS (
        SELECT cell_copy.series, living.pid, gauge_cell.value, stamp.value, living.started, living.alive
          FROM gauge_cell
          CROSS JOIN cell_copy ON cell_copy.cell = gauge_cell.number
          CROSS JOIN living ON living.id = cell_copy.process
          LEFT JOIN stamp ON stamp.cell = cell_copy.cell AND cell_copy.stamped
         WHERE cell_copy.gauge {and_sample}
           AND NOT EXISTS (SELECT 1 FROM announced AS later
                            WHERE later.process = cell_copy.process AND later.series = cell_copy.series)
        UNION ALL
        SELECT announced.series, living.pid, announced.value, announced.timestamp, living.started, living.alive
          FROM announced CROSS JOIN living ON living.id = announced.process
         WHERE announced.gauge {and_series}
        UNION ALL
        SELECT series, NULL, value, timestamp, started, 0 FROM retired
        UNION ALL
        SELECT series, NULL, rest, NULL, started, 0 FROM retired WHERE rest <> 0.0
        UNION ALL
        SELECT series, NULL, value, timestamp, started, 0 FROM orphan
         WHERE process NOT IN (SELECT id FROM returned)
        UNION ALL
        SELECT kept.series, instance.pid, kept.value, NULL, instance.started, 0
          FROM kept CROSS JOIN instance ON instance.id = kept.process
    )
    SELECT part.series, known.family, known.child, declared.mode, part.pid, part.value, part.timestamp, part.started
      FROM part
      CROSS JOIN known ON known.id = part.series
      CROSS JOIN declared ON declared.family = known.family
     WHERE (part.alive OR NOT declared.live) {and_known}
)
"""
# How the cells are numbered: in a row; or by owned block, if too many other blocks are between them; or those of series
# that are asked for again.
IN_A_ROW = "carray(:cells) AS item CROSS JOIN cell_copy ON cell_copy.cell = item.rowid + :before"
BY_BLOCK = """
           carray(:cells) AS item
           CROSS JOIN block ON block.place = (item.rowid - 1) / 512
           CROSS JOIN cell_copy ON cell_copy.cell = block.first + (item.rowid - 1) % 512
"""
CHOSEN = """
           carray(:cells) AS item
           CROSS JOIN chosen ON chosen.place = item.rowid
           CROSS JOIN cell_copy ON cell_copy.cell = chosen.cell
"""
# quote() writes doubles with all their digits, where json_group_array() of SQLite 3.51 writes 15.
SELECT_SUMS = "SELECT group_concat(series, ' '), group_concat(quote(value), ' ') FROM ({totals})"
SELECT_GAUGES = (
    "SELECT group_concat(series, ' '), group_concat(quote(value), ' '), json_group_array(pid) FROM ({totals})"
)
SELECT_SET_OR_NOT = "SELECT group_concat(DISTINCT series) FROM gauges WHERE mode = 'mostrecent'"
# The parts of each process; NULL: of ended processes.
SELECT_PARTS_OF_SUMS = (
    "SELECT group_concat(series, ' '), group_concat(quote(value), ' '), json_group_array(process) FROM counts"
)
SELECT_PARTS_OF_GAUGES = """
SELECT group_concat(series, ' '), group_concat(quote(value), ' '), json_group_array(pid),
       group_concat(quote(started), ' '), group_concat(quote(timestamp), ' ')
  FROM gauges
"""
# How much each process has counted in all series but those of amounts. JSON may round, but people read this.
SELECT_COUNTED = """
SELECT json_group_object(process, total)
  FROM (SELECT process, sum(value) AS total FROM counts
         WHERE process IS NOT NULL AND series NOT IN (SELECT value FROM json_each(:amounts))
         GROUP BY process)
"""


class Cells(NamedTuple):
    """Values of cells, and how they are numbered: `IN_A_ROW`, `BY_BLOCK` or `CHOSEN`.

    before: the number of the cell before the first, if they are in a row.
    """

    values: memoryview[float]
    found: str
    before: int = 0


class Totals(NamedTuple):
    """The answer: ids of series as text, and the value of each. pids: of each, as JSON; null: of all processes."""

    series: str
    values: list[float]
    pids: str = "[]"


@functools.cache
def view() -> str:
    """Return the text of the view `totals` from the newest migration that has it."""
    found = [re.search(r"CREATE VIEW totals AS\n(.*?);\n", sql, re.DOTALL) for _, sql in migrations()]
    return next(match[1] for match in reversed(found) if match)


@functools.cache
def _statement(query: str, *, restricted: bool, found: str = "", by_process: bool = False) -> str:
    names = {"sample": "cell_copy.series", "series": "series", "known": "part.series"}
    only = {f"and_{name}": f"AND {column} {_ONLY}" if restricted else "" for name, column in names.items()}
    parts = {"and_process": ", process", "and_its_process": ", cell_copy.process", "and_nobody": ", NULL"}
    only |= {name: part if by_process else "" for name, part in parts.items()}
    return query.format(numbered_cells=found, totals=view(), **only)


def sums(connection: apsw.Connection, cells: Cells, *, restricted: bool) -> Totals:
    """Query counters, summaries and histograms, within a read transaction, after the reader's tables were filled.

    restricted: whether only to the series in the table `asked`.
    """
    statement = _statement(WITH_COUNTS + SELECT_SUMS, restricted=restricted, found=cells.found)
    bound = {"cells": apsw.carray(cells.values), "before": cells.before}
    row: Any = connection.execute(statement, bound).fetchone()
    return Totals(row[0] or "", _numbers(row[1]))


def gauges(connection: apsw.Connection, values: memoryview[float], *, restricted: bool) -> Totals:
    """Query gauges, Infos and Enums likewise. values: of the blocks with gauges, in the order of the table `block`."""
    statement = _statement(WITH_GAUGES + SELECT_GAUGES, restricted=restricted)
    row: Any = connection.execute(statement, {"gauge_cells": apsw.carray(values)}).fetchone()
    return Totals(row[0] or "", _numbers(row[1]), row[2])


def set_or_not(connection: apsw.Connection, values: memoryview[float], *, restricted: bool) -> set[int]:
    """Return all mostrecent gauges; those that nobody has set have no total."""
    statement = _statement(WITH_GAUGES + SELECT_SET_OR_NOT, restricted=restricted)
    found: Any = connection.execute(statement, {"gauge_cells": apsw.carray(values)}).get
    return set(map(int, found.split(","))) if found else set()


class Parts(NamedTuple):
    """Parts of totals: ids of series as text, and the value of each. of: its process; stamps: when it was set."""

    series: str
    values: list[float]
    of: list[Any]
    stamps: list[float]


def parts_of_sums(connection: apsw.Connection, cells: Cells, *, restricted: bool) -> Parts:
    """Query each process's part of counters, summaries and histograms, by instance (None: ended ones); no zeros."""
    statement = _statement(
        WITH_COUNTS + SELECT_PARTS_OF_SUMS, restricted=restricted, found=cells.found, by_process=True
    )
    bound = {"cells": apsw.carray(cells.values), "before": cells.before}
    row: Any = connection.execute(statement, bound).fetchone()
    return Parts(row[0] or "", _numbers(row[1]), json.loads(row[2]), [])


def counted(connection: apsw.Connection, cells: Cells, amounts: Iterable[int]) -> dict[int, float]:
    """Return how much each process has counted, by instance. amounts: the series that are left out."""
    statement = _statement(WITH_COUNTS + SELECT_COUNTED, restricted=False, found=cells.found, by_process=True)
    bound = {"cells": apsw.carray(cells.values), "before": cells.before, "amounts": json.dumps(list(amounts))}
    found: dict[str, float | None] = json.loads(str(connection.execute(statement, bound).get))
    return {int(instance): total for instance, total in found.items() if total is not None}


def parts_of_gauges(connection: apsw.Connection, values: memoryview[float], *, restricted: bool) -> Parts:
    """Query each process's part of gauges, Infos and Enums, by its pid and when it started.

    If the pid is None, ended processes have left the part. stamps: NaN where there is none.
    """
    statement = _statement(WITH_GAUGES + SELECT_PARTS_OF_GAUGES, restricted=restricted)
    row: Any = connection.execute(statement, {"gauge_cells": apsw.carray(values)}).fetchone()
    whose = list(zip(json.loads(row[2]), map(_time, _numbers(row[3])), strict=True))
    return Parts(row[0] or "", _numbers(row[1]), whose, _numbers(row[4]))


def _time(value: float) -> float | None:
    return None if math.isnan(value) else value


def _numbers(values: str | None) -> list[float]:
    return list(map(float, (values or "").replace("NULL", "nan").split()))
