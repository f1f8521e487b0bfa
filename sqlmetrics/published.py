"""A collector whose samples are values of the store, set anew each time it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric

from . import stores
from .shape import EACH_MODES, describe
from .values import MultiProcessValue, SharedValue

_COUNTED = {"counter": ("_total",), "summary": ("_count", "_sum"), "histogram": ("_bucket", "_sum")}
"""Types that are added up over processes, and the endings of the samples that they keep; a histogram's count is its
last bucket. Anything else is shown as a gauge."""


class Kept(NamedTuple):
    """Which value of the store a sample is."""

    type: str
    family: str
    name: str
    labels: tuple[tuple[str, str], ...]


class Publication:
    """What one process makes of one collector."""

    def __init__(self, collector: Any, mode: str):
        self._collector = collector
        self._mode = mode
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child: the values are its parent's."""
        self._class: type[SharedValue] | None = None
        self._values: dict[Kept, SharedValue] = {}

    def families(self) -> list[str]:
        """The names of the families that it has made."""
        return list(dict.fromkeys(kept.family for kept in self._values))

    def sample(self) -> None:
        """Ask the collector. Raises what it raises."""
        now = time.time()
        found: dict[Kept, float] = {}
        helps: dict[str, str] = {}
        for metric in self._collector.collect():
            for kept, value in self._samples(metric):
                found[kept] = value
                helps[kept.family] = metric.documentation
        for kept, value in found.items():
            if kept not in self._values:
                self._values[kept] = self._make(kept, helps[kept.family])
            self._values[kept].set(value, timestamp=now)
        for gone in [kept for kept in self._values if kept not in found and kept.type == "gauge"]:
            self._values.pop(gone).release()

    def withdraw(self) -> None:
        """Have its gauges leave the scrapes."""
        for kept, value in self._values.items():
            if kept.type == "gauge":
                value.release()
        self._values = {}

    def _samples(self, metric: Metric) -> Iterator[tuple[Kept, float]]:
        endings = _COUNTED.get(metric.type)
        below: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in metric.samples:
            labels = tuple(sorted((str(name), str(value)) for name, value in sample.labels.items()))
            if endings is None:
                yield Kept("gauge", sample.name, sample.name, labels), sample.value
            elif sample.name.removeprefix(metric.name) in endings:
                value = sample.value
                if sample.name.endswith("_bucket"):  # cells count each bucket by itself
                    others = tuple(label for label in labels if label[0] != "le")
                    value, below[others] = value - below.get(others, 0.0), value
                yield Kept(metric.type, metric.name, sample.name, labels), value

    def _make(self, kept: Kept, help_text: str) -> SharedValue:
        mode = self._mode if kept.type == "gauge" or (kept.type == "counter" and self._mode in EACH_MODES) else ""
        if self._class is None:
            self._class = MultiProcessValue(stores.default_store().settings.process_identifier)
        registered = self._collector in REGISTRY._collector_to_names
        describe((kept.family, kept.type, mode), help=help_text, registered=registered)
        labels = dict(sorted(kept.labels, key=lambda label: label[0] == "le"))  # a bucket's bound comes last
        names, values = tuple(labels), tuple(labels.values())
        return self._class(kept.type, kept.family, kept.name, names, values, help_text, multiprocess_mode=mode)
