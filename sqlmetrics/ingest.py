"""From journals and cells to rows: what the flusher does every second, and a settler for a dead process."""

from __future__ import annotations

import apsw

from . import journal, layout
from .cells import CellsFile
from .images import Image, changed_cells
from .records import ChildRecord, FamilyRecord, Record

UPSERT_PROCESS = """
INSERT INTO process (id, pid, os_pid, pid_namespace, started, journal) VALUES (?, ?, ?, ?, ?, 0)
ON CONFLICT (id) DO NOTHING
"""
# A pid that is used again takes the place of the ended process that had it.
FORGET_NAMESAKES = "DELETE FROM process WHERE pid = ? AND pid_namespace = ? AND died IS NOT NULL"
FORGET_ORPHANS = "DELETE FROM orphan WHERE process = ? AND ? = (SELECT id FROM store)"
UPSERT_FAMILY = """
INSERT INTO family (name, type, mode, help, made) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name, type) DO UPDATE SET mode = excluded.mode, help = excluded.help, made = excluded.made
 WHERE excluded.made >= family.made
"""
IS_KNOWN = "SELECT count(*) FROM family WHERE name = ? AND type = ? AND mode = ? AND help = ?"
FIND_SERIES = """
SELECT series.name, series.le, series.id
  FROM family LEFT JOIN series ON series.family = family.id AND series.labels = ?3
 WHERE family.name = ?1 AND family.type = ?2
"""
INSERT_SERIES = """
INSERT INTO series (family, name, labels, le)
SELECT id, ?4, ?3, ?5 FROM family WHERE name = ?1 AND type = ?2
RETURNING id
"""
# A gauge that one process declares in two modes has two cells for one series: the newest declaration wins.
UPSERT_SAMPLE = """
INSERT INTO sample (cell, series, process, timestamp) VALUES (?, ?, ?, ?)
ON CONFLICT (process, series) DO UPDATE SET cell = excluded.cell, timestamp = excluded.timestamp
 WHERE cell <> excluded.cell
"""
# carray numbers its rows from 1; :base is the cell of the block's first double, less 1. The + keeps SQLite from
# choosing the index on process, with a walk through the whole block for each of its rows (1,000 times slower).
COPY_TIMESTAMPS = """
UPDATE sample SET timestamp = block.value
  FROM carray(:block) AS block
 WHERE sample.cell = :base + block.rowid + 1 AND +sample.process = :process
   AND sample.timestamp IS NOT NULL AND sample.timestamp IS NOT block.value
"""
COPY_VALUES = """
UPDATE sample SET value = block.value
  FROM carray(:block) AS block
 WHERE sample.cell = :base + block.rowid AND +sample.process = :process AND sample.value IS NOT block.value
"""


SET_VALUE = "UPDATE sample SET value = ? WHERE cell = ? AND +process = ?"
# The timestamp is in the cell before the value's.
SET_TIMESTAMP = "UPDATE sample SET timestamp = ? WHERE cell = ? + 1 AND +process = ? AND timestamp IS NOT NULL"


def committed(connection: apsw.Connection, instance: int) -> int | None:
    """How many bytes of an instance's journal are rows; None if the instance is not known yet."""
    found = connection.execute("SELECT journal FROM process WHERE id = ?", (instance,)).get
    return found if isinstance(found, int) else None


def is_settled(connection: apsw.Connection, slot: int, instance: int) -> bool:
    """Whether the rows of an instance have been settled."""
    newest = connection.execute("SELECT settled FROM slot WHERE slot = ?", (slot,)).get
    return isinstance(newest, int) and newest >= instance


def ingest(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> int:
    """Turn the rest of an instance's journal into rows, within the caller's transaction.

    Returns how many bytes of the journal are rows then. Raises journal.JournalGoneError.
    """
    start = committed(connection, instance) or 0
    records, end = journal.read(file, slot, instance, start)
    if records:
        news = [_insert(connection, instance, record) for record in records]
        connection.execute("UPDATE process SET journal = ? WHERE id = ?", (end, instance))
        for counter in filter(None, set(news)):
            connection.execute(f"UPDATE store SET {counter} = {counter} + 1")  # noqa: S608
    return end


def _insert(connection: apsw.Connection, instance: int, record: Record) -> str:
    """Insert the rows of a record; returns which counter of `store` is to be raised, or ''."""
    if isinstance(record, ChildRecord):
        return "plan" if _insert_child(connection, instance, record) else ""
    if isinstance(record, FamilyRecord):
        fields = (*record[:3], storable_help(record.help), record.made)
        is_known = connection.execute(IS_KNOWN, fields[:4]).get
        connection.execute(UPSERT_FAMILY, fields)
        return "" if is_known else "plan"
    pid = storable(record.pid)
    connection.execute(FORGET_NAMESAKES, (pid, record.pid_namespace))
    forgotten = connection.changes() > 0
    connection.execute(UPSERT_PROCESS, (instance, pid, *record[1:4]))
    connection.executemany(FORGET_ORPHANS, [(one, record.store) for one in record.lost])
    return "ended" if forgotten or record.lost else ""


def _insert_child(connection: apsw.Connection, instance: int, child: ChildRecord) -> bool:
    key = (child.family, child.type, child.labels())
    known = {(name, le): number for name, le, number in connection.execute(FIND_SERIES, key)}
    rows = []
    for name, le, cell in child.samples():
        number = known.get((name, le)) or connection.execute(INSERT_SERIES, (*key, name, le)).get
        rows.append((cell, number, instance, 0.0 if child.stamped else None))
    connection.executemany(UPSERT_SAMPLE, rows)
    return len(rows) > len(known.keys() & set(zip(child.names, child.bounds, strict=True)))


def storable(text: str) -> str:
    """Return text that SQLite can hold: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def storable_help(text: str) -> str | bytes:
    """Return the help text, as UTF-8 bytes where lone surrogates keep it from being text; see `read_help`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def read_help(stored: object) -> str:
    """The inverse of `storable_help`."""
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else str(stored)


def copy_images(connection: apsw.Connection, instance: int, images: dict[int, Image], *, stamped: bool) -> None:
    """Copy blocks (by their numbers) to the rows of an instance, within the caller's transaction.

    From an image and not from the cells themselves, so that it is known exactly what the rows show.
    stamped: whether there may be timestamps among the cells.
    """
    changed: list[tuple[float, int, int]] = []
    for block, image in images.items():
        if image.shown is None:
            cells = apsw.carray(memoryview(image.now).cast("d"))
            for statement in (COPY_TIMESTAMPS, COPY_VALUES):
                bindings = {"block": cells, "base": block * layout.BLOCK_CELLS - 1, "process": instance}
                connection.execute(statement, bindings)
        else:
            first = block * layout.BLOCK_CELLS
            changed += [(value, first + place, instance) for place, value in changed_cells(image)]
    connection.executemany(SET_VALUE, changed)
    if stamped:
        connection.executemany(SET_TIMESTAMP, changed)
