"""`install()`: all that is replaced in `prometheus_client`, listed in one table and undone by `uninstall()`.

Instrumentation libraries test the peer's environment variable themselves and import its names, some as
``from prometheus_client.multiprocess import …``. So the names in its modules are replaced, and the collector class
itself, for those who hold it already, is made to lead to ours.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Summary, multiprocess, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import CollectorRegistry

from .. import stores
from ..notices import mark_process_dead
from ..process import fork, native
from ..scrape.collector import MultiProcessCollector
from ..store import Store
from ..values import MultiProcessValue, SharedValue
from ..weak import members
from . import info_enum, labelled, operations, registry, sampling
from .buckets import Member, SharedBuckets

log = logging.getLogger("sqlmetrics")

_VALUES_OF: dict[type, Callable[[Any], dict[str, Any]]] = {
    Counter: lambda metric: {"_value": metric._value},
    Gauge: lambda metric: {"_value": metric._value},
    Summary: lambda metric: {"_count": metric._count, "_sum": metric._sum},
    Histogram: lambda metric: {"_sum": metric._sum, "_buckets": metric._buckets},
}
"""Where each metric class keeps its value objects."""

_peer_registry_init = CollectorRegistry.__init__
_peer_class = multiprocess.MultiProcessCollector

_registries: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()
_originals: list[tuple[Any, str, Any]] = []


def _registry_init(self: CollectorRegistry, *args: Any, **kwargs: Any) -> None:
    """`CollectorRegistry.__init__`, but the registry is known, so that its lock can be renewed after a fork."""
    _peer_registry_init(self, *args, **kwargs)
    _registries.add(self)


def _collector_init(self: Any, registry: Any, path: Any = None, **options: Any) -> None:
    """Make an instance of the peer's collector class collect from the store."""
    MultiProcessCollector.__init__(self, registry, path, **options)


_REPLACED: tuple[tuple[Any, str, Callable[[Callable[[], object]], Any]], ...] = (
    (values, "ValueClass", MultiProcessValue),
    (values, "MultiProcessValue", lambda _: MultiProcessValue),
    (multiprocess, "MultiProcessCollector", lambda _: MultiProcessCollector),
    (multiprocess, "mark_process_dead", lambda _: mark_process_dead),
    (_peer_class, "__init__", lambda _: _collector_init),
    (_peer_class, "collect", lambda _: MultiProcessCollector.collect),
    (_peer_class, "merge", lambda _: staticmethod(MultiProcessCollector.merge)),
    (CollectorRegistry, "__init__", lambda _: _registry_init),
)
"""(where, name, what it becomes): the names that lead to the peer's files."""
_METHODS = (*operations.REPLACED, *labelled.REPLACED, *info_enum.REPLACED, *sampling.REPLACED, *registry.REPLACED)
"""(class, name, what it becomes): the methods of its metrics and registries. With `_REPLACED` all that is replaced."""
_SHARED = (SharedValue, Member, sampling.Answering)


class _PeerLocks(fork.ForkAware):
    """Renews the peer's locks in a child, where the threads that held them do not exist."""

    def after_fork_in_child(self) -> None:
        """Replace the locks, also those that look free: one may have been on its way to a thread that waited."""
        one: Any
        for one in members(operations.parents):
            one._lock = native.RLock()
        for one in members(_registries):
            one._lock = threading.RLock()  # of the app's kind: collectors are asked while it is held


_peer_locks = _PeerLocks()
fork.register(_peer_locks)


def install(
    path: str | os.PathLike[str] | None = None,
    *,
    flush_interval: float | None = None,
    process_identifier: Callable[[], object] | None = None,
    mode: int | None = None,
    group: str | int | None = None,
    keep_dead: int | None = None,
) -> Store:
    """Switch `prometheus_client` to the store, in this process and in those that are forked from it.

    Covers every metric of its classes, whoever makes it, before or after this call; values counted so far are
    taken over. Never resets the store. A second call with the same arguments changes nothing.

    path: a file, or an existing folder (then ``metrics.sqlite3`` in it); default: ``SQLMETRICS_PATH``, else
        ``PROMETHEUS_MULTIPROC_DIR``.
    flush_interval: seconds between flushes of changed values to rows; default 1.0.
    process_identifier: names this process, see `values.MultiProcessValue`; default `os.getpid`.
    mode, group: permission bits and group of the store's files; default 0o600 and the process's own.
    keep_dead: how many ended processes' ``all`` gauges are remembered; default 1000.

    Each keyword that is not given is taken from ``SQLMETRICS_<NAME>``, if that is set.
    Raises PathError, StoreError (and what is derived from it), InstallError or ValueError.
    """
    given = {
        "flush_interval": flush_interval,
        "process_identifier": process_identifier,
        "mode": mode,
        "group": group,
        "keep_dead": keep_dead,
    }
    store = stores.remember(stores.find(path), **{name: value for name, value in given.items() if value is not None})
    switch(store.settings.process_identifier)
    sampling.begin()
    return store


