"""From journals and cells to rows: what the flusher does every second, and a settler for a dead process."""

from __future__ import annotations

from typing import Any

import apsw

from ..cells import journal, layout
from ..cells.cellsfile import CellsFile
from ..cells.images import Image, changed_cells
from ..cells.records import ChildRecord, ExemplarRecord, FamilyRecord, ProcessRecord
from . import exemplars, nonsense

UPSERT_PROCESS = """
INSERT INTO process (id, pid, os_pid, pid_namespace, started, journal) VALUES (?, ?, ?, ?, ?, 0)
ON CONFLICT (id) DO NOTHING
"""
# A pid that is used again takes the place of the ended process that had it. A removal checks no references, so what
# refers to that process is not left to SQLite.
_NAMESAKES = "FROM process WHERE pid = ? AND pid_namespace = ? AND died IS NOT NULL"
FORGET_NAMESAKES = (f"DELETE FROM kept WHERE process IN (SELECT id {_NAMESAKES})", f"DELETE {_NAMESAKES}")  # noqa: S608
FORGET_ORPHANS = "DELETE FROM orphan WHERE process = ? AND ? = (SELECT id FROM store)"
UPSERT_FAMILY = """
INSERT INTO family (name, type, mode, help, made, unit, registered) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ifnull(?7, 0))
ON CONFLICT (name, type) DO UPDATE
   SET mode = excluded.mode, help = excluded.help, made = excluded.made, unit = excluded.unit,
       registered = ifnull(?7, registered)
 WHERE excluded.made >= family.made
"""
RAISE_PLAN = "UPDATE store SET plan = plan + 1"
IS_KNOWN = """
SELECT count(*) FROM family
 WHERE name = ?1 AND type = ?2 AND mode = ?3 AND help = ?4 AND unit = ?6 AND registered = ifnull(?7, registered)
"""
MODE_OF = "SELECT mode FROM family WHERE name = ? AND type = ?"
# Whether a family's values are summed can change: a counter of a class of the app's own may be declared in a mode.
MARK_GAUGES = """
UPDATE sample SET gauge = ?3
 WHERE series IN (SELECT series.id FROM series JOIN family ON family.id = series.family
                   WHERE family.name = ?1 AND family.type = ?2)
"""
FIND_SERIES = """
SELECT series.name, series.variant, series.id, series.created
  FROM family LEFT JOIN series ON series.family = family.id AND series.labels = ?3
 WHERE family.name = ?1 AND family.type = ?2
"""
INSERT_SERIES = """
INSERT INTO series (family, name, labels, variant, created)
SELECT id, ?4, ?3, ?5, ?6 FROM family WHERE name = ?1 AND type = ?2
RETURNING id
"""
MADE_EARLIER = "UPDATE series SET created = ?2 WHERE id = ?1 AND created > ?2"
# A gauge that one process declares in two modes has two cells for one series: the newest declaration wins. So does a
# child that is made again before its removal is committed. The new cell's value comes with the next flush.
UPSERT_SAMPLE = """
INSERT INTO sample (cell, series, process, timestamp, gauge) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (process, series) DO UPDATE
   SET cell = excluded.cell, value = excluded.value, timestamp = excluded.timestamp, gauge = excluded.gauge
 WHERE cell <> excluded.cell
"""
TAKE_BACK = "DELETE FROM sample WHERE cell = ? AND series = ? AND process = ?"
# The + keeps SQLite from choosing the index on process, with a walk through it for each of the rows.
SET_VALUE = "UPDATE sample SET value = ? WHERE cell = ? AND +process = ?"
# The timestamp is in the cell before the value's.
SET_TIMESTAMP = "UPDATE sample SET timestamp = ? WHERE cell = ? + 1 AND +process = ? AND timestamp IS NOT NULL"


def committed(connection: apsw.Connection, instance: int) -> int | None:
    """How many bytes of an instance's journal are rows; None if the instance is not known yet."""
    found = connection.execute("SELECT journal FROM process WHERE id = ?", (instance,)).get
    return found if isinstance(found, int) else None


