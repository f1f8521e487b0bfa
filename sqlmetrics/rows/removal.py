"""Removes children: deletes their rows, and marks the cells that other processes have for them.

The removal's transaction notes these cells in a table, and the next transaction marks them; see `cells.marks`. A sweep
deletes what has no value any more: old label sets of an Info, gauges that no process has, and series without rows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import apsw

from ..cells import marks
from ..cells.arenas import Run, SharedArena, joined
from ..cells.cellsfile import CellsFile
from ..cells.journal import JournalGoneError
from ..cells.part import Part
from ..cells.selection import Selection
from ..cells.shape import canonical_labels
from ..errors import DamagedError
from . import ingest
from .database import bump
from .fold import SELECT_GAUGES

_SELECT_CELLS = """
SELECT cell, series, process FROM cell_copy
 WHERE process IN (SELECT id FROM instance WHERE died IS NULL) AND series IN (SELECT value FROM json_each(?))
"""
_DELETE_CELL_COPY = "DELETE FROM cell_copy WHERE cell = ? AND +process = ?"
_DELETE_RUN = "DELETE FROM cell_copy WHERE cell >= ?1 AND cell < ?1 + ?2 AND +process = ?3 RETURNING series"
_DELETE_OF_SERIES = (
    "DELETE FROM retired WHERE series IN (SELECT value FROM json_each(?))",
    "DELETE FROM orphan WHERE series IN (SELECT value FROM json_each(?))",
    "DELETE FROM exemplar WHERE series IN (SELECT value FROM json_each(?))",
)
_DELETE_KEPT = "DELETE FROM kept WHERE series IN (SELECT value FROM json_each(?))"
# Processes that had ended and are remembered for their `all` gauges only.
_DELETE_UNREMEMBERED = "DELETE FROM instance WHERE died IS NOT NULL AND id NOT IN (SELECT process FROM kept)"
_DELETE_SERIES = "DELETE FROM series WHERE id IN (SELECT value FROM json_each(?))"
_UPDATE_CREATED = "UPDATE series SET created = ? WHERE id IN (SELECT value FROM json_each(?))"


_SELECT_OF_FAMILY = """
SELECT series.id, series.labels
  FROM series JOIN family ON family.id = series.family
 WHERE family.name = ? AND family.type = ?
"""
_SELECT_OF_CHILD = _SELECT_OF_FAMILY + " AND series.labels = ?"


Leaving = dict[SharedArena, list[Run]]
"""Cells that this process has given back, and that may still have rows and marks."""


class Removal:
    """A removal of children at a certain moment: what this process counts in them later stays.

    made: seconds since the epoch. begin_anew: called as soon as this process has forgotten the children.
    """

    def __init__(self, selection: Selection, made: float, begin_anew: Callable[[], object] | None = None):
        self.selection = selection
        self.made = made
        self._begin_anew = begin_anew
        self._is_begun = False

    def begin(self, part: Part) -> bool:
        """Make this process give the children back; one that is used again begins at zero, in other cells.

        False in the middle of an operation that places children: nothing is done then.
        """
        if not self._is_begun and part.remove(self.selection):
            self._is_begun = True
            if self._begin_anew is not None:
                self._begin_anew()
        return self._is_begun


def carry_out(
    connection: apsw.Connection, file: CellsFile, part: Part, removals: list[Removal]
) -> tuple[Leaving, bool]:
    """Remove children within `settling`, after `Removal.begin`.

    Returns the cells for `recycle` after the COMMIT, and whether cells of other processes are to be marked.
    """
    left = leaving(file, part.arenas())
    catch_up(connection, file)
    file.removals[0] = (file.removals[0] + 1) % 2**64
    part.inheritance.note_own()
    given_back = set(leave(connection, left))
    own = {arena.instance for arena in part.arenas() if arena.file is file}
    gone: list[tuple[int, int]] = []
    for removal in removals:
        series = series_of(connection, removal.selection)
        if series:
            file.note_erasure()
            gone += _delete(connection, series, own, removal.made)
            given_back.difference_update(series)
    note_cells(connection, gone)
    if given_back:
        sweep(connection, file, given_back)
    return left, bool(gone)


def leaving(file: CellsFile, arenas: list[SharedArena]) -> Leaving:
    """Return the cells that this process has given back. Call it before its journal becomes rows."""
    # Another thread may have gone over to new files.
    return {arena: list(arena.leaving) for arena in arenas if arena.file is file and arena.is_mine()}


def leave(connection: apsw.Connection, left: Leaving) -> list[int]:
    """Delete the rows and marks of cells that were given back, within `settling`.

    Returns the ids of series that had a row there, and are to be swept.
    """
    found: list[int] = []
    for arena, runs in left.items():
        if not runs:
            continue
        given_back = [(cell, count, arena.instance) for cell, count in joined(runs)]
        rows: Any = connection.executemany(_DELETE_RUN, given_back).fetchall()
        arena.file.wiping.ask()  # the journal may have an exemplar of a child that another process had removed
        if rows:
            arena.file.note_erasure()
            bump(connection, "epoch")
        marks.clear(arena.file, (cell + place for cell, count in runs for place in range(count)))
        found += [series for (series,) in rows]
    return found


def recycle(part: Part, left: Leaving) -> None:
    """Return cells to their arenas, which use them again after a rest. Call it after the COMMIT."""
    with part.binding():
        arenas = part.arenas()
        for arena, runs in left.items():
            if arena in arenas and arena.is_mine():
                arena.recycle(runs)


def _delete(connection: apsw.Connection, series: list[int], own: set[int], made: float) -> list[tuple[int, int]]:
    """Delete series, except those that this process uses again; return (cell, process) of other processes' cells.

    own: the instances of this process; their rows are newer than the removal.
    """
    text = json.dumps(series)
    rows: Any = connection.execute(_SELECT_CELLS, (text,)).fetchall()
    again = {number for _, number, process in rows if process in own}
    gone = [(cell, process) for cell, _, process in rows if process not in own]
    connection.executemany(_DELETE_CELL_COPY, gone)
    for statement in _DELETE_OF_SERIES:
        connection.execute(statement, (text,))
    connection.execute(_DELETE_KEPT, (text,))
    if connection.changes():
        connection.execute(_DELETE_UNREMEMBERED)
    connection.execute(_DELETE_SERIES, (json.dumps([number for number in series if number not in again]),))
    connection.execute(_UPDATE_CREATED, (made, json.dumps(list(again))))
    bump(connection, "epoch")
    return gone


def series_of(connection: apsw.Connection, selection: Selection) -> list[int]:
    """Return the ids of the selected series."""
    family = selection.family, selection.type
    if selection.whole:
        labels = canonical_labels(selection.labels.keys(), selection.labels.values())
        rows: Any = connection.execute(_SELECT_OF_CHILD, (*family, labels)).fetchall()
        return [number for number, _ in rows]
    rows = connection.execute(_SELECT_OF_FAMILY, family).fetchall()
    return [number for number, labels in rows if not selection.labels or selection.has(json.loads(labels))]


def note_cells(connection: apsw.Connection, removed: list[tuple[int, int]]) -> None:
    """Note cells, so that they are marked after the COMMIT. removed: (cell, process) of each."""
    connection.executemany("INSERT OR IGNORE INTO removed (cell, process) VALUES (?, ?)", removed)


def mark_noted(connection: apsw.Connection, file: CellsFile) -> None:
    """Mark the noted cells, and notify their processes, within a transaction that writes."""
    rows: Any = connection.execute("SELECT cell, process FROM removed").fetchall()
    if not rows:
        return
    for slot in {slot for cell, process in rows if (slot := marks.set_mark(file, cell, process)) is not None}:
        file.notify(slot)
    connection.execute("DELETE FROM removed")


def catch_up(connection: apsw.Connection, file: CellsFile) -> None:
    """Turn all that was announced into rows, within the caller's transaction; skip journals that cannot be read."""
    for slot, instance in file.held_slots():
        if not ingest.is_settled(connection, file, slot, instance):
            with contextlib.suppress(JournalGoneError, DamagedError):
                ingest.ingest(connection, file, slot, instance)


