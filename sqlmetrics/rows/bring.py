"""What ended processes had left in a database that was deleted: brought to the new one by whoever has the old one open.

All files may be deleted, and the first process that notices may have none of them open: it has just started, or was
just forked. It makes a new store of nothing. A process that comes later and still reads the old database brings what
only that one knows: the sums of the ended processes, and their `all` gauges. The living bring theirs themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import apsw

from ..cells.records import FamilyRecord
from .database import bump, transaction
from .fold import Legacy, fold
from .ingest import insert_other
from .series import read_help

UPDATE_BEGAN = "UPDATE store SET began = ?"
SELECT_IS_MISSING = "SELECT began > ? AND NOT EXISTS (SELECT 1 FROM brought WHERE brought.store = ?) FROM store"
INSERT_BROUGHT = "INSERT INTO brought (store) VALUES (?) ON CONFLICT (store) DO NOTHING"
SELECT_FAMILIES = "SELECT name, type, mode, help, made, unit, registered FROM family"
SELECT_LEFT = """
SELECT family.name, family.type, series.labels, series.name, series.variant, series.created,
       part.process, part.value, part.timestamp, part.started
  FROM (SELECT series, 0 AS process, value, timestamp, started FROM retired
        UNION ALL SELECT series, 0, rest, timestamp, started FROM retired WHERE rest <> 0.0
        UNION ALL SELECT series, process, value, NULL, NULL FROM kept) AS part
  JOIN series ON series.id = part.series JOIN family ON family.id = series.family
"""
SELECT_REMEMBERED = "SELECT id, pid, os_pid, pid_namespace, started, journal, died FROM instance WHERE died IS NOT NULL"
INSERT_REMEMBERED = """
INSERT INTO instance (id, pid, os_pid, pid_namespace, started, journal, died) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING
"""
UPSERT_SERIES = """
INSERT INTO series (family, labels, name, variant, created)
SELECT id, ?3, ?4, ?5, ?6 FROM family WHERE name = ?1 AND type = ?2
ON CONFLICT (family, labels, name, variant) DO UPDATE SET created = min(created, excluded.created)
RETURNING id, (SELECT mode FROM family WHERE name = ?1 AND type = ?2)
"""


def note_began(connection: apsw.Connection) -> None:
    """Note that there was nothing to make these rows of."""
    connection.execute(UPDATE_BEGAN, (time.clock_gettime(time.CLOCK_REALTIME),))


def is_missing(connection: apsw.Connection, store: str, moment: float) -> bool:
    """Whether this was made of nothing since then (seconds since the epoch), and nobody has brought that store's.

    A store that was there before, and was moved to the path, has nothing to do with the one that was at it.
    """
    return bool(connection.execute(SELECT_IS_MISSING, (moment, store)).get)


def bring(connection: apsw.Connection, old: apsw.Connection, store: str) -> None:
    """Add what the processes that ended have left in `old`, the store of that id, unless it was added before.

    Raises apsw.Error.
    """
    with transaction(connection):
        connection.execute(INSERT_BROUGHT, (store,))
        if connection.changes():
            for name, typ, mode, text, made, unit, registered in _rows(old, SELECT_FAMILIES):
                insert_other(
                    connection, 0, FamilyRecord(name, typ, mode, read_help(text), made, unit, bool(registered))
                )
            connection.executemany(INSERT_REMEMBERED, _rows(old, SELECT_REMEMBERED))
            fold(connection, list(_legacies(connection, old)))
            bump(connection, "plan")


def _legacies(connection: apsw.Connection, old: apsw.Connection) -> Iterable[Legacy]:
    for *series, process, value, timestamp, started in _rows(old, SELECT_LEFT):
        ((number, mode),) = _rows(connection, UPSERT_SERIES, series)
        yield Legacy.of_one(process, number, mode, value, timestamp, started)


def _rows(connection: apsw.Connection, sql: str, bindings: Any = ()) -> list[Any]:
    return connection.execute(sql, bindings).fetchall()
