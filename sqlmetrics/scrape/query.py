"""The query that answers a scrape: the view `totals`, over values of living processes read in place from their cells.

The view's text says what the ten modes, an Info and an Enum mean, and nothing else does. It is written over two
relations, `counts` and `gauges`. In the store these are views over rows; `SOURCES` puts others in their place, of the
same columns, in which the value of a sample is the one that its cell has now.

The cells come as an array that SQLite reads without a call into Python (https://www.sqlite.org/carray.html). So the
interpreter lock is free while the query runs: it is one statement, and its answer is one row.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import apsw

from ..rows.schema import migrations

_ONLY = "IN (SELECT series FROM asked)"
# A zero is no part of a sum: what is left out is not sorted, which takes most of the time. `sample.cell` is in that
# condition so that it is looked at when the row was found: from one cell to the next that takes 35 ns, and 180 ns where
# zeros were skipped before. A series of which nothing is left is shown as 0 by who knows that there is one.
SOURCES = """
WITH gauge_cell (number, value) AS NOT MATERIALIZED (
    SELECT block.first + (item.rowid - 1) % 512, item.value
      FROM carray(:gauge_cells) AS item CROSS JOIN block ON block.place = (item.rowid - 1) / 512
),
counts (series, value) AS (
    SELECT sample.series, item.value
      FROM {numbered_cells}
     WHERE (item.value IS NOT 0.0 OR sample.cell < 0) AND NOT sample.gauge {and_sample}
    UNION ALL
    SELECT series, value FROM announced WHERE NOT gauge {and_series}
    UNION ALL
    SELECT series, value FROM retired WHERE series NOT IN (SELECT id FROM known) {and_series}
    UNION ALL
    SELECT series, rest FROM retired WHERE rest <> 0.0 AND series NOT IN (SELECT id FROM known) {and_series}
    UNION ALL
    SELECT series, value FROM orphan
     WHERE series NOT IN (SELECT id FROM known) AND process NOT IN (SELECT id FROM returned) {and_series}
),
gauges (series, family, child, mode, pid, value, timestamp, started) AS (
    WITH part (series, pid, value, timestamp, started, alive) AS (
        SELECT sample.series, living.pid, gauge_cell.value, stamp.value, living.started, living.alive
          FROM gauge_cell
          CROSS JOIN sample ON sample.cell = gauge_cell.number
          CROSS JOIN living ON living.id = sample.process
          LEFT JOIN stamp ON stamp.cell = sample.cell AND sample.timestamp IS NOT NULL
         WHERE sample.gauge {and_sample}
           AND NOT EXISTS (SELECT 1 FROM announced AS later
                            WHERE later.process = sample.process AND later.series = sample.series)
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
        SELECT kept.series, process.pid, kept.value, NULL, process.started, 0
          FROM kept CROSS JOIN process ON process.id = kept.process
    )
    SELECT part.series, known.family, known.child, declared.mode, part.pid, part.value, part.timestamp, part.started
      FROM part
      CROSS JOIN known ON known.id = part.series
      CROSS JOIN declared ON declared.family = known.family
     WHERE (part.alive OR NOT declared.live) {and_known}
)
"""
# The numbers of the cells: in a row, or, where too many others are between, those of the blocks that somebody owns.
IN_A_ROW = "carray(:cells) AS item CROSS JOIN sample ON sample.cell = item.rowid + :before"
BY_BLOCK = """
           carray(:cells) AS item
           CROSS JOIN block ON block.place = (item.rowid - 1) / 512
           CROSS JOIN sample ON sample.cell = block.first + (item.rowid - 1) % 512
"""
# quote() writes doubles with all their digits, where json_group_array() of SQLite 3.51 writes 15.
ANSWER = """
SELECT group_concat(series, ' ') FILTER (WHERE pid IS NULL),
       group_concat(quote(value), ' ') FILTER (WHERE pid IS NULL),
       group_concat(series, ' ') FILTER (WHERE pid IS NOT NULL),
       group_concat(quote(value), ' ') FILTER (WHERE pid IS NOT NULL),
       json_group_array(pid) FILTER (WHERE pid IS NOT NULL)
  FROM ({totals})
"""
SET_OR_NOT = "SELECT group_concat(DISTINCT series) FROM gauges WHERE mode = 'mostrecent'"


class Cells(NamedTuple):
    """What is read of the cells file: all that somebody owns, and the blocks in which some are gauges'.

    before: the number of the cell before the first, if they are in a row; None: they are numbered by the table `block`.
    """

    values: memoryview[float]
    before: int | None
    gauges: memoryview[float]


class Totals(NamedTuple):
    """The answer.

    series: the ids of the series, as text. each, pids: the same of gauges that are shown for each process, and of which
    process, as JSON. values: of the first ones, and then of these, in their order.
    """

    series: str
    each: str
    pids: str
    values: list[float]


@functools.cache
def view() -> str:
    """The text of the view `totals`, as the newest migration has it that makes one."""
    found = [re.search(r"CREATE VIEW totals AS\n(.*?);\n", sql, re.DOTALL) for _, sql in migrations()]
    return next(match[1] for match in reversed(found) if match)


@functools.cache
def _statement(query: str, *, restricted: bool, in_a_row: bool) -> str:
    names = {"sample": "sample.series", "series": "series", "id": "series.id", "known": "part.series"}
    only = {f"and_{name}": f"AND {column} {_ONLY}" if restricted else "" for name, column in names.items()}
    return SOURCES.format(numbered_cells=IN_A_ROW if in_a_row else BY_BLOCK, **only) + query.format(totals=view())


def totals(connection: apsw.Connection, cells: Cells, *, restricted: bool) -> Totals:
    """Ask for what all processes have together, within a read transaction; the reader's tables are filled."""
    row: Any = _ask(connection, ANSWER, cells, restricted=restricted).fetchone()
    series, values, each, values_of_each, pids = row
    numbers = f"{values or ''} {values_of_each or ''}".replace("NULL", "nan").split()
    return Totals(series or "", each or "", pids, list(map(float, numbers)))


def set_or_not(connection: apsw.Connection, cells: Cells, *, restricted: bool) -> set[int]:
    """The mostrecent gauges that there are; those that nobody has set have no total."""
    found: Any = _ask(connection, SET_OR_NOT, cells, restricted=restricted).get
    return set(map(int, found.split(","))) if found else set()


def _ask(connection: apsw.Connection, query: str, cells: Cells, *, restricted: bool) -> apsw.Cursor:
    statement = _statement(query, restricted=restricted, in_a_row=cells.before is not None)
    bound = {"cells": apsw.carray(cells.values), "before": cells.before, "gauge_cells": apsw.carray(cells.gauges)}
    return connection.execute(statement, bound)
