"""Series that no scrape shows any more: old words of an Info, and what a process has given back by itself."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from ..cells.cellsfile import CellsFile
from .database import bump
from .fold import SELECT_GAUGES

# What the dead said last of each child is all that of their words can be shown.
_DELETE_OLD_WORDS = """
DELETE FROM retired WHERE series IN (
    SELECT id FROM (
        SELECT series.id, row_number() OVER (
                   PARTITION BY series.family, series.labels ORDER BY retired.value DESC, series.id DESC) AS place
          FROM family JOIN series ON series.family = family.id JOIN retired ON retired.series = series.id
         WHERE family.type = 'info')
     WHERE place > 1)
"""
_SELECT_WORDS = "SELECT series.id FROM family JOIN series ON series.family = family.id WHERE family.type = 'info'"
_DELETE_UNUSED = """
DELETE FROM series
 WHERE id = ?1
   AND NOT EXISTS (SELECT 1 FROM retired WHERE series = ?1)
   AND NOT EXISTS (SELECT 1 FROM instance JOIN cell_copy ON cell_copy.process = instance.id AND cell_copy.series = ?1)
   AND NOT EXISTS (SELECT 1 FROM instance JOIN kept ON kept.process = instance.id AND kept.series = ?1)
   AND NOT EXISTS (SELECT 1 FROM orphan WHERE series = ?1)
"""
_DELETE_EXEMPLARS = "DELETE FROM exemplar WHERE series NOT IN (SELECT id FROM series)"


def sweep_words(connection: apsw.Connection, file: CellsFile) -> None:
    """Delete what the dead said of an Info before the last of them spoke, within the caller's transaction."""
    connection.execute(_DELETE_OLD_WORDS)
    if connection.changes():
        sweep(connection, file, [int(str(number)) for (number,) in connection.execute(_SELECT_WORDS).fetchall()])


def sweep_gauges(connection: apsw.Connection, file: CellsFile) -> None:
    """Delete the gauges that no process has or has left, within the caller's transaction."""
    sweep(connection, file, [int(str(number)) for (number,) in connection.execute(SELECT_GAUGES).fetchall()])


def sweep(connection: apsw.Connection, file: CellsFile, series: Iterable[int]) -> None:
    """Delete those of these series that have no row, within the caller's transaction; readers then begin anew."""
    before = connection.total_changes()
    connection.executemany(_DELETE_UNUSED, [(number,) for number in series])
    connection.execute(_DELETE_EXEMPLARS)
    if connection.total_changes() > before:
        bump(connection, "epoch")
        file.note_erasure()
