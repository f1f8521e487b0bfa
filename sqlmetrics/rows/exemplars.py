"""The table `exemplar`: the newest exemplar of each series, over all processes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import apsw
from prometheus_client.samples import Exemplar

from ..cells import exact
from ..cells.cellsfile import CellsFile
from ..cells.exemplars import LIFE
from ..cells.records import ExemplarRecord
from ..cells.shape import canonical_labels, label_set
from .database import bump

SWEEP_SECONDS = 60.0
"""Seconds between two sweeps of old exemplars; one of the processes that flush does them."""
UPSERT_EXEMPLAR = """
INSERT INTO exemplar (series, labels, value, timestamp, changed)
SELECT series.id, ?6, ?7, ?8, store.exemplars
  FROM store, family JOIN series ON series.family = family.id
 WHERE family.name = ?1 AND family.type = ?2 AND series.labels = ?3 AND series.name = ?4 AND series.variant = ?5
ON CONFLICT (series) DO UPDATE
   SET labels = excluded.labels, value = excluded.value, timestamp = excluded.timestamp, changed = excluded.changed
 WHERE excluded.timestamp >= exemplar.timestamp
"""
# A clock that was set back leaves exemplars from the future: they would stay the newest ones until that time.
DELETE_OLD = "DELETE FROM exemplar WHERE abs(timestamp - ?) > ?"
SELECT_OF_NO_SERIES = "SELECT count(*) FROM exemplar WHERE series NOT IN (SELECT id FROM series)"


def write(connection: apsw.Connection, file: CellsFile, records: Iterable[ExemplarRecord]) -> None:
    """Write the newest exemplars to their rows, within the caller's transaction; drop those of missing series."""
    newest = {one.series(): one for one in records}  # a process's journal is in the order of its observations
    if newest:
        rows = [(*series, _text(one.exemplar), one.value, one.timestamp) for series, one in newest.items()]
        file.sweeping.ask()
        bump(connection, "exemplars")
        connection.executemany(UPSERT_EXEMPLAR, rows)


def _text(labels: dict[str, str]) -> str:
    return canonical_labels(labels, labels.values())


def sweep(connection: apsw.Connection, file: CellsFile) -> None:
    """Delete exemplars that are not shown any more, if that is due, within a transaction that writes.

    Texts of exemplars that newer ones have replaced are erased with them.
    """
    chore = file.sweeping
    if not chore.is_due():
        return
    event, _ = chore.state()
    if not connection.execute("SELECT count(*) FROM exemplar").get:
        chore.note_done(event)
        return
    connection.execute(DELETE_OLD, (exact.now(), LIFE))
    file.note_erasure()
    chore.rest(SWEEP_SECONDS)


def exemplar_of(labels: str, value: float | None, timestamp: float) -> Exemplar:
    """Return an exemplar from its row. A value that is NULL is NaN, because SQLite stores NaN as NULL."""
    return Exemplar(label_set(labels), math.nan if value is None else value, timestamp)


def check(connection: apsw.Connection) -> None:
    """Raise ValueError or TypeError if a row is no exemplar of an existing series."""
    for labels, value, timestamp in connection.execute("SELECT labels, value, timestamp FROM exemplar").fetchall():
        exemplar_of(labels, value, timestamp)  # type: ignore[arg-type]
    if connection.execute(SELECT_OF_NO_SERIES).get:
        raise ValueError("an exemplar is of no series")


def drop_nonsense(connection: apsw.Connection) -> None:
    """Delete all exemplars if one is damaged: they last for minutes only, and the sums of ended processes must stay."""
    try:
        check(connection)
    except (ValueError, TypeError):
        connection.execute("DELETE FROM exemplar")
