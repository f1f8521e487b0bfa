"""The value class: what ``inc()``, ``set()`` and ``observe()`` of a metric end in.

An operation on a value that has its cell is two memory reads, a comparison and ``cells[i] += amount``. There
is no lock: CPython looks for other threads and for signals only at calls, at function entries and at backward
jumps, and there is none of these between the read and the store. Builds without the interpreter lock get one
lock per child.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from . import fork
from .shape import MODES, MOST_RECENT_MODES, Family, Key, describe, is_last, place_samples, upper_bound

if TYPE_CHECKING:
    from .part import Part
    from .store import Store
    from .writer import Writer

_Sample = tuple["SharedValue", str, str]
"""(value, sample name, upper bound or '')"""
_Batch = tuple[object, Family, dict[str, str], str, _Sample]

_UNBOUND = memoryview(b"\0")
_BOUND = memoryview(b"\1")
_NO_CELLS = memoryview(bytearray(8)).cast("d")
_LABELS_WAIT = 0.05
"""Seconds that a new child waits for another thread that binds. It is made with its metric's lock held, which a
signal handler in that other thread may be waiting for: neither would ever go on."""
_LONGEST_BATCH = 200
"""Samples of one journal record, so that a child's cells always fit into one block of 512."""


class SharedValue:
    """One sample of one child, kept in a cell that every process of the store can read.

    The contract is that of `prometheus_client.values`: the constructor's arguments, the methods below, and
    the attribute ``_multiprocess``. Get a class with `MultiProcessValue`.
    """

    _multiprocess = True
    _binder: ClassVar[Binder]
    __slots__ = (
        "_batch",
        "_cell",
        "_cells",
        "_key",
        "_named",
        "_offset",
        "_own",
        "_stamped",
        "_word",
    )

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Any,
        labelvalues: Any,
        help_text: str,
        multiprocess_mode: str = "",
        **kwargs: Any,  # noqa: ARG002 - the peer's contract
    ) -> None:
        self._own, self._word, self._cells, self._cell = _UNBOUND, _BOUND, _NO_CELLS, 0
        self._key: Key | None = None
        self._named: object = None
        self._batch: _Batch
        self._offset = 0
        self._stamped = multiprocess_mode in MOST_RECENT_MODES
        if typ == "gauge":
            multiprocess_mode = multiprocess_mode or "all"
            if multiprocess_mode not in MODES:
                raise ValueError(f"unknown multiprocess mode {multiprocess_mode!r}; it is one of {sorted(MODES)}")
        family = (typ, metric_name, multiprocess_mode if typ == "gauge" else "")
        self._binder.add(self, family, name, tuple(labelnames), tuple(map(str, labelvalues)), help_text)

    def inc(self, amount: float) -> None:
        """Add `amount`."""
        # An amount of any other class might run Python code between the read and the store.
        if self._own[0] == self._word[0] and (amount.__class__ is int or amount.__class__ is float):
            self._cells[self._cell] += amount
        else:
            self._inc_slowly(amount)

    def _inc_slowly(self, amount: float) -> None:
        amount = float(amount)
        while self._own[0] != self._word[0]:
            self._binder.attach(self)
        self._cells[self._cell] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value; the timestamp (seconds since the epoch) matters to the mostrecent modes only."""
        value = float(value)
        while self._own[0] != self._word[0]:
            self._binder.attach(self)
        self._cells[self._cell] = value
        if self._stamped:
            # The time last: a reader reads it first, and so never has a new time with an old value.
            self._cells[self._cell - 1] = timestamp or 0.0

    def get(self) -> float:
        """Return this process's own value."""
        while self._own[0] != self._word[0]:
            self._binder.attach(self)
        return self._cells[self._cell]

    def set_exemplar(self, exemplar: object) -> None:
        """Accept an exemplar, as the peer's multiprocess values do, without keeping it."""

    def get_exemplar(self) -> None:
        """Return None, as the peer's multiprocess values do."""


class _Named:
    """A value whose process identifier is not `os.getpid`: it may change at any time, so it is asked each time."""

    __slots__ = ()

    def inc(self: Any, amount: float) -> None:
        """Add `amount` in the part of the process that the identifier names now."""
        self._check_name()
        super().inc(amount)  # type: ignore[misc]

    def set(self: Any, value: float, timestamp: float | None = None) -> None:
        """Set the value in the part of the process that the identifier names now."""
        self._check_name()
        super().set(value, timestamp)  # type: ignore[misc]

    def get(self: Any) -> float:
        """Return the value in the part of the process that the identifier names now."""
        self._check_name()
        return super().get()  # type: ignore[misc, no-any-return]

    def _check_name(self: Any) -> None:
        if self._binder.identify() != self._named:
            self._own = _UNBOUND


class _Locked:
    """A value on a build without the interpreter lock."""

    __slots__ = ()

    def inc(self: Any, amount: float) -> None:
        """Add `amount`."""
        with self._binder.lock_of(self):
            super().inc(amount)  # type: ignore[misc]

    def set(self: Any, value: float, timestamp: float | None = None) -> None:
        """Set the value."""
        with self._binder.lock_of(self):
            super().set(value, timestamp)  # type: ignore[misc]