def switch(identify: Callable[[], object]) -> None:
    """Replace the names, so that metrics go to the default store; it is opened when the first value is made."""
    if not _originals:
        for where, name, replacement in _REPLACED:
            _replace(where, name, replacement(identify))
        for where, name, replacement in _METHODS:
            _replace(where, name, replacement)
        _take_over(lambda value: not isinstance(value, _SHARED), "the store was installed")
        registry.tell_all_registered()


def _replace(where: Any, name: str, new: Any) -> None:
    _originals.append((where, name, where.__dict__[name]))
    setattr(where, name, new)


def uninstall() -> None:
    """Undo `install`: metrics go on in the memory of their process, with the values they have in it."""
    while _originals:
        setattr(*_originals.pop())
    _take_over(lambda value: isinstance(value, _SHARED), "the store was uninstalled")
    sampling.sampler.publications.clear()
    if store := stores.forget():
        store.leave()


def _take_over(is_foreign: Callable[[Any], bool], when: str) -> None:
    """Give every metric that exists value objects of the class in force, with the values they had."""
    taken = sum(_convert(metric, is_foreign) for metric in _all_metrics())
    if taken:
        log.info("took over %d metrics that existed before %s", taken, when)


def _all_metrics() -> Iterable[Any]:
    """Every metric object of this process, in a registry or not; a scan, as nothing else knows them all."""
    gc.collect()  # what nobody uses any more is not taken over
    for thing in _instances(MetricWrapperBase, CollectorRegistry):
        if isinstance(thing, CollectorRegistry):
            _registries.add(thing)
        elif thing._is_parent():
            operations.parents.add(thing)
        else:
            yield thing


def _instances(*classes: type) -> list[Any]:
    """All objects of these classes and of those derived from them.

    Asked for by what refers to a class, and not picked from ``gc.get_objects()``: that has tuples in it that another
    thread is building, which CPython cannot finish once somebody else has hold of them (SystemError).
    """
    wanted = {one for cls in classes for one in _family_of(cls)}
    # By type(): isinstance() would ask proxies such as Flask's for their __class__.
    return [thing for thing in gc.get_referrers(*wanted) if type(thing) in wanted]


def _family_of(cls: type) -> Iterable[type]:
    derived: list[type] = cls.__subclasses__()
    yield cls
    for one in derived:
        yield from _family_of(one)


def _convert(metric: Any, is_foreign: Callable[[Any], bool]) -> bool:
    values_of = next((_VALUES_OF[cls] for cls in type(metric).__mro__ if cls in _VALUES_OF), None)
    if values_of is None:
        return info_enum.convert(metric)
    old = values_of(metric)
    if not any(is_foreign(value) for value in _flat(old)):
        return False
    twin = copy.copy(metric)
    twin._metric_init()
    new = values_of(twin)
    carry = _carry_gauge if isinstance(metric, Gauge) else _carry_sum
    if carry is _carry_sum:  # what other threads count meanwhile goes into the new values already
        metric.__dict__.update(new)
    for before, after in zip(_flat(old), _flat(new), strict=True):
        carry(before, after)
    metric.__dict__.update(new)
    sampling.adopt(metric)
    return True


def _flat(found: dict[str, Any]) -> list[Any]:
    return [value for item in found.values() for value in (item if isinstance(item, (list, SharedBuckets)) else [item])]


def _carry_gauge(before: Any, after: Any) -> None:
    if amount := before.get():
        # Of what was in a mmap file the time is known; in memory there was none, and 0 would hide it in the scrapes.
        after.set(amount, getattr(before, "_timestamp", time.time()))


def _carry_sum(before: Any, after: Any) -> None:
    if amount := before.get():
        after.inc(amount)
    if exemplar := before.get_exemplar():
        after.set_exemplar(exemplar)
