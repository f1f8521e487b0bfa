"""Temporary tables, which give the query what is not in rows yet.

Most of it comes from journals: a child that was announced a moment ago counts as if it had rows.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import apsw

from ..cells import layout
from ..cells.cellsfile import CellsFile
from ..cells.images import Copies
from ..cells.shape import LIVE_MODES, STATE_TYPES
from .plan import FamilyId, Plan
from .query import BY_BLOCK, CHOSEN, IN_A_ROW, Cells

CREATE_TABLES = """
CREATE TEMP TABLE IF NOT EXISTS block (place INTEGER PRIMARY KEY, first INTEGER NOT NULL);
CREATE TEMP TABLE IF NOT EXISTS living (
    id INTEGER PRIMARY KEY, pid TEXT NOT NULL, started REAL, alive INTEGER NOT NULL);
CREATE TEMP TABLE IF NOT EXISTS announced (
    cell INTEGER PRIMARY KEY, series INTEGER NOT NULL, process INTEGER NOT NULL, gauge INTEGER NOT NULL,
    value REAL, timestamp REAL, UNIQUE (series, process));
CREATE TEMP TABLE IF NOT EXISTS stamp (cell INTEGER PRIMARY KEY, value REAL);
CREATE TEMP TABLE IF NOT EXISTS known (id INTEGER PRIMARY KEY, family INTEGER NOT NULL, child TEXT);
CREATE TEMP TABLE IF NOT EXISTS declared (family INTEGER PRIMARY KEY, mode TEXT NOT NULL, live INTEGER NOT NULL);
CREATE TEMP TABLE IF NOT EXISTS returned (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS asked (series INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS chosen (place INTEGER PRIMARY KEY, cell INTEGER NOT NULL);
"""
TABLES = ("block", "living", "announced", "stamp", "known", "declared", "returned", "asked", "chosen")
SELECT_GAUGE_BLOCKS = """
WITH RECURSIVE gauge_block (number) AS (
    SELECT min(cell) / 512 FROM cell_copy WHERE gauge
    UNION ALL
    SELECT (SELECT min(cell) / 512 FROM cell_copy WHERE gauge AND cell >= (number + 1) * 512)
      FROM gauge_block WHERE number IS NOT NULL
)
SELECT group_concat(number, ' ') FROM gauge_block
"""
# If a process announces a series twice, the last cell counts. If two children have one cell, the first has it.
UPSERT_ANNOUNCED = """
INSERT INTO announced (cell, series, process, gauge, value, timestamp)
SELECT ?1, ?2, ?3, ?4, 0.0, NULL WHERE NOT EXISTS (SELECT 1 FROM cell_copy WHERE cell = ?1)
ON CONFLICT (cell) DO NOTHING
ON CONFLICT (process, series) DO UPDATE
   SET cell = excluded.cell, gauge = excluded.gauge, value = 0.0, timestamp = NULL
"""
SELECT_SUPERSEDED = """
SELECT group_concat(cell_copy.cell, ' ')
  FROM announced JOIN cell_copy USING (process, series)
 WHERE NOT announced.gauge
"""
INSERT_STAMPS = """
INSERT INTO stamp
SELECT block.first + (item.rowid - 1) % 512 + 1, nullif(item.value, 0.0)  -- it is in the cell before its value's
  FROM carray(?) AS item CROSS JOIN block ON block.place = (item.rowid - 1) / 512
"""
INSERT_ASKED = """
INSERT INTO asked
SELECT series.id FROM series JOIN family ON family.id = series.family
 WHERE (family.name, family.type) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))
"""
# The series of some cells, and all cells of these series.
INSERT_ASKED_AGAIN = """
INSERT OR IGNORE INTO asked
SELECT cell_copy.series
  FROM json_each(?) AS item CROSS JOIN cell_copy ON cell_copy.cell = item.value
 WHERE NOT cell_copy.gauge
"""
INSERT_CHOSEN = """
INSERT INTO chosen (cell)
SELECT cell_copy.cell
  FROM living
  CROSS JOIN asked
  CROSS JOIN cell_copy ON cell_copy.process = living.id AND cell_copy.series = asked.series