class Binder(fork.ForkAware):
    """Gives the values of one value class their cells, and new ones when the process is another."""

    def __init__(self, identify: Callable[[], object], find_store: Callable[[], Store]):
        self.identify = identify
        self._find_store = find_store
        self._store: Store | None = None
        self._writer: Writer | None = None
        self._inherited: dict[Key, None] = {}
        self._batches: dict[object, list[_Sample]] = {}
        self._locks: dict[Key, threading.RLock] = {}
        fork.register(self)

    def add(
        self,
        value: SharedValue,
        family: tuple[str, str, str],
        name: str,
        labelnames: tuple[str, ...],
        labelvalues: tuple[str, ...],
        help_text: str,
    ) -> None:
        """Take a new value; with the last one of its child the child is placed and announced."""
        typ, metric_name, mode = family
        bound = ""
        if typ == "histogram" and labelnames and labelnames[-1] == "le":
            bound = upper_bound(labelvalues[-1])
            labelnames, labelvalues = labelnames[:-1], labelvalues[:-1]
        batch_key = (threading.get_ident(), typ, metric_name, labelvalues)
        batch = self._batches.setdefault(batch_key, [])
        batch.append((value, name, bound))
        labels = dict(zip(labelnames, labelvalues, strict=False))
        value._batch = (batch_key, (metric_name, typ, mode), labels, help_text, (value, name, bound))
        if is_last(typ, metric_name, name, bound) or len(batch) == _LONGEST_BATCH:
            self._close(value)

    def _close(self, value: SharedValue) -> None:
        batch_key, family, labels, help_text, this = value._batch
        batch = self._batches.pop(batch_key, [])
        if this not in batch:  # a signal handler made the same child, and took the batch meanwhile
            batch.append(this)
        describe(family, help_text)
        places = place_samples(family, labels, tuple((name, bound) for _, name, bound in batch))
        values: dict[Key, list[SharedValue]] = {}
        for (one, _, _), (key, position) in zip(batch, places, strict=True):
            one._key = key
            one._stamped = key[0].stamped
            one._offset = 2 * position + 1 if one._stamped else position
            values.setdefault(key, []).append(one)
        for key, group in values.items():
            if key[0].zero_shows:
                self._inherited[key] = None
            self._bind(key, group, _LABELS_WAIT)

    def attach(self, value: SharedValue) -> None:
        """Bind a value to its cell in the part of the store that this process owns now."""
        if value._key is None:
            self._close(value)
        else:
            self._bind(value._key, [value])

    def _bind(self, key: Key, values: list[SharedValue], seconds: float = -1) -> None:
        named = self.identify()
        store = self._store = self._store or self._find_store()
        part = store.part
        with part.binding(seconds) as outermost:
            if outermost is None:
                return  # at the first operation, then
            writer = part.writer(str(named), outermost)
            if outermost and writer is not self._writer:
                self._inherit(writer, part)
            arena, cell = part.place(writer, key, outermost)
            own, word, cells = arena.own, arena.word, arena.cells
            for value in values:
                value._named = named
                at = cell + value._offset
                # All of it or nothing: no signal handler can come in between where there is no call.
                value._word, value._cells, value._cell, value._own = word, cells, at, own
        store.flusher.wake()

    def _inherit(self, writer: Writer, part: Part) -> None:
        """In a new process (or under a new name) every gauge is there at zero, as in the peer's mode."""
        self._writer = writer
        for key in list(self._inherited):
            part.place(writer, key, True)

    def lock_of(self, value: SharedValue) -> threading.RLock:
        """The lock of a child's values, for builds without the interpreter lock."""
        key = value._key or (None, ())
        return self._locks.setdefault(key, threading.RLock())  # type: ignore[arg-type]

    def after_fork_in_child(self) -> None:
        """In a child: half-made children belong to threads that are not here, and locks may be held by them."""
        here = threading.get_ident()
        for batch_key in [key for key in self._batches if key[0] != here]:  # type: ignore[index]
            with suppress(KeyError):
                del self._batches[batch_key]
        self._locks.clear()


def MultiProcessValue(process_identifier: Callable[[], object] = os.getpid) -> type[SharedValue]:
    """Return a value class, as `prometheus_client.values.MultiProcessValue` does.

    process_identifier: names the process; the results are compared as strings and must differ between
        processes that live at the same time. Any function but `os.getpid` is called at each operation.

    The store is the installed one, else the one that the environment names, opened at the first value.
    """
    from .stores import default_store

    bases: tuple[type, ...] = (SharedValue,)
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        bases = (_Locked, *bases)
    if process_identifier is not os.getpid:
        bases = (_Named, *bases)

    class MultiProcessValue(*bases):  # type: ignore[misc]
        """A float in the store's cells file."""

        __slots__ = ()
        _binder = Binder(process_identifier, default_store)

    return MultiProcessValue
