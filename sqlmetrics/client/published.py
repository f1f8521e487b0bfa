"""A published collector: each process asks it again and again, and sets values of the store to its samples."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from ..cells import exact
from ..cells.shape import EACH_MODES, Family, describe, keys_of
from ..store import installed as stores
from ..values import MultiProcessValue, SharedValue
from .binder import hold, is_held

_COUNTED = {"counter": ("_total",), "summary": ("_count", "_sum"), "histogram": ("_bucket", "_sum")}
"""By type that is added up over processes: the endings of the samples that the store keeps. A histogram's count is its
last bucket. Samples of other types become gauges."""


Labels = tuple[tuple[str, str], ...]


class Kept(NamedTuple):
    """Names the store's value for a sample of a collector."""

    type: str
    family: str
    name: str
    labels: Labels


_SETTLED_SECONDS = 1.0
"""A forked process asks collectors about itself after so long: a process for one short job should stay cheap."""


class Publication:
    """One published collector in one process.

    mode: of its gauges. of_process: whether the collector describes the process itself. first_asked: when this process
    may ask it first, in seconds of `time.monotonic`; infinite: never.
    """

    def __init__(self, collector: Any, mode: str, *, of_process: bool = False, first_asked: float = 0.0):
        self._collector = collector
        self.mode = mode
        self.of_process = of_process
        self._withdrawn = False
        self._first_asked = first_asked
        self._told: set[str] = set()
        self._forget()

    def is_of_children(self) -> bool:
        """Whether only forked processes ask the collector, and this one never does."""
        return self._first_asked == math.inf

    def after_fork_in_child(self) -> None:
        """Begin again without values: the present ones are the parent's."""
        self._first_asked = time.monotonic() + _SETTLED_SECONDS if self.of_process else 0.0
        self._forget()

    def _forget(self) -> None:
        self._class: type[SharedValue] | None = None
        self._values: dict[Kept, SharedValue] = {}

    def families(self) -> list[str]:
        """Return the names of the families that this process has of the collector."""
        return list(dict.fromkeys(kept.family for kept in list(self._values)))

    def tell_registered(self, registered: bool) -> None:
        """Note in the store whether the collector is in the default registry."""
        for family in {self._family(kept) for kept in list(self._values)}:
            describe(family, registered=registered)
            stores.default_store().part.describe(family)

    def sample(self) -> None:
        """Ask the collector, and set values of the store to its samples.

        Raises what the collector raises. If a sample is no number, raises that error after it has set all other values.
        """
        if time.monotonic() < self._first_asked:
            return
        now, problem = exact.now(), None
        found: dict[Kept, float] = {}
        helps: dict[str, str] = {}
        for metric in self._collector.collect():
            self._tell_of_native_histograms(metric)
            for kept, value in _samples(metric):
                try:
                    found[kept] = float(value)
                    helps[kept.family] = metric.documentation
                except Exception as error:  # a number of the app's own class may raise anything
                    problem = error
        if stores.installed() is None:  # the collector took long, or has uninstalled it
            return
        try:
            for kept, value in found.items():
                known = self._values.get(kept)
                if known is None:
                    known = self._values[kept] = self._make(kept, helps[kept.family])
                known.set(value, timestamp=now)
            self._give_back([kept for kept in list(self._values) if kept not in found])
        finally:
            if self._withdrawn:  # meanwhile
                self.withdraw()
        if problem is not None:
            raise problem

    def _tell_of_native_histograms(self, metric: Metric) -> None:
        """Warn once for each family that native histograms are not shown."""
        if metric.name not in self._told and any(map(_is_native, metric.samples)):
            self._told.add(metric.name)
            stores.default_store().trouble.remark(
                f"{exact.text(metric.name)}: a published collector yields a native histogram, which the store does not"
                " have; it is not shown, all else is"
            )

    def withdraw(self) -> None:
        """Take its gauges out of scrapes."""
        self._withdrawn = True
        # The dict stays the same: another thread that is asking adds to it, and then calls this once more.
        self._give_back(list(self._values))

    def _give_back(self, gone: list[Kept]) -> None:
        """Take those of these that are gauges out of scrapes. All others were counted, and stay."""
        for kept in gone:
            if kept.type == "gauge" and (value := self._values.pop(kept, None)) is not None:
                value._binder.give_back(value)

    def _family(self, kept: Kept) -> Family:
        by_mode = kept.type == "gauge" or (kept.type == "counter" and self.mode in EACH_MODES)
        return kept.family, kept.type, self.mode if by_mode else ""

    def _make(self, kept: Kept, help_text: str) -> SharedValue:
        if self._class is None:
            self._class = _value_class()
        family = self._family(kept)
        describe(family, overrules=True, help=help_text, registered=self._collector in REGISTRY._collector_to_names)
        labels = dict(sorted(kept.labels, key=lambda label: label[0] == "le"))  # a bucket's bound comes last
        is_others = any(not is_held(key) for key in keys_of(kept.family, kept.type, labels))
        names, values = tuple(labels), tuple(labels.values())
        value = self._class(kept.type, kept.family, kept.name, names, values, help_text, multiprocess_mode=family[2])
        if kept.type == "gauge" and not is_others:  # or it is a metric object's, which may go on using it
            hold(value)
        return value


def _value_class() -> type[SharedValue]:
    """Return a class for the values of one publication, which can be held, see `hold`."""

    class Value(MultiProcessValue(stores.default_store().settings.process_identifier)):  # type: ignore[misc]
        __slots__ = ("__weakref__",)

    return Value


def _is_native(sample: Sample) -> bool:
    """Whether a sample is a native histogram, which is no number."""
    return getattr(sample, "native_histogram", None) is not None


def _samples(metric: Metric) -> Iterator[tuple[Kept, Any]]:
    """Yield the names of the values that the store keeps of a family, and the values."""
    endings = _COUNTED.get(metric.type)
    buckets: dict[Labels, list[tuple[float, Labels, float]]] = {}
    for sample in metric.samples:
        if _is_native(sample):
            continue
        labels = tuple(sorted((exact.text(name), exact.text(value)) for name, value in sample.labels.items()))
        if endings is None:
            yield Kept("gauge", sample.name, sample.name, labels), sample.value
        elif sample.name == f"{metric.name}_bucket":
            others = tuple(label for label in labels if label[0] != "le")
            buckets.setdefault(others, []).append((float(sample.labels["le"]), labels, sample.value))
        elif sample.name.removeprefix(metric.name) in endings:
            yield Kept(metric.type, metric.name, sample.name, labels), sample.value
    for of_child in buckets.values():
        below = 0.0
        for _, labels, value in sorted(of_child):  # cells count each bucket by itself
            yield Kept(metric.type, metric.name, f"{metric.name}_bucket", labels), value - below
            below = value
