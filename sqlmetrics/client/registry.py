"""Makes registries yield what all processes have counted: for each registered metric, the totals of the store.

One scrape of the store answers for all metrics of a registry. The default registry also yields metrics that are in the
default registry of other processes, whether or not this process has imported their modules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from prometheus_client import REGISTRY, metrics
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry, RestrictedRegistry

from ..cells.shape import describe, family_of
from ..scrape.wanted import wanted
from ..store import installed as stores
from . import resets, sharing
from .collector import MultiProcessCollector, is_derived
from .held import is_shared
from .loading import is_pushed
from .private import is_private, rule
from .sampling import sampler, unpublish
from .sharing import is_of_store

_peer_get_names: Any = CollectorRegistry._get_names
_peer_register = CollectorRegistry.register
_peer_unregister = CollectorRegistry.unregister

_collect_named: Any = MultiProcessCollector.collect_named
_SUFFIXES = ("", "_total", "_created", "_sum", "_count", "_bucket", "_info")
_CREATED = "_created"
reported: dict[Any, None] = {}
"""The collectors of which the store knows that they are in the default registry."""


def tell_registered(collector: Any, registered: bool) -> None:
    """Note in the store whether a metric, or a published collector, is in the default registry."""
    reported.pop(collector, None)
    if registered:
        reported[collector] = None
    if publication := sampler.publications.get(collector):
        publication.tell_registered(registered)
    elif is_shared(collector):
        describe(family_of(collector), help=collector._documentation, registered=registered)
        store = stores.installed()
        if store is not None:
            store.part.describe(family_of(collector))


def notice_cleared() -> None:
    """Note in the store what has left the default registry without `unregister`."""
    for collector in [one for one in list(reported) if one not in REGISTRY._collector_to_names]:
        tell_registered(collector, False)


def get_names(self: CollectorRegistry, collector: Any) -> list[str]:
    """Replaces `CollectorRegistry._get_names`: a collector of a store clashes with no other, see `_of_stores`."""
    return [] if is_of_store(collector) else _peer_get_names(self, collector)


def register(self: CollectorRegistry, collector: Any) -> None:
    """Replaces `CollectorRegistry.register`."""
    _peer_register(self, collector)
    if is_of_store(collector):
        sharing.share(self)
    else:
        sharing.take(self, collector)
    if self is REGISTRY:
        notice_cleared()
    resets.note_registered(self, collector)
    if self is REGISTRY:
        tell_registered(collector, True)


def unregister(self: CollectorRegistry, collector: Any) -> None:
    """Replaces `CollectorRegistry.unregister`."""
    _peer_unregister(self, collector)
    if self is REGISTRY:
        tell_registered(collector, False)
        if collector in sampler.publications and sampler.publications[collector].of_process:
            unpublish(collector)  # it was published only because the default registry had it


def collect(self: CollectorRegistry) -> Iterator[Metric]:
    """Replaces `CollectorRegistry.collect`."""
    with self._lock:
        collectors = list(self._collector_to_names)
        target = self._target_info_metric() if self._target_info else None  # type: ignore[no-untyped-call]
    if target:
        yield target
    yield from _all_of(self, collectors, None)


def restricted_collect(self: RestrictedRegistry) -> Iterator[Metric]:
    """Replaces `RestrictedRegistry.collect`: the names restrict the query, and collectors of stores are asked, too."""
    registry, names = self._registry, frozenset(self._name_set)
    with registry._lock:
        is_targeted = "target_info" in names and registry._target_info
        target = registry._target_info_metric() if is_targeted else None  # type: ignore[no-untyped-call]
        named = {c for name, c in registry._names_to_collectors.items() if name in names - {"target_info"}}
        nameless = {*registry._collectors_without_names}
        collectors = [c for c in registry._collector_to_names if c in named or c in nameless or is_of_store(c)]
    if target:
        yield target
    for metric in _all_of(registry, collectors, names):
        if restricted := metric._restricted_metric(names):  # type: ignore[no-untyped-call]
            yield restricted


def _all_of(registry: CollectorRegistry, collectors: list[Any], names: frozenset[str] | None) -> Iterator[Metric]:
    if registry is REGISTRY:
        notice_cleared()
    of_stores = [one for one in collectors if is_of_store(one)]
    if registry is not REGISTRY and not of_stores and rule.setting != "all" and is_pushed(sys._getframe()):
        shared: set[Any] = set()  # a process pushes only its own counts
    else:
        shared = {one for one in collectors if is_shared(one) or sampler.publication_of(one)}
        rule.tell_asked(registry)
    asked = _ask_others(collectors, shared)  # before the store is read, as they may count, or set gauges
    found = _shared_families(names) if shared or registry is REGISTRY else None
    seen: set[str] = set()
    for collector in [one for one in collectors if not is_of_store(one)]:
        if collector in shared:
            metrics = _own_families(registry, collector, found, seen)
        else:
            metrics = asked[collector] if collector in asked else list(collector.collect())
        seen.update(metric.name for metric in metrics)
        yield from metrics
    others = [name for name in found or () if registry is REGISTRY and name not in seen]
    for name in others:
        metrics = [metric for metric, registered in found[name] if registered]  # type: ignore[index]
        seen.update(metric.name for metric in metrics)
        yield from metrics
    if of_stores:
        rule.tell_left_out()
    yield from _of_stores(of_stores, names, seen)


def _ask_others(collectors: list[Any], shared: set[Any]) -> dict[Any, list[Metric]]:
    """Return what each of the app's own collectors yields. Raises what they raise."""
    rest = [one for one in collectors if one not in shared and not is_of_store(one)]
    return {one: list(one.collect()) for one in rest if not is_private(one) and not is_shared(one)}


