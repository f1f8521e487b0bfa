"""Writes journals and cells to rows: the flusher does that every second, and a settler for a dead process."""

from __future__ import annotations

from itertools import repeat

import apsw

from ..cells import journal, layout
from ..cells.cellsfile import CellsFile
from ..cells.images import Image, changed_cells
from ..cells.records import ChildRecord, ExemplarRecord, FamilyRecord, ProcessRecord
from . import exemplars, nonsense
from .database import bump
from .series import insert_children, insert_family

INSERT_INSTANCE = """
INSERT INTO instance (id, pid, os_pid, pid_namespace, started, journal) VALUES (?, ?, ?, ?, ?, 0)
ON CONFLICT (id) DO NOTHING
"""
# A pid that is used again takes the place of the ended process that had it. A removal checks no references, so what
# refers to that process is not left to SQLite.
_NAMESAKES = "FROM instance WHERE pid = ? AND pid_namespace = ? AND died IS NOT NULL"
DELETE_NAMESAKES = (f"DELETE FROM kept WHERE process IN (SELECT id {_NAMESAKES})", f"DELETE {_NAMESAKES}")  # noqa: S608
DELETE_ORPHANS = "DELETE FROM orphan WHERE process = ? AND ? = (SELECT id FROM store)"
# The + keeps SQLite from choosing the index on process, with a walk through it for each of the rows.
UPDATE_VALUE = "UPDATE cell_copy SET value = ? WHERE cell = ? AND +process = ?"
# The timestamp is in the cell before the value's, and 0.0 there until it is set.
UPDATE_TIMESTAMP = "UPDATE cell_copy SET timestamp = nullif(?, 0.0) WHERE cell = ? + 1 AND +process = ? AND stamped"


def committed(connection: apsw.Connection, instance: int) -> int | None:
    """Return how many bytes of an instance's journal are rows; None if the rows do not know the instance yet."""
    found = connection.execute("SELECT journal FROM instance WHERE id = ?", (instance,)).get
    return found if isinstance(found, int) else None


def is_settled(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> bool:
    """Whether the rows of an instance have been settled.

    The rows have for each slot the instance that was settled last. It is this one, or another instance has the slot by
    now, which it could claim only afterwards. The numbers are not compared by size: those of a store that was made
    anew, or garbled ones, have no order.
    """
    last = connection.execute("SELECT settled FROM slot WHERE slot = ?", (slot,)).get
    return last == instance or not file.has(slot, instance)


def ingest(connection: apsw.Connection, file: CellsFile, slot: int, instance: int, *, most: int | None = None) -> int:
    """Turn the rest of an instance's journal into rows, within the caller's transaction, or at most so many bytes.

    Returns how many bytes of the journal are rows then. Raises journal.JournalGoneError.
    """
    start = committed(connection, instance) or 0
    reading = journal.read(file, slot, instance, start, most=most)
    records, end, _ = reading
    nonsense.note(connection.filename, instance, reading)
    if end > start:
        for record in records:
            if isinstance(record, ProcessRecord | FamilyRecord):
                insert_other(connection, instance, record)
        insert_children(connection, instance, [record for record in records if isinstance(record, ChildRecord)])
        exemplars.write(connection, file, [record for record in records if isinstance(record, ExemplarRecord)])
        connection.execute("UPDATE instance SET journal = ? WHERE id = ?", (end, instance))
    return end


def insert_other(connection: apsw.Connection, instance: int, record: FamilyRecord | ProcessRecord) -> None:
    """Insert or change the row of a family or a process."""
    if isinstance(record, FamilyRecord):
        insert_family(connection, record)
        return
    pid = storable(record.pid)
    for statement in DELETE_NAMESAKES:
        connection.execute(statement, (pid, record.pid_namespace))
    forgotten = connection.changes() > 0
    connection.execute(INSERT_INSTANCE, (instance, pid, *record[1:4]))
    connection.executemany(DELETE_ORPHANS, [(one, record.store) for one in record.lost])
    if forgotten or record.lost:
        bump(connection, "ended")


def storable(text: str) -> str:
    """Return text that SQLite can hold: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def copy_images(connection: apsw.Connection, instance: int, images: dict[int, Image], *, stamped: bool) -> None:
    """Copy blocks (by their numbers) to the rows of an instance, within the caller's transaction.

    It copies images of the blocks, and not the cells themselves, so that the caller knows what the rows show.
    stamped: whether some of the cells may be timestamps.
    """
    cells: list[int] = []
    values: list[float] = []
    for block, image in images.items():
        first, now = block * layout.BLOCK_CELLS, memoryview(image.now).cast("d")
        places = changed_cells(image)
        cells += [first + place for place in places]
        values += [now[place] for place in places]
    for statement in (UPDATE_VALUE, UPDATE_TIMESTAMP) if stamped else (UPDATE_VALUE,):
        # Not a list of rows: with thousands of changed cells, making it took a tenth of the flush.
        connection.executemany(statement, zip(values, cells, repeat(instance), strict=False))
