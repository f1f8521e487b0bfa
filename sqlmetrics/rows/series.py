"""Makes rows of families and series, many at a time: a label with a user's id makes thousands of series.

At each step of a statement, SQLite's caller gives up the interpreter lock, and if another thread of the process
computes, it may wait some milliseconds to get it back. So the number of statements, and of rows that they return, must
not grow with the number of children: all of them go into one JSON text that SQLite takes apart.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import apsw

from ..cells.records import ChildRecord, FamilyRecord
from ..cells.shape import label_set
from . import nonsense
from .database import bump

UPSERT_FAMILY = """
INSERT INTO family (id, name, type, mode, help, made, unit, registered)
VALUES ((SELECT ifnull(max(id), 0) FROM family) + ?8, ?1, ?2, ?3, ?4, ?5, ?6, ifnull(?7, 0))
ON CONFLICT (name, type) DO UPDATE
   SET mode = excluded.mode, help = excluded.help, made = excluded.made, unit = excluded.unit,
       registered = ifnull(?7, registered)
 WHERE family.made IS NULL OR excluded.made >= family.made
"""
SELECT_IS_KNOWN = """
SELECT count(*) FROM family
 WHERE name = ?1 AND type = ?2 AND mode = ?3 AND help = ?4 AND unit = ?6 AND registered = ifnull(?7, registered)
"""
SELECT_ID_AND_MODE = "SELECT id, mode FROM family WHERE name = ? AND type = ?"
# Whether a family's values are summed can change, as the app may declare a counter of its own class with a mode.
UPDATE_GAUGES = """
UPDATE cell_copy SET gauge = ?3
 WHERE series IN (SELECT series.id FROM series JOIN family ON family.id = series.family
                   WHERE family.name = ?1 AND family.type = ?2)
"""
# :children is [[labels, created, first cell], …], :samples is [[name, variant, cells after the first], …].
_EACH = "jsonb_each(:children) AS child CROSS JOIN jsonb_each(:samples) AS sample"
_SAME = """series.family = :family AND series.labels = child.value ->> 0
       AND series.name = sample.value ->> 0 AND series.variant = sample.value ->> 1"""
UPSERT_SERIES = f"""
INSERT INTO series (id, family, labels, name, variant, created)
SELECT :before + 1 + child.key * json_array_length(:samples) + sample.key,
       :family, child.value ->> 0, sample.value ->> 0, sample.value ->> 1, child.value ->> 1
  FROM {_EACH}
 WHERE true
ON CONFLICT (family, labels, name, variant) DO UPDATE
   SET created = excluded.created
 WHERE excluded.created < series.created
"""  # noqa: S608
SELECT_IDS = f"SELECT json_group_array((SELECT id FROM series WHERE {_SAME})) FROM {_EACH}"  # noqa: S608
# A gauge that one process declares in two modes has two cells for one series: the newest declaration wins. So does a
# child that is made again before its removal is committed. The new cell's value comes with the next flush.
UPSERT_CELL_COPIES = f"""
INSERT INTO cell_copy (cell, series, process, gauge, stamped)
SELECT (child.value ->> 2) + (sample.value ->> 2), series.id, :process, :gauge, :stamped
  FROM {_EACH} CROSS JOIN series
    ON {_SAME}
 WHERE true
ON CONFLICT (process, series) DO UPDATE
   SET cell = excluded.cell, value = excluded.value, timestamp = excluded.timestamp,
       gauge = excluded.gauge, stamped = excluded.stamped
 WHERE cell <> excluded.cell
"""  # noqa: S608
SELECT_LAST = "SELECT ifnull(max(id), 0) FROM series"
SELECT_FAMILY_TEXTS = "SELECT id, type, help FROM family"
SELECT_SERIES_TEXTS = "SELECT family, labels, variant FROM series"
_MOST = 10_000
"""The most samples of one statement."""


def insert_family(connection: apsw.Connection, record: FamilyRecord) -> None:
    """Insert or change the row of a family; the newest metadata wins."""
    fields = (*record[:3], storable_help(record.help), *record[4:])
    if not connection.execute(SELECT_IS_KNOWN, fields).get:
        bump(connection, "plan")
    before = mode_of(connection, record)
    connection.execute(UPSERT_FAMILY, (*fields, _gap()))
    now = mode_of(connection, record)
    if before is not None and (before == "") != (now == ""):
        connection.execute(UPDATE_GAUGES, (*record[:2], now != ""))
        bump(connection, "epoch")  # readers know each series as a sum or as a gauge


def mode_of(connection: apsw.Connection, record: ChildRecord | FamilyRecord) -> str | None:
    """Return the mode that a record's family has in the rows; None if it has no row."""
    found: Any = connection.execute(SELECT_ID_AND_MODE, record[:2]).fetchone()
    return found[1] if found else None


class Batch(NamedTuple):
    """Children of one family with the same samples, in the order in which they were announced."""

    family: int
    gauge: bool
    children: Sequence[ChildRecord]

    def samples(self) -> list[tuple[str, str]]:
        """Return (name, variant) of each sample of a child."""
        return list(zip(self.children[0].names, self.children[0].variants, strict=True))

    def bindings(self) -> dict[str, Any]:
        """Return the bindings of the statements above, without the process."""
        stamped = self.children[0].stamped
        samples = [(*sample, place * (2 if stamped else 1)) for place, sample in enumerate(self.samples())]
        return {
            "family": self.family,
            "gauge": self.gauge,
            "stamped": stamped,
            "children": json.dumps([(child.labels(), child.created, child.cell) for child in self.children]),
            "samples": json.dumps(samples),
        }