"""

_SPREAD = 1.5
"""If blocks are spread over more than so many times their number, the blocks between them are not read."""
_ZEROS = bytes(layout.PAGE)


class Living(NamedTuple):
    """A process that is not settled."""

    id: int
    pid: str
    started: float | None
    alive: bool


class Announcement(NamedTuple):
    """A sample of a child that has no row yet. upto: the byte of the journal after its record."""

    cell: int
    series: int
    gauge: bool
    stamped: bool
    upto: int


class Tables:
    """The temporary tables of one connection, and what was written to them."""

    def __init__(self, connection: apsw.Connection):
        """Make the empty tables. Call it in no transaction, because a rollback would undo it."""
        self.connection = connection
        connection.execute(CREATE_TABLES)
        self.empty()

    def empty(self) -> None:
        """Forget everything."""
        for table in TABLES:
            self.connection.execute(f"DELETE FROM temp.{table}")  # noqa: S608
        self._blocks: list[int] = []
        self._of_gauges: list[int] = []
        self.gauges = _doubles([])
        """The cells of all blocks with cells of gauges."""
        self.living: list[Living] = []
        """The processes that are not settled; no two have started at the same moment."""
        self._announced: dict[int, list[Announcement]] = {}
        self._known = 0
        self._declared: dict[int, str] = {}
        self._returned: set[int] = set()
        self.upto: dict[int, int] = {}
        """By instance: the byte up to which its journal was read."""

    def follow(self, instance: int, committed: int) -> int:
        """Forget announcements that are rows by now, and return the byte from which on to read the journal.

        committed: bytes of the journal that are rows in this snapshot.
        """
        waiting = self._announced.get(instance, [])
        if waiting and waiting[0].upto <= committed:
            gone = [(one.cell, instance) for one in waiting if one.upto <= committed]
            self.connection.executemany("DELETE FROM announced WHERE cell = ? AND process = ?", gone)
            self._announced[instance] = [one for one in waiting if one.upto > committed]
        return max(self.upto.get(instance, 0), committed)

    def announce(self, instance: int, upto: int, found: list[Announcement]) -> None:
        """Note what a process has announced up to a byte of its journal."""
        self.upto[instance] = upto
        if found:
            rows = [(one.cell, one.series, instance, one.gauge) for one in found]
            self.connection.executemany(UPSERT_ANNOUNCED, rows)
            self._announced.setdefault(instance, []).extend(found)

    def keep_only(self, instances: Iterable[int]) -> None:
        """Forget the journals of all other processes: they are settled."""
        for gone in self.upto.keys() - set(instances):
            del self.upto[gone]
            if self._announced.pop(gone, None):
                self.connection.execute("DELETE FROM announced WHERE process = ?", (gone,))

    def write_living(self, processes: Iterable[Living]) -> None:
        """Write the processes that are not settled. No two start at the same moment, so that the later one can win."""
        found: list[Living] = []
        latest = -math.inf
        for one in sorted(processes, key=lambda one: (one.started or 0.0, one.id)):
            if one.started is not None:
                latest = max(one.started, math.nextafter(latest, math.inf))
            found.append(one if one.started is None else one._replace(started=latest))
        if found != self.living:
            self.connection.execute("DELETE FROM living")
            self.connection.executemany("INSERT INTO living VALUES (?, ?, ?, ?)", found)
            self.living = found

    def write_returned(self, lost: set[int]) -> None:
        """Write the instances whose values are in cells of other instances by now."""
        if lost != self._returned:
            self.connection.execute("DELETE FROM returned")
            self.connection.executemany("INSERT INTO returned VALUES (?)", [(one,) for one in lost])
            self._returned = lost

    def rename(self, plan: Plan) -> None:
        """Give series that are rows by now their ids; call it before anything is announced under these."""
        for new, old in plan.renamed:
            self.connection.execute("UPDATE announced SET series = ? WHERE series = ?", (new, old))
            self.connection.execute("UPDATE OR REPLACE known SET id = ? WHERE id = ?", (new, old))
        plan.renamed.clear()

    def write_gauges(self, plan: Plan, modes: Mapping[FamilyId, str]) -> None:
        """Write all gauges and their modes. modes: by family, the mode in which to show it."""
        fresh = plan.all_gauges[self._known :]
        states = {family for family in modes if family[1] in STATE_TYPES}
        rows = [
            (plan.ids[gauge], plan.numbers[gauge.family], gauge.child if gauge.family in states else None)
            for gauge in fresh
        ]
        self.connection.executemany("INSERT INTO known VALUES (?, ?, ?)", rows)
        self._known += len(fresh)
        for family, mode in modes.items():
            number, shown = plan.numbers[family], family[1] if family in states else mode.removeprefix("live")
            if self._declared.get(number) != mode:
                row = (number, shown, mode in LIVE_MODES)
                self.connection.execute("INSERT OR REPLACE INTO declared VALUES (?, ?, ?)", row)
                self._declared[number] = mode

    def ask(self, families: str, ids: Iterable[int]) -> None:
        """Write which series are wanted: those of families (JSON of names and types), and those with these ids."""
        self.connection.execute("DELETE FROM asked")
        self.connection.execute(INSERT_ASKED, (families,))
        self.connection.executemany("INSERT OR IGNORE INTO asked VALUES (?)", [(one,) for one in ids])

    def read(self, file: CellsFile, owners: list[int], *, stamped: bool) -> Copies:
        """Copy the cells of all blocks with an owner. owners: of each block. stamped: whether times are needed."""
        copies = Copies.of(file, [block for block, owner in enumerate(owners) if owner])
        found: Any = self.connection.execute(SELECT_GAUGE_BLOCKS).get
        self._of_gauges = sorted(copies.places.keys() & set(map(int, (found or "").split())))
        self._number(self._of_gauges)
        self.gauges = _doubles(map(copies.block, self._of_gauges))
        if stamped:
            self.connection.execute("DELETE FROM stamp")
            self.connection.execute(INSERT_STAMPS, (apsw.carray(self.gauges),))
        waiting = [one for some in self._announced.values() for one in some]
        if waiting:
            self._write_values(file, waiting)
        return copies

    def is_announced(self) -> bool:
        """Whether there are children that have no rows yet."""
        return any(self._announced.values())

    def announced_by(self) -> dict[int, int]:
        """Return how many samples without rows each process has."""
        return {instance: len(waiting) for instance, waiting in self._announced.items()}

    def all_cells(self, copies: Copies) -> Cells:
        """Return the cells for a query for all series."""
        numbers = list(copies.places)
        first, count = (numbers[0], numbers[-1] + 1 - numbers[0]) if numbers else (0, 0)
        before = first * layout.BLOCK_CELLS - 1
        if 0 < count == len(numbers):
            cells = Cells(copies.cells(), IN_A_ROW, before)
        elif count <= _SPREAD * len(numbers):
            pieces = [copies.block(n) if n in copies.places else _ZEROS for n in range(first, first + count)]
            cells = Cells(_doubles(pieces), IN_A_ROW, before)
        else:
            numbered = self._of_gauges + sorted(copies.places.keys() - set(self._of_gauges))
            self._number(numbered)
            cells = Cells(_doubles(map(copies.block, numbered)), BY_BLOCK)
        if self.is_announced():
            self._leave_out_superseded(cells)
        return cells

    def choose(self, copies: Copies, changed: list[int]) -> tuple[list[int], Cells]:
        """Write which sums have these cells; return the ids of their series, and all cells of these."""
        self.connection.execute("DELETE FROM asked")
        self.connection.execute("DELETE FROM chosen")
        self.connection.execute(INSERT_ASKED_AGAIN, (json.dumps(changed),))
        self.connection.execute(INSERT_CHOSEN)
        series: Any = self.connection.execute("SELECT group_concat(series, ' ') FROM asked").get
        cells: Any = self.connection.execute("SELECT group_concat(cell, ' ') FROM chosen").get
        places, doubles = copies.places, copies.cells()
        numbers = [divmod(cell, layout.BLOCK_CELLS) for cell in map(int, (cells or "").split())]
        # A row about a block without an owner is damage, which a check finds. The query for all ignores it, too.
        values = [doubles[places[b] * layout.BLOCK_CELLS + n] if b in places else 0.0 for b, n in numbers]
        return list(map(int, (series or "").split())), Cells(memoryview(array("d", values or [0.0])), CHOSEN)

    def _number(self, blocks: list[int]) -> None:
        if blocks != self._blocks:
            self.connection.execute("DELETE FROM block")
            rows = [(place, block * layout.BLOCK_CELLS) for place, block in enumerate(blocks)]
            self.connection.executemany("INSERT INTO block VALUES (?, ?)", rows)
            self._blocks = blocks

    def _write_values(self, file: CellsFile, waiting: list[Announcement]) -> None:
        cells = file.cells
        # The timestamp is read first, as it is written after the value: so it is never newer than the value.
        values = [(cells[one.cell - 1] or None if one.stamped else None, cells[one.cell], one.cell) for one in waiting]
        self.connection.executemany("UPDATE announced SET timestamp = ?, value = ? WHERE cell = ?", values)

    def _leave_out_superseded(self, cells: Cells) -> None:
        """Zero the old cell of a series that was removed and made again: only its last cell counts."""
        found: Any = self.connection.execute(SELECT_SUPERSEDED).get
        for cell in map(int, (found or "").split()):
            if cells.found is IN_A_ROW:
                place = cell - cells.before - 1
            else:
                block, number = divmod(cell, layout.BLOCK_CELLS)
                place = self._blocks.index(block) * layout.BLOCK_CELLS + number if block in self._blocks else -1
            if 0 <= place < len(cells.values):
                cells.values[place] = 0.0


def _doubles(pieces: Iterable[memoryview[int] | bytes]) -> memoryview[float]:
    """Return the doubles of some pieces, at least one: no sample has a block's first cells, which are its bitmap."""
    return memoryview(bytearray().join(pieces) or bytearray(8)).cast("d")
