"""`MultiProcessCollector`: the totals of a store as `prometheus_client`'s metric families."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import RestrictedRegistry

from ..errors import NoStoreError
from ..rows.database import found_at
from ..scrape.wanted import wanted
from ..store import installed as stores


class MultiProcessCollector:
    """Collects what all processes of a store have counted, like the class in `prometheus_client.multiprocess`.

    registry: where it registers itself, or None. With a restricted registry
        (``registry.restricted_registry(names)``) it queries only those samples.
    path: the store's file or folder; default: the installed store, else what the environment names. The folder of
        ``PROMETHEUS_MULTIPROC_DIR`` means the same as no path.
    self_metrics: whether to collect the families about the store itself (``sqlmetrics_…``), too; default: what
        ``SQLMETRICS_SELF_METRICS`` says.
    created: whether counters, summaries and histograms have ``_created`` samples: when the first process made them.
    modes: by the name of a gauge, the multiprocess mode to show it in, instead of the app's mode;
        default: what ``SQLMETRICS_MODES`` says. See `wanted.Wanted.mode_of` for what is possible.

    Raises PathError if nothing names a path, and NoStoreError if there is no store; both are ValueErrors. Raises
    ValueError for an unknown mode.
    """

    def __init__(
        self,
        registry: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        self_metrics: bool | None = None,
        created: bool = False,
        modes: Mapping[str, str] | None = None,
    ):
        self._reader = stores.reader(stores.meant(path))
        self._path = os.path.dirname(self._reader.path)  # where derived classes look for files, and find none
        self._wanted = wanted(created=created, self_metrics=self_metrics, modes=modes)
        if found_at(self._reader.path) is None and not stores.is_installed(self._reader.path):
            raise NoStoreError(f"no store at {self._reader.path!r}; is the app running with that path?")
        if isinstance(registry, RestrictedRegistry):
            self._wanted = replace(self._wanted, names=frozenset(registry._name_set))
            _register_without_names(registry._registry, self)
        elif registry:
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the families of the store, with the totals of this moment. Raises NoStoreError, StoreError.

        Calls `merge` if a derived class, or the app, has replaced it.
        """
        if _is_own(self, "merge"):
            return self.merge(StoreFiles(self), accumulate=True)
        return MultiProcessCollector.collect_named(self, None)

    def collect_named(self, names: frozenset[str] | None) -> list[Metric]:
        """Return the families with only the samples of these names; None: as the constructor's arguments say."""
        if "_reader" not in self.__dict__:  # an instance of `prometheus_client`'s class, from before `install`
            MultiProcessCollector.__init__(self, None)
        return stores.metrics(self._reader, self._wanted if names is None else replace(self._wanted, names=names))

    @staticmethod
    def merge(files: Iterable[str], accumulate: bool = True) -> Iterable[Metric]:
        """Return the families of the store, for subclasses that change what it yields.

        files: what a collector has passed to its own `merge`. Anything else means the store in use, because there are
            no files per process. accumulate: must be True; False raises NotImplementedError.
        Raises PathError, NoStoreError, StoreError.
        """
        families = MultiProcessCollector._read_metrics(files)
        return MultiProcessCollector._accumulate_metrics(families, accumulate)

    @staticmethod
    def _read_metrics(files: Iterable[str]) -> dict[str, Metric]:
        """Return the families of a store, with the totals of all processes, by name (and type, if two share a name)."""
        collector = files.collector if isinstance(files, StoreFiles) else MultiProcessCollector(None)
        found: dict[str, Metric] = {}
        for metric in MultiProcessCollector.collect_named(collector, None):
            found[metric.name if metric.name not in found else f"{metric.name} {metric.type}"] = metric
        return found

    @staticmethod
    def _accumulate_metrics(metrics: dict[str, Metric], accumulate: bool = True) -> Iterable[Metric]:
        """Return the families as a list. Raises NotImplementedError for accumulate=False."""
        if not accumulate:
            raise NotImplementedError(
                "sqlmetrics keeps all processes in one SQLite store: there are no mmap files to write merged values to,"
                " so merge() has no accumulate=False"
            )
        return list(metrics.values())


class StoreFiles(list[str]):
    """What a collector passes to `merge` in place of the files of all processes: a list with the store's path."""

    def __init__(self, collector: MultiProcessCollector):
        super().__init__()
        self.collector = collector
        if "_reader" in collector.__dict__:
            self.append(collector._reader.path)


_OURS = {name: vars(MultiProcessCollector)[name] for name in ("collect", "merge")}


def _is_own(collector: object, name: str) -> bool:
    """Whether a collector has a method of this name that is not ours."""
    found = next((vars(cls)[name] for cls in type(collector).__mro__ if name in vars(cls)), None)
    return name in vars(collector) or function_of(found) is not function_of(_OURS[name])


def function_of(method: Any) -> Any:
    """Return the plain function of a method."""
    return getattr(method, "__func__", method)


def is_derived(collector: object) -> bool:
    """Whether a collector of a store has its own `collect` or `merge`, and so may change what it yields."""
    return any(_is_own(collector, name) for name in _OURS)


def _register_without_names(registry: Any, collector: MultiProcessCollector) -> None:
    """Register a collector so that restricted registries ask it, which they do for collectors without names."""
    registry.register(collector)
    if collector not in registry._collectors_without_names:
        registry._collectors_without_names.append(collector)
