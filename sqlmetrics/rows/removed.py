"""Cells whose series were removed: noted as rows in the removal's transaction, and then marked; see `cells.marks`."""

from __future__ import annotations

import contextlib
from typing import Any

import apsw

from ..cells import marks
from ..cells.cellsfile import CellsFile
from ..cells.journal import JournalGoneError
from ..errors import DamagedError
from . import ingest


def note(connection: apsw.Connection, removed: list[tuple[int, int]]) -> None:
    """Have cells marked once this transaction is committed. removed: (cell, process) of each."""
    connection.executemany("INSERT OR IGNORE INTO removed (cell, process) VALUES (?, ?)", removed)


def bring(connection: apsw.Connection, file: CellsFile) -> None:
    """Mark what was noted, and notify whose cells these are, within a transaction that writes."""
    rows: Any = connection.execute("SELECT cell, process FROM removed").fetchall()
    if not rows:
        return
    for slot in {slot for cell, process in rows if (slot := marks.set_mark(file, cell, process)) is not None}:
        file.notify(slot)
    connection.execute("DELETE FROM removed")


def catch_up(connection: apsw.Connection, file: CellsFile) -> None:
    """Turn all that was announced into rows, within the caller's transaction; not what cannot be read of a journal."""
    for slot, instance in file.held_slots():
        if not ingest.is_settled(connection, file, slot, instance):
            with contextlib.suppress(JournalGoneError, DamagedError):
                ingest.ingest(connection, file, slot, instance)
