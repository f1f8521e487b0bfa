"""Resets by private attributes: what is gone from this process's objects, the process takes out of the store.

Test fixtures and reloaded modules empty ``REGISTRY._collector_to_names`` or a metric's ``_metrics``, call
``_metric_init()`` again, or unregister a metric and make another one of its name. In one process, the new one begins at
zero. So this process gives back the cells of the old one. Other processes keep what they have counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from prometheus_client import values
from prometheus_client.registry import CollectorRegistry

from ..cells.shape import Key
from ..process.weak import members
from ..store import flush
from ..store import installed as stores
from ..store.opened import Opened
from . import labelsets, sampling
from .binder import is_held
from .held import bounds_of, flat, is_shared, is_shared_value, values_of

registries: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()
"""The registries of this process."""
_registered: weakref.WeakKeyDictionary[CollectorRegistry, dict[str, weakref.ref[Any]]] = weakref.WeakKeyDictionary()
"""The metric that was registered last under each name, also after it was unregistered."""


def give_back(metrics: Iterable[Any]) -> None:
    """Give back the cells of metrics or children in this process. Code that still has one of them counts in memory."""
    keys = []
    for metric in metrics:
        bounds = bounds_of(metric)
        _into_memory(metric)
        if not _is_elsewhere(metric):
            keys += [bound._key for bound in bounds if bound._key is not None]
    _give_back(keys)


def keep_apart(child: Any) -> None:
    """Make a child count in memory, from 0, because another metric has replaced its metric in the registry."""
    if any(map(is_shared_value, values_of(child).values())):
        give_back([child])
        for value in flat(values_of(child)):
            value.set(0.0)  # it shared a cell with the child of the other metric


def begin_anew(metric: Any) -> None:
    """Give back the cells of a metric that is about to get new values."""
    if not _is_elsewhere(metric):
        _give_back([bound._key for bound in bounds_of(metric) if bound._key is not None])


def note_registered(registry: CollectorRegistry, metric: Any) -> None:
    """Make a metric begin at zero if the registry has had another one of its name, which was unregistered."""
    if not is_shared(metric):
        return
    names = _registered.setdefault(registry, {})
    last = names.get(metric._name)
    names[metric._name] = weakref.ref(metric)
    former = last() if last is not None else None
    if last is not None and former is not metric and not _is_elsewhere(metric):
        _supersede(former, metric)


def notice_missing(metric: Any) -> None:
    """Give back the cells of children that were taken out of this metric by hand."""
    if hasattr(metric, "_metrics") and (labelsets.is_missing_some(metric) or not hasattr(metric, "_known_children")):
        with metric._lock:
            gone = labelsets.missing(metric)
        if gone:
            give_back(gone)


def _notice(store: Opened) -> None:
    """Give back the cells of all children that were taken out of their metrics by hand. Raises nothing."""
    for metric in members(labelsets.parents) if store is stores.installed() else ():
        notice_missing(metric)


flush.before_flush.append(_notice)


def _supersede(former: Any, metric: Any) -> None:
    store, name = stores.installed(), metric._name
    if store is None:
        return
    if former is not None:
        former._superseded = True
        for one in [former, *getattr(former, "_metrics", {}).copy().values()]:
            _into_memory(one)
    of_name = store.part.children_of(name)
    _give_back([key for key in of_name if not sampling.sampler.publications or not is_held(key)])
    for bound in bounds_of(metric):  # scrapes show it at once, at zero
        bound._binder.attach(bound)  # type: ignore[attr-defined]


def _give_back(keys: list[Key]) -> None:
    store = stores.installed()
    if keys and store is not None:
        with store.part.binding() as outermost:
            if outermost:
                store.part.give_back(keys)
        sampling.sampler.dismiss(keys)
        store.rounds.given_back.extend(keys)
        store.flusher.wake()


def _into_memory(metric: Any) -> None:
    """Move the values of a metric from the store to this process's memory."""
    found = values_of(metric)
    if any(map(is_shared_value, flat(found))):
        new = {
            name: [_copy_of(one) for one in value] if name == "_buckets" else _copy_of(value)
            for name, value in found.items()
        }
        sampling.sampler.gauges.discard(metric)
        for name, copies in new.items():
            setattr(metric, name, copies)
    if hasattr(metric, "_said"):
        del metric._said


def _copy_of(value: Any) -> Any:
    copy: Any = values.MutexValue("", "", "", (), (), "")  # type: ignore[no-untyped-call]
    copy.set(value.get())
    if is_shared_value(value) and not isinstance(value, sampling.Answering):
        copy.set_exemplar(value.get_exemplar())
    return copy


def _is_elsewhere(metric: Any) -> bool:
    """Whether another metric of this name is in a registry: it counts in the same cells."""
    for registry in members(registries):
        other = registry._names_to_collectors.get(metric._name)
        if other is None or other is metric or getattr(other, "_name", None) != metric._name:
            continue
        if metric._labelvalues and getattr(other, "_metrics", {}).get(metric._labelvalues) in (None, metric):
            continue
        return True
    return False
