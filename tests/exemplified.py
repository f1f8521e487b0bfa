"""An app whose operations have exemplars, and what scrapes show of them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.samples import Exemplar

import sqlmetrics


def registry(path: str | None = None) -> CollectorRegistry:
    """A registry that shows the store."""
    one = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(one, path)
    return one


def shown(path: str | None = None) -> dict[str, Exemplar]:
    """{the label `who`, else the bound, else the sample's name: exemplar}, as a scrape shows them."""
    samples = [sample for metric in registry(path).collect() for sample in metric.samples if sample.exemplar]
    return {sample.labels.get("who") or sample.labels.get("le") or sample.name: sample.exemplar for sample in samples}


def traces(path: str | None = None) -> dict[str, str]:
    """The same, but only what the label `trace` of each exemplar says."""
    return {name: exemplar.labels["trace"] for name, exemplar in shown(path).items()}


class App:
    """A counter and a histogram whose operations have exemplars."""

    def __init__(self) -> None:
        self.requests = Counter("requests", "Requests", ["who"], registry=None)
        self.latency = Histogram("latency", "Latency", buckets=(1, 2), registry=None)

    def count(self, who: str, trace: str, amount: float = 1) -> None:
        """Count once."""
        self.requests.labels(who).inc(amount, {"trace": trace})

    def observe(self, seconds: float, trace: str) -> None:
        """Observe once."""
        self.latency.observe(seconds, {"trace": trace})


def quiet(path: str, **settings: object) -> sqlmetrics.Store:
    """A store that is flushed when a test says so."""
    return sqlmetrics.install(path, flush_interval=1000, **settings)  # type: ignore[arg-type]


def stop_flusher(store: sqlmetrics.Store) -> Callable[[], None]:
    """A step of a child: no thread of its own flushes from now on."""
    return lambda: store.flusher.stop() and None
