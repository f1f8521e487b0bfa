"""A removal: the rows of children are deleted, and the cells that other processes have for them are marked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import apsw

from ..cells import marks
from ..cells.arenas import SharedArena
from ..cells.cellsfile import CellsFile
from ..cells.freed import Run
from ..cells.part import Part
from ..cells.selection import Selection
from ..cells.shape import canonical_labels
from . import removed
from .database import bump

_SAMPLES = """
SELECT cell, series, process FROM cell_copy
 WHERE process IN (SELECT id FROM instance WHERE died IS NULL) AND series IN (SELECT value FROM json_each(?))
"""
_SERIES_OF = "SELECT series FROM cell_copy WHERE cell = ? AND +process = ?"
_DELETE_SAMPLE = "DELETE FROM cell_copy WHERE cell = ? AND +process = ?"
_DELETE_OF_SERIES = (
    "DELETE FROM retired WHERE series IN (SELECT value FROM json_each(?))",
    "DELETE FROM orphan WHERE series IN (SELECT value FROM json_each(?))",
    "DELETE FROM exemplar WHERE series IN (SELECT value FROM json_each(?))",
)
_DELETE_KEPT = "DELETE FROM kept WHERE series IN (SELECT value FROM json_each(?))"
# Processes that had ended and are remembered for their `all` gauges only.
_BURY = "DELETE FROM instance WHERE died IS NOT NULL AND id NOT IN (SELECT process FROM kept)"
_DELETE_SERIES = "DELETE FROM series WHERE id IN (SELECT value FROM json_each(?))"
_BEGIN_ANEW = "UPDATE series SET created = ? WHERE id IN (SELECT value FROM json_each(?))"


_OF_FAMILY = """
SELECT series.id, series.labels
  FROM series JOIN family ON family.id = series.family
 WHERE family.name = ? AND family.type = ?
"""
_OF_CHILD = _OF_FAMILY + " AND series.labels = ?"


class Detached(NamedTuple):
    """Cells that this process had for children which it has forgotten: they are to be freed when no row knows them."""

    arena: SharedArena
    runs: list[Run]

    def cells(self) -> Iterable[int]:
        """All of the cells."""
        return (cell + place for cell, count in self.runs for place in range(count))


class Removal:
    """The wish to remove children, made at a certain moment: what this process counts of them later is to stay.

    made: seconds since the epoch. begin_anew: called when this process has forgotten the children.
    """

    def __init__(self, selection: Selection, made: float, begin_anew: Callable[[], object] | None = None):
        self.selection = selection
        self.made = made
        self._begin_anew = begin_anew
        self.detached: list[Detached] | None = None

    def detach(self, part: Part) -> None:
        """Have this process forget the children, so that whoever uses one begins at zero, in other cells.

        Does nothing in the middle of an operation that places children: it is done later then.
        """
        if self.detached is None:
            found = part.detach(self.selection)
            self.detached = None if found is None else [Detached(arena, runs) for arena, runs in found]
            if self.detached is not None and self._begin_anew is not None:
                self._begin_anew()

    def free(self, arenas: list[SharedArena]) -> None:
        """Let the cells be used again, after the COMMIT, if this process has them yet; call it inside `binding`."""
        detached, self.detached = self.detached or [], []
        for arena, runs in detached:
            if arena in arenas and arena.is_mine():
                arena.recycle(runs)


def carry_out(connection: apsw.Connection, file: CellsFile, part: Part, removals: list[Removal]) -> bool:
    """Remove within `settling`; True if cells of other processes are to be marked."""
    removed.catch_up(connection, file)
    file.removals[0] = (file.removals[0] + 1) % 2**64
    part.inheritance.note_own()
    gone = [_carry_out(connection, file, part, removal) for removal in removals]
    return any(gone)


def _carry_out(connection: apsw.Connection, file: CellsFile, part: Part, removal: Removal) -> bool:
    for one in removal.detached or ():
        connection.executemany(_DELETE_SAMPLE, [(cell, one.arena.instance) for cell in one.cells()])
        if one.arena.is_mine():
            marks.clear(one.arena.file, one.cells())
    series = series_of(connection, removal.selection)
    if not series:
        return False
    file.note_erasure()
    own = part.cells_of(removal.selection)
    rows: Any = connection.execute(_SAMPLES, (json.dumps(series),)).fetchall()
    again = {number for cell, number, process in rows if (process, cell) in own}
    gone = [(cell, process) for cell, _, process in rows if (process, cell) not in own]
    connection.executemany(_DELETE_SAMPLE, gone)
    _delete(connection, series, again, removal.made)
    removed.note(connection, gone)
    return bool(gone)


def leave(connection: apsw.Connection, arena: SharedArena, runs: list[Run]) -> list[int]:
    """See that cells that this process has given up have no row and no mark, within `settling`.

    runs: those whose children, if they were announced, are in rows. Returns the ids of series that had a row.
    """
    if not runs:
        return []
    cells = list(Detached(arena, runs).cells())
    rows: list[Any] = [connection.execute(_SERIES_OF, (cell, arena.instance)).get for cell in cells]
    connection.executemany(_DELETE_SAMPLE, [(cell, arena.instance) for cell in cells])
    series = [number for number in rows if number is not None]
    arena.file.wiping.ask()  # it may have told of an exemplar of a child that another process had removed
    if series:  # given back, or a live gauge that was announced again at the moment of its removal
        arena.file.note_erasure()
        bump(connection, "epoch")
    marks.clear(arena.file, cells)
    return series


def _delete(connection: apsw.Connection, series: list[int], again: set[int], made: float) -> None:
    """again: of the series, those that this process has begun anew."""
    text = json.dumps(series)
    for statement in _DELETE_OF_SERIES:
        connection.execute(statement, (text,))
    connection.execute(_DELETE_KEPT, (text,))
    if connection.changes():
        connection.execute(_BURY)
    connection.execute(_DELETE_SERIES, (json.dumps([number for number in series if number not in again]),))
    connection.execute(_BEGIN_ANEW, (made, json.dumps(list(again))))
    bump(connection, "epoch")


def series_of(connection: apsw.Connection, selection: Selection) -> list[int]:
    """The ids of the series that are meant."""
    family = selection.family, selection.type
    if selection.whole:
        labels = canonical_labels(selection.labels.keys(), selection.labels.values())
        rows: Any = connection.execute(_OF_CHILD, (*family, labels)).fetchall()
        return [number for number, _ in rows]
    rows = connection.execute(_OF_FAMILY, family).fetchall()
    return [number for number, labels in rows if not selection.labels or selection.has(json.loads(labels))]
