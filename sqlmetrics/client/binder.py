"""Binds value objects to their cells: when they are made, and again when an operation finds that they lost them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from prometheus_client.samples import Exemplar

from ..cells import exact
from ..cells.arenas import Arena
from ..cells.part import Part
from ..cells.shape import (
    STATE_TYPES,
    Family,
    Key,
    Samples,
    describe,
    forget_infos,
    is_last,
    joined,
    place_samples,
    shape_of,
    sole_key,
    upper_bound,
)
from ..cells.writer import Writer
from ..process import fork, native, waits
from ..process.appcode import is_for_caller, safe_repr
from ..process.weak import members
from ..store.store import Store

_Sample = tuple["Sampled", str, str]
"""(value, sample name, upper bound or '')"""
Batch = tuple[object, tuple[str, str, str], dict[str, str], str, _Sample]
"""(key, family, labels, help text, sample) of a new value, until all values of its child exist."""

UNBOUND = memoryview(b"\0")
_NEVER = memoryview(b"\1")
_NO_CELLS = memoryview(bytearray(8)).cast("d")
_AT_ONCE = 100
"""How many gauges the first operation of a new process places; it takes 0.5 ms. The flusher places the rest."""
_LONGEST_BATCH = 200
"""The most samples of one journal record, so that a child's cells always fit into one block of 512."""


class Bound:
    """A cell, and two bytes that are equal as long as operations may write to the cell.

    _word: the byte that other processes change to stop operations. _own: the byte that the methods of values compare
        with it. _gate: the byte that operations on metrics compare with it. It is `_own`, too, but for values that are
        not `_plain`; there it never equals `_word`, so operations call the methods of the value.
    """

    _plain: ClassVar[bool] = True
    """Whether comparing the two bytes is enough: the value has no lock, and its process cannot change its name."""
    __slots__ = ("_cell", "_cells", "_gate", "_key", "_named", "_offset", "_own", "_word")

    def __init__(self) -> None:
        self._gate = self._own = UNBOUND
        self._word, self._cells, self._cell, self._offset = _NEVER, _NO_CELLS, 0, 0
        self._key: Key | None = None
        self._named = ""


class Sampled(Bound):
    """The value of one sample. It gets its cell as soon as the values of all samples of its child exist.

    _stamped: whether it has a timestamp, in the cell before its own.
    """

    __slots__ = ("_batch", "_stamped")

    def __init__(self) -> None:
        super().__init__()
        self._batch: Batch | None = None
        self._stamped = False


def _lead(values: list[Bound], key: Key, name: str, arena: Arena, cell: int) -> None:
    """Point the values of a child at its cells. name: the name of the process."""
    own, word, cells = arena.own, arena.word, arena.cells
    for value in values:
        value._key, value._named = key, name
        at, gate = cell + value._offset, own if value._plain else UNBOUND
        # All of it or nothing: a signal handler can only run between calls, and there is none here.
        value._word, value._cells, value._cell, value._own, value._gate = word, cells, at, own, gate


