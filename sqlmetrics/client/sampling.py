"""Asks gauges with `set_function` and published collectors for their values.

Each process asks its own at every flush, and before each scrape that it answers. It sets values of the store to the
answers.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from prometheus_client import Gauge, GCCollector, PlatformCollector, ProcessCollector

from ..cells import exact
from ..cells.selection import removal_listeners
from ..cells.shape import MODES, Key
from ..process import fork, native, waits
from ..process.appcode import is_for_caller, safe_repr
from ..process.trouble import Trouble
from ..process.weak import members
from ..store import flush
from ..store import installed as stores
from ..store.opened import Opened
from ..values import SharedValue
from .published import Publication

_peer_set_function = Gauge.set_function


class Answering:
    """The value of a gauge with a function: it makes the gauge's other methods have no effect."""

    _multiprocess = True
    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def inc(self, amount: float) -> None:
        """Do nothing, as `prometheus_client`'s gauge with a function does."""

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Do nothing, as `prometheus_client`'s gauge with a function does."""

    def get(self) -> float:
        """Return the function's last answer in this process."""
        answer: float = self.value.get()
        return answer


class Sampler(fork.ForkAware):
    """The gauges and collectors that this process asks."""

    def __init__(self) -> None:
        self.gauges: weakref.WeakSet[Any] = weakref.WeakSet()
        self.publications: dict[Any, Publication] = {}
        self._busy: Any = None
        self._failed: dict[int, set[int]] = {}
        """By the id of a gauge or collector that has raised, and was logged: the threads in which it raised."""
        fork.register(self)

    def after_fork_in_parent(self) -> None:
        """Start the flusher: there is something to ask even if the app never does anything."""
        self._start_flusher()

    def after_fork_in_child(self) -> None:
        """Begin again without the parent's values and lock, and start the flusher even if the app does nothing."""
        self._busy = None
        for publication in self.publications.values():
            publication.after_fork_in_child()
        self._start_flusher()

    def _start_flusher(self) -> None:
        store = stores.installed()
        if self.is_needed() and store is not None:
            store.flusher.start()

    def publication_of(self, collector: Any) -> Publication | None:
        """Return the publication of a collector, or of one that yields the same, such as a second ProcessCollector."""
        found = self.publications.get(collector)
        if found is None and type(collector) in (GCCollector, PlatformCollector, ProcessCollector):
            yields = _yielded_by(collector)
            alike = [one for one in self.publications.copy() if type(one) is type(collector)]
            same = [one for one in alike if _yielded_by(one) == yields]
            found = self.publications[same[0]] if same else None
        return found

    def is_needed(self) -> bool:
        """Whether there is anything to ask."""
        return bool(self.gauges) or any(not one.is_of_children() for one in self.publications.copy().values())

    def dismiss(self, keys: list[Key]) -> None:
        """Stop asking gauges that were removed: their answers would bring the series back."""
        for gauge in members(self.gauges):
            if _key_of(gauge) in keys:
                self.gauges.discard(gauge)

    def ask(self) -> None:
        """Ask all, unless this thread is asking already. Raises only errors for which `is_for_caller` is true."""
        busy = self._lock()
        if not self.is_needed() or busy._is_owned():
            return
        if busy.acquire(timeout=waits.ASKING):
            try:
                self._notice_removals()
                failures = [*self._ask_gauges(), *self._ask_collectors()]
            finally:
                busy.release()
            self._tell(failures)
            self._forget_gone()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Ask nothing within. Wait for a thread that asks already, but at most for `waits.ASKING` seconds."""
        with native.held(self._lock(), waits.ASKING):
            yield

    def _tell(self, failures: list[Failure]) -> None:
        trouble = self._trouble()
        for asked, error in failures:
            message = f"{safe_repr(asked, str)}: raised {safe_repr(error)} when it was asked; its last answer stays"
            trouble.tell(logging.WARNING, message, error)

    def _lock(self) -> Any:
        """Return the lock under which this process asks.

        It is `threading`'s, so a greenlet can wait for another one that asks. The app may have put greenlets in the
        place of threads since the last call.
        """
        if not isinstance(self._busy, type(threading.RLock())):
            self._busy = threading.RLock()
        return self._busy

    def _notice_removals(self) -> None:
        store = stores.installed()
        if self.gauges and store is not None and store.is_open():
            store.part.look_for_marks()

    def _ask_gauges(self) -> list[Failure]:
        return [found for gauge in members(self.gauges) for found in self._try(gauge, partial(_ask, gauge))]

    def _ask_collectors(self) -> list[Failure]:
        pairs = list(self.publications.copy().items())
        return [found for collector, publication in pairs for found in self._try(collector, publication.sample)]

    def _try(self, asked: Any, action: Callable[[], None]) -> list[Failure]:
        """Run an action, and return its error; but only the first one, until the action works again where it failed.

        Some functions work in some threads only: in a request, with the event loop, with a thread's own connection.
        """
        here = native.get_ident()
        try:
            action()
        except BaseException as error:  # sys.exit() in a function must not end the flusher
            if is_for_caller(error):
                raise
            self._trouble().counts["app"] += 1
            is_known = id(asked) in self._failed
            self._failed.setdefault(id(asked), set()).add(here)
            return [] if is_known else [(asked, error)]
        if here in self._failed.get(id(asked), ()):
            del self._failed[id(asked)]
        return []

    def _forget_gone(self) -> None:
        if self._failed:
            there = {*map(id, members(self.gauges)), *map(id, self.publications.copy())}
            for gone in self._failed.keys() - there:
                self._failed.pop(gone, None)

    @staticmethod
    def _trouble() -> Trouble:
        store = stores.installed()
        return Trouble() if store is None else store.trouble


Failure = tuple[Any, BaseException]
sampler = Sampler()


def _ask_for(store: Opened) -> None:
    if store is stores.installed():
        sampler.ask()


flush.before_flush.append(_ask_for)
removal_listeners.append(sampler.dismiss)


def _ask(gauge: Any) -> None:
    (sample,) = gauge._child_samples()
    answering = gauge._value
    if not isinstance(answering, Answering) or gauge not in sampler.gauges:
        return  # the store was uninstalled meanwhile, or the gauge removed: the answer would bring the series back
    answering.value.set(sample.value, timestamp=exact.now())
    if gauge not in sampler.gauges:  # removed since the line before
        _give_back(answering.value._key)


def _give_back(key: Key | None) -> None:
    """Take a series out of scrapes again, unless another gauge with a function has it by now."""
    store = stores.installed()
    if store is None or key is None or any(_key_of(gauge) == key for gauge in members(sampler.gauges)):
        return
    with store.part.binding() as outermost:
        if outermost:
            store.part.give_back([key])
    store.flusher.wake()


def _key_of(gauge: Any) -> Key | None:
    answering = gauge._value
    return answering.value._key if isinstance(answering, Answering) else None


def set_function(self: Any, f: Callable[[], float]) -> None:
    """Replaces `Gauge.set_function`."""
    _peer_set_function(self, f)
    adopt(self)


def adopt(gauge: Any) -> None:
    """Ask a gauge from now on, if it has a function and its value is in the store."""
    if "_child_samples" in gauge.__dict__ and isinstance(gauge._value, (SharedValue, Answering)):
        if isinstance(gauge._value, SharedValue):
            gauge._value = Answering(gauge._value)
        sampler.gauges.add(gauge)
        begin()


def _yielded_by(collector: Any) -> tuple[Any, ...]:
    """Return what distinguishes one of `prometheus_client`'s own collectors from others of its class."""
    if isinstance(collector, ProcessCollector):
        return collector._namespace, collector._proc, collector._pid()
    return (collector._platform,) if isinstance(collector, PlatformCollector) else ()


