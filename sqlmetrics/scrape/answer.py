"""One answer to a scrape, whoever asks: a collector, a registry, or who writes the text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

from prometheus_client.metrics_core import Metric

from ..client import resets
from ..client.sampling import sampler
from ..store import installed as stores
from .reader import Finish, Reader
from .shown import Shown
from .wanted import Wanted, wanted

T = TypeVar("T")


def answer(reader: Reader, wanted: Wanted, finish: Finish[T]) -> T:
    """Scrape, note how long it took, and return what `finish` makes of the families.

    Raises NoStoreError, StoreError or apsw.Error.
    """
    if store := stores.installed_at(reader.path):
        store.flusher.start_again()
        store.come_along()
        resets.settle()
        sampler.ask()
    begun = time.perf_counter()
    figures = stores.figures(reader)
    own = figures.bring() if wanted.self_metrics else None
    result = reader.read(wanted, own=own, finish=finish)
    figures.took("scrape", time.perf_counter() - begun)
    if not stores.is_installed(reader.path):  # else the flusher does it
        reader.tell()
    return result


def metrics(reader: Reader, wanted: Wanted) -> list[Metric]:
    """The families as `prometheus_client` has them. Raises as `answer` does."""
    return answer(reader, wanted, lambda shown, _: list(map(as_metric, shown)))


def value(path: str, name: str, labels: Mapping[str, str]) -> float | None:
    """One value of the store at `path`; None if it is not shown. Raises as `answer` does."""
    for metric in metrics(stores.reader(path), wanted([name])):
        for sample in metric.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def as_metric(shown: Shown) -> Metric:
    """A family as `prometheus_client` has it."""
    family = shown.family
    metric = Metric(family.name, family.help, family.type, family.unit)
    metric.samples = shown.samples()
    return metric