def _of_stores(collectors: list[Any], names: frozenset[str] | None, seen: set[str]) -> Iterator[Metric]:
    """Yield what collectors of stores add. seen: family names of the installed store that were yielded already."""
    of_store: dict[str, set[str]] = {}
    for collector in collectors:
        families = list(collector.collect()) if is_derived(collector) else _collect_named(collector, _widened(names))
        path = collector._reader.path
        known = of_store.setdefault(path, set(seen) if stores.is_installed(path) else set())
        fresh = [metric for metric in families if metric.name not in known]
        known.update(metric.name for metric in fresh)
        yield from fresh


Families = dict[str, list[tuple[Metric, bool]]]
"""The families of each name, and whether each is in the default registry of a process."""


def _own_families(registry: CollectorRegistry, collector: Any, found: Families | None, seen: set[str]) -> list[Metric]:
    """Return the store's families of a metric or a published collector; of the latter, only those not in `seen`."""
    if found is None:  # there is no store yet: the values are in this process's memory
        return list(collector.collect())
    if publication := sampler.publication_of(collector):
        fresh = [name for name in publication.families() if name not in seen]
        return [one for name in fresh for one, _ in found.get(name, ())]
    families = [
        _as_in_memory(collector, one)
        for one, registered in found.get(collector._name, ())
        if one.type == collector._type or (registered and registry is REGISTRY)
    ]
    return families or [collector._get_metric()]


def _as_in_memory(collector: Any, metric: Metric) -> Metric:
    """Leave out the sum of a histogram with negative bounds, as `prometheus_client` does, because it may go down."""
    if metric.type == "histogram" and getattr(collector, "_upper_bounds", [0])[0] < 0:
        metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_sum")]
    return metric


def _shared_families(names: frozenset[str] | None) -> Families | None:
    """Return the families of the installed store; None while it cannot be opened. Raises StoreError or apsw.Error."""
    store = stores.installed()
    if store is None or not store.is_open():
        return None
    asked = replace(wanted(_widened(names), created=metrics._use_created), unset=True)
    families: Families = {}
    for shown, metric in stores.scrape(
        stores.reader(store.path), asked, lambda found, _: [(one, one.metric()) for one in found]
    ):
        families.setdefault(metric.name, []).append((metric, bool(shown.family.registered)))
    return families


def _widened(names: frozenset[str] | None) -> frozenset[str] | None:
    """Add the names of the samples from which ``_created`` samples are made."""
    if names is None:
        return None
    bases = [name.removesuffix(_CREATED) for name in names if name.endswith(_CREATED)]
    return names.union(base + suffix for base in bases for suffix in _SUFFIXES)


REPLACED: tuple[tuple[type, str, Any], ...] = (
    (CollectorRegistry, "_get_names", get_names),
    (CollectorRegistry, "register", register),
    (CollectorRegistry, "unregister", unregister),
    (CollectorRegistry, "collect", collect),
    (RestrictedRegistry, "collect", restricted_collect),
)
"""(class, name, what it becomes)"""