def publish(collector: Any, multiprocess_mode: str = "liveall") -> None:
    """Publish a collector: each process copies its samples into the store, at every flush and before its own scrapes.

    Counters, summaries and histograms add up over all processes, like those of metrics. In the modes ``all`` and
    ``liveall``, scrapes show the counters of each process with its pid, like its gauges.

    collector: anything with a ``collect()``, such as `prometheus_client.PROCESS_COLLECTOR`. If it is in the default
        registry, the registry yields the store's samples of it from now on.
    multiprocess_mode: of its gauges, see `prometheus_client.Gauge`.

    A second call for the same collector changes its mode. Raises ValueError for an unknown mode, TypeError for an
    object that is no collector.
    """
    if multiprocess_mode not in MODES:
        raise ValueError(f"unknown multiprocess mode {multiprocess_mode!r}; it is one of {sorted(MODES)}")
    if not callable(getattr(collector, "collect", None)):
        raise TypeError(f"a collector has a method collect(); {collector!r} has none")
    try:
        before = sampler.publications.get(collector)
    except TypeError:
        raise TypeError(f"a collector can be in a registry and so has a hash; {collector!r} has none") from None
    sampler.publications[collector] = Publication(collector, multiprocess_mode)
    if before is not None:
        before.withdraw()  # else its gauges would stay for ever
    begin()


def unpublish(collector: Any) -> None:
    """Stop collecting from a collector in this process. Its gauges leave the scrapes; its counts stay."""
    publication = sampler.publications.pop(collector, None)
    if publication is not None:
        publication.withdraw()


def begin() -> None:
    """Wake the flusher, which asks, if there is a store and anything to ask."""
    store = stores.installed()
    if store is not None and sampler.is_needed():
        store.flusher.wake()


REPLACED: tuple[tuple[type, str, Any], ...] = ((Gauge, "set_function", set_function),)
"""(class, name, what it becomes)"""