def insert_children(connection: apsw.Connection, instance: int, children: Iterable[ChildRecord]) -> None:
    """Make rows of the children of one process, and of new series, within the caller's transaction.

    A child with cells of another child is left out, and noted.
    """
    for batch in _batches(connection, children):
        if not _try_to_insert(connection, instance, batch):
            for child in batch.children:
                if not _try_to_insert(connection, instance, batch._replace(children=[child])):
                    clash = f"a child of {child.family!a} in cells of another child"
                    nonsense.note_one(connection.filename, instance, clash)


def _try_to_insert(connection: apsw.Connection, instance: int, batch: Batch) -> bool:
    """Insert children; False, and none of them, if another series has one of the cells."""
    bindings = batch.bindings() | {"process": instance}
    connection.execute("SAVEPOINT batch")
    _insert_series(connection, bindings)
    try:
        connection.execute(UPSERT_CELL_COPIES, bindings)
    except apsw.ConstraintError:
        fits = False
        connection.execute("ROLLBACK TO batch")
    else:
        fits = True
    connection.execute("RELEASE batch")
    return fits


def _insert_series(connection: apsw.Connection, bindings: dict[str, Any]) -> None:
    last: Any = connection.execute(SELECT_LAST).get
    connection.execute(UPSERT_SERIES, bindings | {"before": last + _gap()})
    if connection.changes():
        bump(connection, "plan")


def _gap() -> int:
    """Return a number to leave out before the next ids of families or series, so that none is given twice.

    If a page is lost with its newest rows, as with a garbled WAL index, rows that refer to them refer to nothing then,
    and a check finds that. With the next number they would refer to whatever has got it. The kernel gives it, because
    a forked process would have the same random numbers as its parent.
    """
    return 1 + int.from_bytes(os.urandom(2), "big")


def _batches(connection: apsw.Connection, children: Iterable[ChildRecord]) -> Iterator[Batch]:
    """Yield the children by family. They stay in order, because the last cell of a repeated child counts."""
    by_family: dict[tuple[str, str], list[ChildRecord]] = {}
    for child in children:
        by_family.setdefault(child[:2], []).append(child)
    for some in by_family.values():
        family, mode = _family(connection, some[0])
        for _, alike in groupby(some, itemgetter(2, 4, 5)):  # stamped, names, variants
            run = list(alike)
            size = max(_MOST // len(run[0].names), 1)
            for start in range(0, len(run), size):
                yield Batch(family, mode != "", run[start : start + size])


def _family(connection: apsw.Connection, child: ChildRecord) -> tuple[int, str]:
    """Return id and mode of a child's family, which gets a row if it has none."""
    if (found := connection.execute(SELECT_ID_AND_MODE, child[:2]).fetchone()) is None:
        insert_family(connection, child.stand_in())
        found = connection.execute(SELECT_ID_AND_MODE, child[:2]).fetchone()
    family: Any = found
    return family  # type: ignore[no-any-return]


class SeriesIds:
    """The ids of series in rows; a series without a row gets one, within the caller's transaction."""

    def __init__(self, connection: apsw.Connection):
        self._connection = connection
        self._known: dict[tuple[str, str, str], dict[tuple[str, str], tuple[int, float]]] = {}

    def learn(self, children: Iterable[ChildRecord]) -> None:
        """Look up, or make, the series of many children, so that `of` needs no statement for them."""
        for batch in _batches(self._connection, [child for child in children if self._ids(child) is None]):
            self._learn(batch)

    def of(self, child: ChildRecord) -> list[int]:
        """Return the id of each of a child's series."""
        if (found := self._ids(child)) is None:
            self.learn([child])
            found = self._ids(child)
        assert found is not None, child
        return found

    def _ids(self, child: ChildRecord) -> list[int] | None:
        """Return the ids; None if one of the series is unknown, or noted as made later than the child."""
        known = self._known.get((child.family, child.type, child.labels()), {})
        found = [known.get(sample, (0, math.inf)) for sample in zip(child.names, child.variants, strict=True)]
        return [number for number, _ in found] if all(made <= child.created for _, made in found) else None

    def _learn(self, batch: Batch) -> None:
        bindings = batch.bindings()
        _insert_series(self._connection, bindings)
        ids = iter(json.loads(str(self._connection.execute(SELECT_IDS, bindings).get)))
        samples = batch.samples()
        for child in batch.children:
            known = self._known.setdefault((child.family, child.type, child.labels()), {})
            known.update((sample, (next(ids), child.created)) for sample in samples)


def storable_help(text: str) -> str | bytes:
    """Return a help text, or its UTF-8 bytes if SQLite cannot hold it as text (lone surrogates); see `read_help`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def read_help(stored: object) -> str:
    """Return the help text that `storable_help` has made storable."""
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else str(stored)


def check(connection: apsw.Connection) -> None:
    """Raise ValueError, TypeError or LookupError if a scrape could not read a text of a family or series."""
    types: dict[int, str] = {}
    for number, type_, text in connection.execute(SELECT_FAMILY_TEXTS).fetchall():
        types[int(str(number))] = str(type_)
        read_help(text)
    for family, labels, variant in connection.execute(SELECT_SERIES_TEXTS).fetchall():
        label_set(str(labels))
        if types[int(str(family))] == "histogram" and variant != "":
            float(str(variant))
        elif types[int(str(family))] == "info":
            label_set(str(variant))
