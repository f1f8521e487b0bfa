"""Finds in the rows which of the inherited gauges that a process waits for still exist."""

from __future__ import annotations

import apsw

from ..cells.cellsfile import CellsFile
from ..cells.part import Part
from ..cells.selection import Selection
from ..cells.shape import Key
from . import removal, settle
from .removal import series_of


def bring(connection: apsw.Connection, file: CellsFile, part: Part) -> None:
    """Give a process the inherited gauges that it waits for, if they are in rows. Raises apsw.Error."""
    waiting = list(part.inheritance.waiting)
    if not waiting:
        return
    with settle.settling(connection, file):
        removal.catch_up(connection, file)
        gone = {key for _, key in waiting if not _is_in_rows(connection, key)}
    with part.binding():
        part.inheritance.forget(key for key in gone if not part.has_known(key))
        part.inheritance.sure.extend((writer, key, {key}) for writer, key in waiting if key not in gone)
        del part.inheritance.waiting[: len(waiting)]
    part.in_slices(part.place_inherited)


def _is_in_rows(connection: apsw.Connection, key: Key) -> bool:
    shape, values = key
    labels = dict(zip(shape.labelnames, values, strict=True))
    return bool(series_of(connection, Selection(shape.family, shape.type, labels, whole=True)))
