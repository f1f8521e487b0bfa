"""The value class: ``inc()``, ``set()`` and ``observe()`` of a metric change values of this class.

An operation on a value that has its cell is the comparison of two bytes and ``cells[i] += amount``. There is no
lock: CPython switches threads and handles signals only at calls, at function entries and at backward jumps, and there
is none of these between the read and the store. So a Python that runs without the interpreter lock is refused, see
`store.installed`.

`operations` does the same inside the methods of metrics, without a call of the methods here; see `Bound`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from prometheus_client.metrics_core import METRIC_TYPES
from prometheus_client.samples import Exemplar

from .cells import exact
from .cells.shape import MODES, MOST_RECENT_MODES, STATE_MODE, STATE_TYPES
from .client.binder import UNBOUND, Binder, Sampled
from .store.installed import default_store

_OPERATIONS = {"inc", "set", "get", "set_exemplar", "get_exemplar"}


def _storable_type(typ: str, mode: str) -> tuple[str, str]:
    """Return a type and a mode that a scrape can show, for a value of a metric class of the app's own."""
    if typ in STATE_TYPES:  # an Info and an Enum have no such values, see `info_enum`
        return "gauge", STATE_MODE
    if typ != "gauge" and mode not in MODES:
        mode = ""
    return (typ if typ in METRIC_TYPES else "unknown"), mode


_shared_lock: Any = threading.RLock()
"""For code that reads and writes ``_value`` under a value's lock; operations need none."""


def renew_lock() -> None:
    """Renew the shared lock in a forked process, where the thread that has it may not exist."""
    global _shared_lock
    _shared_lock = threading.RLock()


class Compatible:
    """The attributes of `prometheus_client`'s own value objects that tests and status pages use."""

    __slots__ = ()

    @property
    def _value(self: Any) -> float:
        """The value that this process has counted."""
        value: float = self.get()
        return value

    @_value.setter
    def _value(self: Any, value: float) -> None:
        self.set(value)

    @property
    def _exemplar(self: Any) -> Exemplar | None:
        found: Exemplar | None = self.get_exemplar()
        return found

    @property
    def _lock(self) -> Any:
        return _shared_lock

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object: it counts in this process")


class SharedValue(Compatible, Sampled):
    """One sample of one child, kept in a cell that every process of the store can read.

    The interface is that of `prometheus_client.values`: the constructor's arguments, the methods below, and the
    attribute ``_multiprocess``. Get a class with `MultiProcessValue`.
    """

    _multiprocess = True
    _binder: ClassVar[Binder]
    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note whether the app's own class changes an operation, so that metrics call it; see `Bound`."""
        super().__init_subclass__(**kwargs)
        if _OPERATIONS & cls.__dict__.keys():
            cls._plain = False

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Any,
        labelvalues: Any,
        help_text: str,
        multiprocess_mode: str = "",
        **kwargs: Any,  # noqa: ARG002 - `prometheus_client`'s contract
    ) -> None:
        super().__init__()
        typ, multiprocess_mode = _storable_type(exact.name(typ), exact.name(multiprocess_mode))
        self._stamped = multiprocess_mode in MOST_RECENT_MODES
        if typ == "gauge":
            multiprocess_mode = multiprocess_mode or "all"
            if multiprocess_mode not in MODES:
                raise ValueError(f"unknown multiprocess mode {multiprocess_mode!r}; it is one of {sorted(MODES)}")
        family = (typ, exact.name(metric_name), multiprocess_mode)
        texts = tuple(map(exact.text, labelnames)), tuple(map(exact.text, labelvalues))
        self._binder.add(self, family, exact.name(name), *texts, help_text)

    def inc(self, amount: float) -> None:
        """Add `amount`."""
        # An amount of any other class might run Python code between the read and the store.
        if self._own == self._word and (amount.__class__ is int or amount.__class__ is float):
            self._cells[self._cell] += amount
        else:
            self._inc_slowly(amount)

    def _inc_slowly(self, amount: float) -> None:
        amount = exact.number(amount)
        while self._own != self._word:
            self._binder.attach(self)
        self._cells[self._cell] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value; the timestamp (seconds since the epoch) matters to the mostrecent modes only."""
        value = float(value)
        stamp = 0.0 if timestamp is None else exact.seconds(timestamp)
        while self._own != self._word:
            self._binder.attach(self)
        self._cells[self._cell] = value
        if self._stamped:
            # The time is written last, and read first: so a reader never has a new time with an old value.
            self._cells[self._cell - 1] = stamp

    def get(self) -> float:
        """Return this process's own value."""
        while self._own != self._word:
            self._binder.attach(self)
        return self._cells[self._cell]

    def set_exemplar(self, exemplar: Exemplar) -> None:
        """Keep an exemplar, and show it to the other processes."""
        self._binder.set_exemplar(self, self._offset, exemplar)

    def get_exemplar(self) -> Exemplar | None:
        """Return this process's own newest exemplar."""
        return self._binder.get_exemplar(self, self._offset)


class _Named:
    """A value whose process identifier is not `os.getpid`: each operation calls it, as the name may change."""

    _plain = False
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
        if self._binder.has_left(self._named):
            self._own = UNBOUND


def MultiProcessValue(process_identifier: Callable[[], object] = os.getpid) -> type[SharedValue]:
    """Return a value class, as `prometheus_client.values.MultiProcessValue` does.

    process_identifier: a function that names the process. Its results, as strings, must differ between processes
        that live at the same time. Each operation calls it, unless it is `os.getpid`.

    The store is the installed one, else the one that the environment names. The first value opens it.
    """
    bases: tuple[type, ...] = (SharedValue,) if process_identifier is os.getpid else (_Named, SharedValue)

    class MultiProcessValue(*bases):  # type: ignore[misc]
        """A float in the store's cells file."""

        __slots__ = ()
        _binder = Binder(process_identifier, default_store)

    return MultiProcessValue