def is_settled(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> bool:
    """Whether the rows of an instance have been settled.

    The rows know of each slot which instance was settled last. It is this one, or another one has the slot by now,
    which it could take only then. Not by the greater number: those of a mended store, or garbled ones, have no order.
    """
    last = connection.execute("SELECT settled FROM slot WHERE slot = ?", (slot,)).get
    return last == instance or not file.has(slot, instance)


def ingest(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> int:
    """Turn the rest of an instance's journal into rows, within the caller's transaction.

    Returns how many bytes of the journal are rows then. Raises journal.JournalGoneError.
    """
    start = committed(connection, instance) or 0
    reading = journal.read(file, slot, instance, start)
    records, end, _ = reading
    nonsense.note(connection.filename, instance, reading)
    if end > start:
        ids = SeriesIds(connection)
        for record in records:
            if isinstance(record, ChildRecord):
                _insert_child(connection, instance, record, ids)
            elif not isinstance(record, ExemplarRecord):
                insert_other(connection, instance, record)
        exemplars.write(connection, file, [record for record in records if isinstance(record, ExemplarRecord)])
        connection.execute("UPDATE process SET journal = ? WHERE id = ?", (end, instance))
    return end


class SeriesIds:
    """The ids that series have in rows; those that have none get one. Within the caller's transaction."""

    def __init__(self, connection: apsw.Connection):
        self._connection = connection
        self._known: dict[tuple[str, str, str], dict[tuple[str, str], tuple[int, float]]] = {}

    def of(self, child: ChildRecord) -> list[int]:
        """The id of each of a child's series."""
        key = (child.family, child.type, child.labels())
        known = self._known.get(key)
        if known is None:
            rows: Any = self._connection.execute(FIND_SERIES, key)
            known = self._known[key] = {(name, variant): (number, made) for name, variant, number, made in rows}
            if not known:  # there is a row, if only of NULLs, for each family
                insert_other(self._connection, 0, child.stand_in())
        samples = list(zip(child.names, child.variants, strict=True))
        changed = False
        for sample in samples:
            number, made = known.get(sample, (None, 0.0))
            if number is None:
                number = self._connection.execute(INSERT_SERIES, (*key, *sample, child.created)).get
            elif made <= child.created:
                continue
            else:
                self._connection.execute(MADE_EARLIER, (number, child.created))
            known[sample] = number, child.created
            changed = True
        if changed:
            self._connection.execute(RAISE_PLAN)
        return [known[sample][0] for sample in samples]


def _insert_child(connection: apsw.Connection, instance: int, child: ChildRecord, ids: SeriesIds) -> None:
    timestamp = 0.0 if child.stamped else None
    pairs = zip(ids.of(child), child.samples(), strict=True)
    gauge = mode_of(connection, child) != ""
    rows = [(cell, series, instance, timestamp, gauge) for series, (_, _, cell) in pairs]
    try:
        connection.executemany(UPSERT_SAMPLE, rows)
    except apsw.ConstraintError:  # the cell is another series'
        connection.executemany(TAKE_BACK, [row[:3] for row in rows])
        nonsense.note_clash(connection.filename, instance, child)


def insert_other(connection: apsw.Connection, instance: int, record: FamilyRecord | ProcessRecord) -> None:
    """Insert or change the row of a family or a process."""
    if isinstance(record, FamilyRecord):
        fields = (*record[:3], storable_help(record.help), *record[4:])
        if not connection.execute(IS_KNOWN, fields).get:
            connection.execute(RAISE_PLAN)
        before = mode_of(connection, record)
        connection.execute(UPSERT_FAMILY, fields)
        now = mode_of(connection, record)
        if before is not None and (before == "") != (now == ""):
            connection.execute(MARK_GAUGES, (*record[:2], now != ""))
        return
    pid = storable(record.pid)
    for statement in FORGET_NAMESAKES:
        connection.execute(statement, (pid, record.pid_namespace))
    forgotten = connection.changes() > 0
    connection.execute(UPSERT_PROCESS, (instance, pid, *record[1:4]))
    connection.executemany(FORGET_ORPHANS, [(one, record.store) for one in record.lost])
    if forgotten or record.lost:
        connection.execute("UPDATE store SET ended = ended + 1")


def mode_of(connection: apsw.Connection, record: ChildRecord | FamilyRecord) -> str | None:
    """The mode of a record's family as the rows have it; None if they have none."""
    found: Any = connection.execute(MODE_OF, record[:2]).get
    return found  # type: ignore[no-any-return]


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
        first = block * layout.BLOCK_CELLS
        changed += [(value, first + place, instance) for place, value in changed_cells(image)]
    connection.executemany(SET_VALUE, changed)
    if stamped:
        connection.executemany(SET_TIMESTAMP, changed)
