"""`install()`: all that is replaced in `prometheus_client`, listed in one table and undone by `uninstall()`.

Instrumentation libraries test `prometheus_client`'s environment variable themselves and import its names, some as
``from prometheus_client.multiprocess import …``. So the names in its modules are replaced. The methods of its collector
class are replaced, too, for code that has imported the class before.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY, exposition, multiprocess, values
from prometheus_client.registry import CollectorRegistry

from .. import config
from ..process import fork, native
from ..process.weak import members
from ..store import flush
from ..store import installed as stores
from ..store.notices import mark_process_dead
from ..store.store import Store
from ..values import MultiProcessValue, renew_lock
from . import (
    copies,
    info_enum,
    labelled,
    labelsets,
    operations,
    own_collectors,
    registry,
    resets,
    sampling,
    sharing,
    takeover,
)
from .collector import MultiProcessCollector
from .loading import maker
from .private import rule

_peer_registry_init = CollectorRegistry.__init__
_peer_class = multiprocess.MultiProcessCollector

_replaced: list[tuple[Any, str, Any, Any]] = []
"""(where, name, what it was, what it is): all that is replaced at the moment."""


def _registry_init(self: CollectorRegistry, *args: Any, **kwargs: Any) -> None:
    """Replaces `CollectorRegistry.__init__`: notes the registry, and where the app makes it.

    A fork renews the locks of the registries, and the place tells whether a registry is private.
    """
    _peer_registry_init(self, *args, **kwargs)
    takeover.know(resets.registries, self)
    rule.judge(self, maker(self, sys._getframe(1)))


flush.after_flush.append(labelsets.drop_removed)

_REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (values, "ValueClass", MultiProcessValue),
    (values, "MultiProcessValue", MultiProcessValue),
    (multiprocess, "MultiProcessCollector", MultiProcessCollector),
    (multiprocess, "mark_process_dead", mark_process_dead),
    *(
        (_peer_class, name, vars(MultiProcessCollector)[name])
        for name in ("__init__", "collect", "merge", "_read_metrics", "_accumulate_metrics")
    ),
    (CollectorRegistry, "__init__", _registry_init),
    (exposition, "make_wsgi_app", sharing.make_wsgi_app),
)
"""(where, name, what it becomes): the names that lead to `prometheus_client`'s files. `ValueClass` becomes a class that
`MultiProcessValue` makes."""
_METHODS = (*operations.REPLACED, *labelled.REPLACED, *info_enum.REPLACED, *sampling.REPLACED, *registry.REPLACED)
"""(class, name, what it becomes): the methods of its metrics and registries. With `_REPLACED` all that is replaced."""


class _PeerLocks(fork.ForkAware):
    """Renews `prometheus_client`'s locks in a child, where the threads that held them do not exist."""

    def after_fork_in_child(self) -> None:
        """Replace all locks, even those that look free: one may just have been handed to a thread that waited."""
        one: Any
        renew_lock()
        for one in members(labelsets.parents):
            one._lock = native.RLock()
        for one in members(resets.registries):
            one._lock = threading.RLock()  # a greenlet's where the app has greenlets, as collectors run with it held


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
    max_series: int | None = None,
) -> Store:
    """Switch `prometheus_client` to the store, in this process and in processes forked from it.

    Covers every metric of its classes, made by any code before or after this call. Takes over values counted so far.
    Never resets the store. A second call with the same arguments changes nothing.

    path: a file, or an existing folder (then ``metrics.sqlite3`` in it); default: ``SQLMETRICS_PATH``, else
        ``PROMETHEUS_MULTIPROC_DIR``.
    flush_interval: seconds between flushes of changed values to rows; default 1.0.
    process_identifier: a function that names this process, see `values.MultiProcessValue`; default `os.getpid`.
    mode, group: permission bits and group of the store's files; default 0o600 and the process's own.
    keep_dead: for how many ended processes the store keeps ``all`` gauges; default 1000.
    max_series: how many label sets a metric may have, over all processes. New ones beyond it count in one series
        with the label values ``(other)``; default: any number.

    ``SQLMETRICS_<NAME>``, if it is set, gives each keyword that you leave out.
    Raises PathError, StoreError (or a subclass), ValueError for a wrong setting, or InstallError: an earlier call had
    other arguments, or another interpreter of this process or another copy of this package has the store.
    """
    given = {
        "flush_interval": flush_interval,
        "process_identifier": process_identifier,
        "mode": mode,
        "group": group,
        "keep_dead": keep_dead,
        "max_series": max_series,
    }
    before = stores.installed()
    config.published()  # a wrong variable raises before anything is replaced
    copies.refuse_others(_replaced)
    store = stores.remember(stores.find(path), **{name: value for name, value in given.items() if value is not None})
    try:
        switch(store.settings.process_identifier)
        own_collectors.publish_configured()
    except BaseException:
        if before is None and stores.forget():
            store.leave()
        raise
    sampling.begin()
    return store


def switch(identify: Callable[[], object]) -> None:
    """Replace the names, so that metrics go to the default store; it is opened when the first value is made.

    All or nothing: if something raises, everything stays as it was.
    """
    if _replaced:
        return
    rule.begin()
    taken: list[takeover.Taken] = []
    copies.mark(_replaced)
    try:
        for where, name, replacement in (*_REPLACED, *_METHODS):
            _replace(where, name, MultiProcessValue(identify) if name == "ValueClass" else replacement)
        for each in takeover.existing_registries():
            sharing.settle_existing(each)
        takeover.to_store(taken)
        for one in list(REGISTRY._collector_to_names):
            registry.tell_registered(one, True)
    except BaseException:
        _restore()
        copies.unmark(_replaced)
        takeover.undo(taken)
        raise


def _replace(where: Any, name: str, new: Any) -> None:
    _replaced.append((where, name, where.__dict__[name], new))
    setattr(where, name, new)


def _restore() -> list[tuple[Any, str, Any]]:
    """Undo the replacements, except what somebody else has replaced since.

    Returns what was undone: (where, name, our replacement).
    """
    undone = []
    while _replaced:
        where, name, original, new = _replaced.pop()
        if where.__dict__.get(name) is new:
            setattr(where, name, original)
            undone.append((where, name, new))
    return undone


def uninstall() -> None:
    """Undo `install`. Metrics go on in the memory of their process, with the values that they have there.

    All or nothing: if something raises, everything stays as it was.
    """
    undone, taken = _restore(), list[takeover.Taken]()
    try:
        takeover.to_memory(taken)
    except BaseException:
        for where, name, new in reversed(undone):
            _replace(where, name, new)
        takeover.undo(taken)
        raise
    copies.unmark(_replaced)
    registry.reported.clear()
    with sampling.sampler.idle():  # an answer that comes later would open the store of the environment
        sampling.sampler.publications.clear()
        store = stores.forget()
    if store:
        store.leave()
