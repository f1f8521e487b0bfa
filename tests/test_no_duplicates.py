"""A registry that has metrics and a collector yields each sample once."""

from __future__ import annotations

import prometheus_client
from helpers import ask, names_of
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import sqlmetrics


def test_a_collector_in_the_registry_of_metrics_yields_each_sample_once(store: sqlmetrics.Store) -> None:
    """The peer shows what its registry yields twice; ours leaves out what is there already."""
    Counter("events", "Events").inc()
    Counter("private", "Of another registry", registry=CollectorRegistry()).inc()
    collector = sqlmetrics.MultiProcessCollector(REGISTRY)
    try:
        names = names_of(REGISTRY)

        assert names.count("events_total") == 1
        assert names.count("private_total") == 1
    finally:
        REGISTRY.unregister(collector)


def test_a_family_of_a_custom_collector_hides_the_stores(store: sqlmetrics.Store) -> None:
    """Also where only collecting it tells its names."""

    class Custom(Collector):
        def collect(self):
            yield GaugeMetricFamily("level", "Level", value=7)

    Gauge("level", "Level", registry=None, multiprocess_mode="sum").set(1)
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)
    registry.register(Custom())

    assert names_of(registry).count("level") == 1
    assert ask(registry, "level") == 7


def test_two_collectors_in_one_registry_yield_each_sample_once(store: sqlmetrics.Store) -> None:
    """As a library and its app may both register one."""
    Counter("events", "Events", registry=None).inc()
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)
    prometheus_client.multiprocess.MultiProcessCollector(registry)

    assert names_of(registry) == ["events_total"]
