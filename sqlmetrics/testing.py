"""An empty store for a test, and afterwards what was before; see `sqlmetrics_pytest`, which makes fixtures of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import values as peers
from prometheus_client.metrics import MetricWrapperBase

from . import config
from .client import resets, takeover
from .client.held import bounds_of, flat, is_shared, is_state, values_of
from .client.private import is_private
from .client.sampling import sampler
from .names import SQLMetricsError, Store, StoreInUseError, install, private, publish, uninstall
from .process.weak import members
from .store import installed as stores

_SETTINGS = ("flush_interval", "process_identifier", "mode", "group", "keep_dead", "max_series")


class _Kept(NamedTuple):
    """The values of a metric or a child before a test. said: the label set or state of an Info or an Enum."""

    metric: Any
    values: list[float]
    said: Any


class _Before(NamedTuple):
    """The state before a test: the installed store, if any, the published collectors, and the values of metrics."""

    store: Store | None
    published: list[tuple[Any, str]]
    metrics: list[_Kept]


class Stores:
    """The store of a test run in one process. Each test gets it empty, because a process never closes a store for good.

    If a process of a test is still running, it keeps that store, and the next test gets another. folder: of the files.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._number = 0
        self._store: Store | None = None
        self._before = _Before(None, [], [])

    def empty(self) -> Store:
        """Return the store, installed and empty. Raises what `install` raises, and apsw.Error."""
        store = self._installed()
        while not _is_left_alone(store):
            self.put_back()
            self._number += 1
            store = self._installed()
        store.reset(force=True, keep_own=False)
        self._begin_anew()
        return store

    def _installed(self) -> Store:
        if self._store is None or stores.installed() is not self._store:
            self.put_back()
            self._before = _look()
            uninstall()
            self._store = install(self._folder / f"metrics-{self._number}.sqlite3")
            _publish(self._before)
        return self._store

    def _begin_anew(self) -> None:
        """Show what a process shows when it starts: metrics without labels at zero, and no label set."""
        said = {id(kept.metric): kept.said for kept in self._before.metrics}
        for metric in _metrics(members(resets.registries)):
            if metric._labelnames or not is_shared(metric):
                continue
            if is_state(metric):
                _say(metric, said.get(id(metric)))
            for bound in bounds_of(metric):
                bound._binder.attach(bound)  # type: ignore[attr-defined]

    def put_back(self) -> None:
        """Install what was installed before, if anything, and give metrics the values that they had."""
        ours, self._store = self._store, None
        installed = stores.installed()
        if ours is None or installed not in (ours, None):
            return  # a test has installed another, and keeps it
        if installed is ours:
            with contextlib.suppress(apsw.Error, OSError, SQLMetricsError):  # its files may be gone
                ours.reset(force=True, keep_own=False)
            uninstall()
        before, self._before = self._before, _Before(None, [], [])
        _put_back(before)


def empty_registry() -> CollectorRegistry:
    """Return a registry that shows its own metrics, which begin at zero. Raises RuntimeError if they would not."""
    if stores.installed() is None and peers.ValueClass is not peers.MutexValue:
        raise RuntimeError(
            "PROMETHEUS_MULTIPROC_DIR is set, so prometheus_client counts in files, where a metric goes on from the one"
            " that had its name before; unset the variable before pytest starts, or have the test ask for the fixture"
            " sqlmetrics_store first"
        )
    return private(CollectorRegistry())


def _is_left_alone(store: Store) -> bool:
    """Reset the store and return True; return False if another process uses it."""
    try:
        store.reset(force=False, keep_own=True)
    except (StoreInUseError, apsw.BusyError):
        return False
    return True


def _look() -> _Before:
    published = [(one, made.mode) for one, made in sampler.publications.items() if not made.of_process]
    metrics = _metrics(takeover.existing_registries())
    return _Before(stores.installed(), published, [_kept(one) for one in metrics if not is_private(one)])


def _metrics(registries: Iterable[CollectorRegistry]) -> Iterator[Any]:
    """Yield the metrics of registries, and their children."""
    for registry in registries:
        for metric in list(registry._collector_to_names):
            if isinstance(metric, MetricWrapperBase):
                yield metric
                yield from list(getattr(metric, "_metrics", {}).values())


def _kept(metric: Any) -> _Kept:
    said = getattr(metric, "_value", None) if is_state(metric) else None
    return _Kept(metric, [value.get() for value in flat(values_of(metric))], said)


def _say(metric: Any, said: Any) -> None:
    """Set an Info or an Enum to this label set or state; if it is empty or None, leave it as it was made."""
    metric._metric_init()
    if said:
        metric.info(said) if hasattr(metric, "info") else metric.state(metric._states[said])


def _put_back(before: _Before) -> None:
    for metric, _, said in before.metrics:
        if said is not None:
            metric._value = said
    if before.store is not None:
        _install_again(before.store)
    _publish(before)
    for metric, values, _ in before.metrics:
        if before.store is None or isinstance(metric, Gauge):  # what was counted, the store has
            for value, old in zip(flat(values_of(metric)), values, strict=False):
                if value.get() != old:
                    value.set(old)


def _publish(before: _Before) -> None:
    for collector, mode in before.published:
        publish(collector, mode)


def _install_again(store: Store) -> None:
    again = install(store.path, **{name: getattr(store.settings, name) for name in _SETTINGS})
    if os.environ.get(config.RUN_VARIABLE) == again.path:
        again.join_run()
