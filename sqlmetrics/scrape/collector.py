"""The collector: the store's aggregate as `prometheus_client` metric families."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import RestrictedRegistry

from .. import stores
from ..errors import NoStoreError
from ..rows.database import file_identity
from .answer import metrics
from .wanted import wanted


class MultiProcessCollector:
    """Collects what all processes of a store have counted, as `prometheus_client.multiprocess` does.

    registry: where it registers itself, or None. With a restricted registry
        (``registry.restricted_registry(names)``) only those samples are queried.
    path: the store's file or folder; default: the installed store, else what the environment names. The folder of
        ``PROMETHEUS_MULTIPROC_DIR`` means the same as no path.
    self_metrics: whether the families about the store itself (``sqlmetrics_…``) are collected too.
    created: whether counters, summaries and histograms have ``_created`` samples: when the first process made them.
    modes: the multiprocess mode in which a gauge is shown, by its name, where it is to be another than the app's;
        default: what ``SQLMETRICS_MODES`` says. See `wanted.Wanted.mode_of` for what is possible.

    Raises PathError if no path is named and NoStoreError if no store is there, both are ValueErrors; ValueError for a
    mode that there is not.
    """

    def __init__(
        self,
        registry: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        self_metrics: bool = False,
        created: bool = False,
        modes: Mapping[str, str] | None = None,
    ):
        self._reader = stores.reader(stores.meant(path))
        self._wanted = wanted(created=created, self_metrics=self_metrics, modes=modes)
        if file_identity(self._reader.path) is None and not stores.is_installed(self._reader.path):
            raise NoStoreError(
                f"no store at {self._reader.path!r}; is the app that calls sqlmetrics.install() running with that path?"
            )
        if isinstance(registry, RestrictedRegistry):
            self._wanted = replace(self._wanted, names=frozenset(registry._name_set))
            _register_without_names(registry._registry, self)
        elif registry:
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the families of the store, aggregated at this moment. Raises NoStoreError, StoreError."""
        return MultiProcessCollector.collect_named(self, None)

    def collect_named(self, names: frozenset[str] | None) -> list[Metric]:
        """The same, but of the samples of these names only (None: as it was told when it was made)."""
        if "_reader" not in self.__dict__:  # of the peer's class, and made before it was replaced
            MultiProcessCollector.__init__(self, None)
        return metrics(self._reader, self._wanted if names is None else replace(self._wanted, names=names))

    @staticmethod
    def merge(files: object, accumulate: bool = True) -> NoReturn:
        """Not offered: there are no files per process here. Raises NotImplementedError."""
        raise NotImplementedError(
            "sqlmetrics keeps all processes in one SQLite store: there are no mmap files to merge;"
            " MultiProcessCollector(None, path).collect() gives the merged families"
        )


def _register_without_names(registry: Any, collector: MultiProcessCollector) -> None:
    """A restricted registry asks only collectors that are known by name, or kept among those without names."""
    registry.register(collector)
    if collector not in registry._collectors_without_names:
        registry._collectors_without_names.append(collector)
