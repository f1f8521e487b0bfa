"""The collector: the store's aggregate as `prometheus_client` metric families."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import RestrictedRegistry

from . import stores
from .database import file_identity
from .errors import NoStoreError
from .scrape import Shown


class MultiProcessCollector:
    """Collects what all processes of a store have counted, as `prometheus_client.multiprocess` does.

    registry: where it registers itself, or None. With a restricted registry
        (``registry.restricted_registry(names)``) only those samples are queried.
    path: the store's file or folder; default: the installed store, else what the environment names.
    self_metrics: whether the families about the store itself (``sqlmetrics_…``) are collected too.

    Raises PathError if no path is named and NoStoreError if no store is there; both are ValueErrors.
    """

    def __init__(self, registry: Any, path: str | os.PathLike[str] | None = None, *, self_metrics: bool = False):
        self._reader = stores.reader(path)
        self._self_metrics = self_metrics
        self._names: frozenset[str] | None = None
        if file_identity(self._reader.path) is None and not stores.is_installed(self._reader.path):
            raise NoStoreError(
                f"no store at {self._reader.path!r}; is the app that calls sqlmetrics.install() running with that path?"
            )
        if isinstance(registry, RestrictedRegistry):
            self._names = frozenset(registry._name_set)
            _register_without_names(registry._registry, self)
        elif registry:
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the families of the store, aggregated at this moment. Raises NoStoreError, StoreError."""
        begun = time.perf_counter()
        figures = stores.figures(self._reader)
        own = figures.bring() if self._self_metrics else None
        metrics = self._reader.read(self._names, own=own, finish=lambda shown, _: list(map(_metric, shown)))
        figures.took("scrape", time.perf_counter() - begun)
        return metrics

    @staticmethod
    def merge(files: object, accumulate: bool = True) -> NoReturn:
        """Not offered: there are no files per process here. Raises NotImplementedError."""
        raise NotImplementedError(
            "sqlmetrics keeps all processes in one SQLite store: there are no mmap files to merge;"
            " MultiProcessCollector(None, path).collect() gives the merged families"
        )


def _metric(shown: Shown) -> Metric:
    metric = Metric(shown.family.name, shown.family.help, shown.family.type)
    metric.samples = shown.samples()
    return metric


def _register_without_names(registry: Any, collector: MultiProcessCollector) -> None:
    """A restricted registry asks only collectors that are known by name, or kept among those without names."""
    registry.register(collector)
    if collector not in registry._collectors_without_names:
        registry._collectors_without_names.append(collector)
