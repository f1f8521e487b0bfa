"""Counts the label sets that each family has in all processes, to tell whether there is room for one more.

An operation must not ask the database. So a process reads the label sets in rows when it is installed, and with its
flushes. It reads those that others have made since in their journals, and counts its own itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import weakref
from typing import Any

import apsw

from ..cells import exact, journal
from ..cells.cellsfile import CellsFile
from ..cells.records import ChildRecord
from ..cells.selection import Selection
from ..cells.shape import canonical_labels
from ..errors import DamagedError, SQLMetricsError
from ..process import fork
from .opened import Opened

OTHER = "(other)"
"""Each label value of the series that stands for all label sets beyond the limit."""
_SELECT_STATE = "SELECT id, plan, epoch FROM store"
_SELECT_ENDS = "SELECT id, journal FROM instance WHERE died IS NULL"
# Of a histogram's child one series is enough.
_SELECT_NEW = """
SELECT series.id, family.name, family.type, series.labels
  FROM series JOIN family ON family.id = series.family
 WHERE series.id > ? AND series.labels <> '{}' AND (family.type <> 'histogram' OR series.variant = '')
 ORDER BY series.id
"""
_SHARE = 20
"""All label sets are read again after removals, but that takes at most one part in so many of the time."""
_LONGEST = 1 << 18
"""The most bytes of journals that one operation reads, in some 15 ms. A longer rest is found in the rows later."""

Family = tuple[str, str]
"""(name, type)"""


class Admission:
    """What one process knows of the label sets of a store. Without a limit, it reads nothing."""

    def __init__(self, store: Opened):
        self._store = store
        self._seen: object = None
        self._removals: object = None
        self._last = 0
        self._next_reading = 0.0
        self._written: object = None
        self._known: dict[Family, set[str]] = {}
        """Label sets, as JSON, that are in rows or in journals."""
        self._slots: object = None
        self._others: list[tuple[int, int]] = []
        self._upto: dict[int, int] = {}
        """How much of the journal of each instance is known, in bytes."""
        self._made: dict[Family, dict[str, tuple[weakref.ref[Any], tuple[str, ...]]]] = {}
        """Label sets that this process has made, and that were in no row when it looked last."""
        self._told: set[Family] = set()

    @property
    def limit(self) -> int | None:
        """How many label sets a family may have; None: any number."""
        return self._store.settings.max_series

    def admits(self, metric: Any, values: tuple[str, ...]) -> bool:
        """Whether a label set that a metric does not have yet gets its own series; if so, count it.

        Call it with the metric's lock held.
        """
        self._hear()
        family = exact.name(metric._name), metric._type
        known, made = self._known.get(family, ()), self._made.setdefault(family, {})
        text = _text(exact.labels(metric._labelnames, values))
        if is_other(values) or text in known or text in made:
            return True
        # Counted before the check for room, as a signal handler may make another one in the middle.
        made[text] = weakref.ref(metric), values
        if self._has_room(metric, values, len(known) + len(made)):
            return True
        made.pop(text, None)
        self._refuse(family)
        return False

    def _has_room(self, metric: Any, values: tuple[str, ...], counted: int) -> bool:
        # The children from before `install` are in no row until the first flush.
        here = len(metric._metrics) - ((OTHER,) * len(values) in metric._metrics)
        return self.limit is None or (counted <= self.limit and here < self.limit)

    def _refuse(self, family: Family) -> None:
        self._store.figures.limited(family[0])
        if family not in self._told:
            self._told.add(family)
            self._store.trouble.remark(
                f"{self._store.path}: the metric {family[0]} has reached max_series"
                f" ({self.limit}); new label sets count in one series, with the label values {OTHER}"
            )
            self._store.flusher.wake()

    def forget(self, selection: Selection) -> None:
        """Forget removed label sets, so that there is room again before the next look at the rows."""
        family = selection.family, selection.type
        for known in (self._known.get(family, set()), self._made.get(family, {})):
            for text in [_text(selection.labels)] if selection.whole else list(known):
                if selection.whole or selection.labels.items() <= json.loads(text).items():
                    known.discard(text) if isinstance(known, set) else known.pop(text, None)

    # --- the journals of other processes ------------------------------------------------------------------

    def _hear(self) -> None:
        """Learn the label sets that are in journals of others, but not in rows yet; takes no lock."""
        if not self._store.is_open():
            return
        file = self._store.file
        slots = file.identity, bytes(file.states), tuple(file.own_slots)  # a fork changes the last
        if slots != self._slots:
            self._others = [(slot, one) for slot, one in file.held_slots() if slot not in slots[2]]
            self._slots = slots
        left = _LONGEST
        for slot, instance in self._others:
            length = file.published[slot] - self._upto.get(instance, 0)
            if 0 < length <= left:
                self._hear_of(file, slot, instance)
                left -= length

    def _hear_of(self, file: CellsFile, slot: int, instance: int) -> None:
        try:
            records, end, _ = journal.read(file, slot, instance, self._upto.get(instance, 0))
        except fork.GaveWayError:
            return
        except (journal.JournalGoneError, DamagedError):  # rows have it by now, or the slot has another process
            self._slots = None
            return
        for record in records:
            if isinstance(record, ChildRecord) and not is_other(record.labelvalues):
                family, text = (record.family, record.type), record.labels()
                if text not in self._made.get(family, ()):
                    self._known.setdefault(family, set()).add(text)
        self._upto[instance] = end

    # --- the rows -----------------------------------------------------------------------------------------

    def look(self, connection: apsw.Connection) -> None:
        """Learn which label sets are in rows: those since the last look, or all of them after a removal."""
        if self.limit is None:
            return
        # First how much of each journal is in rows, so that the rows that are read next have at least that.
        found: Any = connection.execute(_SELECT_ENDS).fetchall()
        ends: dict[int, int] = dict(found)
        state = connection.execute(_SELECT_STATE).fetchall()[0]
        if state != self._seen:
            self._learn(connection, (state[0], state[2]), ends)
            self._seen = state if (state[0], state[2]) == self._removals else None
            self._settle_made()
        self._upto = {one: max(end, self._upto.get(one, 0)) for one, end in ends.items()}

    def _learn(self, connection: apsw.Connection, removals: object, ends: dict[int, int]) -> None:
        """Read label sets. removals: changes with each removal. ends: how much of each journal is in rows."""
        if removals == self._removals or time.monotonic() < self._next_reading:
            self._read(connection, self._known)
        else:
            self._read_anew(connection, ends)
            self._removals = removals

    def _read_anew(self, connection: apsw.Connection, ends: dict[int, int]) -> None:
        begun = time.monotonic()
        self._last, found = 0, dict[Family, set[str]]()
        self._read(connection, found)
        self._known, self._upto = found, ends.copy()
        self._next_reading = time.monotonic() + _SHARE * (time.monotonic() - begun)

    def _read(self, connection: apsw.Connection, found: dict[Family, set[str]]) -> None:
        rows: Any = connection.execute(_SELECT_NEW, (self._last,))
        for number, name, typ, text in rows:
            if OTHER not in text or not is_other(json.loads(text).values()):
                found.setdefault((name, typ), set()).add(text)
            self._last = number

    def _settle_made(self) -> None:
        """Forget label sets in `_made` that are in rows by now, or were taken out of their metrics."""
        for family, made in self._made.copy().items():
            known = self._known.get(family, ())
            for text, (reference, values) in made.copy().items():
                metric = reference()
                if text in known or metric is None or values not in metric._metrics:
                    made.pop(text, None)

    def look_if_written(self) -> None:
        """Look at the rows if any process has written since the last look, by a `stat` call.

        Raises apsw.Error, OSError or SQLMetricsError.
        """
        if self.limit is None or not self._store.is_open():
            return
        written = _time_of(self._store.path + "-wal")
        if written != self._written:
            with self._store.writing() as connection:
                self.look(connection)
            self._written = written

    def begin(self) -> None:
        """Look for the first time, or after the store was emptied; if that fails, the next flush tries again."""
        self._written = None
        self._next_reading = 0.0
        with contextlib.suppress(apsw.Error, OSError, SQLMetricsError):
            self.look_if_written()


def is_other(values: Any) -> bool:
    """Whether these are the label values of the series `(other)`."""
    return {*values} == {OTHER}


def _text(labels: dict[str, str]) -> str:
    """Return a label set as the rows have it."""
    return canonical_labels(labels.keys(), labels.values())


def _time_of(name: str) -> object:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