# Of the label sets that dead processes have set for an Info, scrapes can show the last one only.
_DELETE_OLD_INFOS = """
DELETE FROM retired WHERE series IN (
    SELECT id FROM (
        SELECT series.id, row_number() OVER (
                   PARTITION BY series.family, series.labels ORDER BY retired.value DESC, series.id DESC) AS place
          FROM family JOIN series ON series.family = family.id JOIN retired ON retired.series = series.id
         WHERE family.type = 'info')
     WHERE place > 1)
"""
_SELECT_INFOS = "SELECT series.id FROM family JOIN series ON series.family = family.id WHERE family.type = 'info'"
_DELETE_UNUSED = """
DELETE FROM series
 WHERE id = ?1
   AND NOT EXISTS (SELECT 1 FROM retired WHERE series = ?1)
   AND NOT EXISTS (SELECT 1 FROM instance JOIN cell_copy ON cell_copy.process = instance.id AND cell_copy.series = ?1)
   AND NOT EXISTS (SELECT 1 FROM instance JOIN kept ON kept.process = instance.id AND kept.series = ?1)
   AND NOT EXISTS (SELECT 1 FROM orphan WHERE series = ?1)
"""
_DELETE_EXEMPLARS = "DELETE FROM exemplar WHERE series NOT IN (SELECT id FROM series)"


def sweep_infos(connection: apsw.Connection, file: CellsFile) -> None:
    """Delete all but the last label set that dead processes have set for an Info, within the caller's transaction."""
    connection.execute(_DELETE_OLD_INFOS)
    if connection.changes():
        sweep(connection, file, [int(str(number)) for (number,) in connection.execute(_SELECT_INFOS).fetchall()])


def sweep_gauges(connection: apsw.Connection, file: CellsFile) -> None:
    """Delete gauges that no process has and no dead one has left, within the caller's transaction."""
    sweep(connection, file, [int(str(number)) for (number,) in connection.execute(SELECT_GAUGES).fetchall()])


def sweep(connection: apsw.Connection, file: CellsFile, series: Iterable[int]) -> None:
    """Delete those of these series that have no value, within the caller's transaction; readers then begin again."""
    before = connection.total_changes()
    connection.executemany(_DELETE_UNUSED, [(number,) for number in series])
    connection.execute(_DELETE_EXEMPLARS)
    if connection.total_changes() > before:
        bump(connection, "epoch")
        file.note_erasure()