class Binder(fork.ForkAware):
    """Binds the values of one value class to cells, and to new cells in a forked process."""

    def __init__(self, identify: Callable[[], object], find_store: Callable[[], Store]):
        self.identify = identify
        self._find_store = find_store
        self._store: Store | None = None
        self._writer: Writer | None = None
        self._last_name: tuple[int, str] = (0, "")  # (pid, its last name)
        self._batches: dict[object, list[_Sample]] = {}
        fork.register(self)

    def name(self) -> str:
        """Return the current name of the process. Raises what the app's `process_identifier` raises."""
        return exact.name(str(self.identify()))

    def add(
        self,
        value: Sampled,
        family: tuple[str, str, str],
        name: str,
        labelnames: tuple[str, ...],
        labelvalues: tuple[str, ...],
        help_text: str,
    ) -> None:
        """Take a new value. With the last value of its child, the child gets its cells and is announced."""
        typ, metric_name, mode = family
        bound = ""
        if typ == "histogram" and labelnames and labelnames[-1] == "le":
            bound = upper_bound(labelvalues[-1])
            labelnames, labelvalues = labelnames[:-1], labelvalues[:-1]
        batch_key = (native.get_ident(), typ, metric_name, labelvalues)
        batch = self._batches.setdefault(batch_key, [])
        batch.append((value, name, bound))
        labels = dict(zip(labelnames, labelvalues, strict=False))
        value._batch = (batch_key, (metric_name, typ, mode), labels, help_text, (value, name, bound))
        if is_last(typ, metric_name, name, bound) or len(batch) == _LONGEST_BATCH:
            self._close(value)

    def add_whole(self, bound: Bound, family: Family, labels: dict[str, str], samples: Samples, help_text: str) -> bool:
        """Place a child that is one object; False if it has too many samples, or another object has some of them."""
        describe(family, help=help_text)
        bound._key = sole_key(family, labels, samples) if len(samples) <= _LONGEST_BATCH else None
        if bound._key is not None:
            self._bind(bound._key, [bound], waits.NEW_CHILD)
        return bound._key is not None

    def add_apart(self, bound: Bound, family: Family, labels: dict[str, str], samples: Samples, help_text: str) -> None:
        """Place a child that shares no cells with other objects of the same name and labels."""
        describe(family, help=help_text)
        names = tuple(sorted(labels))
        bound._key = (shape_of(family, names, samples), tuple(joined(labels[name]) for name in names))
        hold(bound)
        self._bind(bound._key, [bound], waits.NEW_CHILD)

    def add_new(self, key: Key, bounds: list[Bound], created: float | None) -> bool:
        """Place a child that is new to this process, in the usual case; False if this is no usual case, see `attach`.

        created: when the child was made, in seconds since the epoch; None: now.
        """
        writer, store = self._writer, self._store
        if writer is None or store is None:
            return False
        part = store.part_of_attached  # in a process that is not attached yet, `place_new` returns None
        if not part.lock.acquire(False):
            return False
        try:  # what `binding` does, in a tenth of its time
            part.depth += 1
            place = writer.place_new(key, created) if part.depth == 1 else None
            if place is None:
                return False
            if key[0].zero_shows:
                part.inheritance.gauges_of(self)[key] = None
            _lead(bounds, key, writer.identifier, place[0], place[1])
        finally:
            part.depth -= 1
            part.lock.release()
            if part.has_aside:
                with part.binding():
                    pass  # its end adds what was counted aside
        store.flusher.note_child()
        return True

    def give_back(self, bound: Bound) -> None:
        """Give back the cells of a child unless another object uses it. The next flush deletes its rows.

        bound: an object for which `hold` was called, and which nobody will use again. Nothing happens if another
            thread has given it back already.
        """
        key, store = bound._key, self._store
        if key is None or store is None:
            return
        with store.part.binding() as outermost:  # another thread may be binding it right now
            bound._own = bound._gate = UNBOUND
            if bound not in _holders.get(key, ()):
                return
            _holders[key].discard(bound)
            if outermost and not _is_held_after_all(key):
                # A metric object may use the cells of a gauge, too, and must be bound again.
                store.part.give_back([key], are_unbound=key[0].type in STATE_TYPES)
                forget_infos([key])
        store.flusher.wake()

    def _close(self, value: Sampled) -> None:
        waiting = value._batch
        if waiting is None:
            return  # a signal handler made the same child, and completed this one with it
        batch_key, family, labels, help_text, this = waiting
        batch = self._batches.pop(batch_key, [])
        if this not in batch:  # a signal handler made the same child, and took the batch meanwhile
            batch.append(this)
        describe(family, help=help_text)
        places = place_samples(family, labels, tuple((name, bound) for _, name, bound in batch))
        values: dict[Key, list[Bound]] = {}
        for (one, _, _), (key, position) in zip(batch, places, strict=True):
            one._key, one._batch = key, None
            one._stamped = key[0].stamped
            one._offset = 2 * position + 1 if one._stamped else position
            values.setdefault(key, []).append(one)
        for key, group in values.items():
            self._bind(key, group, waits.NEW_CHILD)

    def attach(self, value: Any) -> None:
        """Bind a value to its cell in the part of the store that this process owns now."""
        if value._key is None:
            self._close(value)
        elif not (value._plain and self.add_new(value._key, [value], None)):
            self._bind(value._key, [value])

    def _bind(self, key: Key, values: list[Bound], seconds: float = -1) -> None:
        store = self._store = self._store or self._find_store()
        part = store.part
        if key[0].zero_shows:
            part.inheritance.gauges_of(self)[key] = None
        name = self._name_for(store)
        with part.binding(seconds) as outermost:
            if outermost is None:
                return  # the first operation will bind it
            writer = part.writer(name, outermost)
            if outermost and writer is not self._writer:
                self._inherit(writer, part)
            _lead(values, key, name, *part.place(writer, key, outermost))
        if part.inheritance.waiting or part.inheritance.sure:
            store.flusher.wake()  # a flush finds out which of its parent's gauges this process has
        else:
            store.flusher.note_child()

    def _name_for(self, store: Store) -> str:
        """Return the current name of this process.

        If the app's function raises, or its result has no text, that is the last name of this process, or else its
        pid: an operation must not fail for that.
        """
        try:
            name = self.name()
        except BaseException as error:
            if is_for_caller(error):
                raise
            self._miss_name(store, error)
            last_pid, last = self._last_name
            return last if last_pid == os.getpid() else str(os.getpid())
        self._last_name = os.getpid(), name
        store.home.over("app", "the process identifier works again", about=f"identifier {id(self)}")
        return name

    def _miss_name(self, store: Store, error: BaseException) -> None:
        message = f"the process identifier raised {safe_repr(error)}; its last answer, or else the pid, is used"
        store.home.report("app", message, about=f"identifier {id(self)}")

    def has_left(self, named: str) -> bool:
        """Whether the name of this process has changed; False if the app's function for it raises."""
        try:
            return self.name() != named
        except BaseException as error:
            if is_for_caller(error):
                raise
            if self._store is not None:
                self._miss_name(self._store, error)
            return False

    def _inherit(self, writer: Writer, part: Part) -> None:
        """Begin a new process (or name) with every gauge at zero, as `prometheus_client`'s multiprocess mode does."""
        self._writer = writer
        gauges = part.inheritance.gauges_of(self)
        if part.inheritance.are_up_to_date():
            for place, key in enumerate(list(gauges)):
                if place < _AT_ONCE:
                    part.place(writer, key, True)
                else:
                    part.inheritance.sure.append((writer, key, gauges))
        else:
            part.inheritance.waiting += [(writer, key) for key in list(gauges)]

    def set_exemplar(self, value: Bound, position: int, exemplar: Exemplar) -> None:
        """Keep an exemplar of the sample at that position of a child."""
        while value._own != value._word:
            self.attach(value)
        if self._store is not None and value._key is not None:  # always, once it is attached
            self._store.part_of_attached.keep_exemplar(value._named, (value._key, position), exemplar)

    def get_exemplar(self, value: Bound, position: int) -> Exemplar | None:
        """Return the newest exemplar that this process has of a sample, or None."""
        while value._own != value._word:
            self.attach(value)
        if self._store is None or value._key is None:
            return None
        return self._store.part_of_attached.newest_exemplar(value._named, (value._key, position))

    def after_fork_in_child(self) -> None:
        """Forget incomplete children: the threads that were making them do not exist in the forked process."""
        for batch_key in list(self._batches):
            if batch_key[0] != native.get_ident():  # type: ignore[index]
                self._batches.pop(batch_key, None)


_holders: dict[Key, weakref.WeakSet[Any]] = {}
"""By the key of each child that may be given back: the objects that use it."""


def hold(bound: Any) -> None:
    """Note that an object uses a child, so that `Binder.give_back` keeps its cells."""
    while True:
        holders = _holders.setdefault(bound._key, weakref.WeakSet())
        holders.add(bound)
        if _holders.get(bound._key) is holders:  # no other thread has taken the set away meanwhile
            return


def _is_held_after_all(key: Key) -> bool:
    """Take out the set of a child's users; if it has any, put them back, and return True.

    A thread that calls `hold` meanwhile either is in this set, or begins a new one.
    """
    left = members(_holders.pop(key))
    for one in left:
        hold(one)
    return bool(left)


def is_held(key: Key) -> bool:
    """Whether an object exists for which `hold` was called for this child."""
    holders = _holders.get(key)
    return holders is not None and bool(members(holders))
