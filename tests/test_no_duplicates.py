"""A registry that has metrics and a collector yields each sample once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest
from helpers import ask, child, names_of
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import sqlmetrics

pytestmark = pytest.mark.promise(12)


def test_a_collector_in_the_registry_of_metrics_yields_each_sample_once(store: sqlmetrics.Store) -> None:
    """The peer shows what its registry yields twice; ours leaves out what is there already."""
    Counter("events", "Events").inc()
    Counter("private", "Of no registry", registry=None).inc()
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


def test_a_family_that_only_others_have_is_yielded_once(store: sqlmetrics.Store) -> None:
    """By the default registry, and by a collector in it."""

    def count() -> None:
        Counter("elsewhere", "Of another process").inc()

    collector = sqlmetrics.MultiProcessCollector(REGISTRY)
    try:
        with child(count=count) as one:
            one.do("count")

            assert names_of(REGISTRY).count("elsewhere_total") == 1
            assert names_of(REGISTRY.restricted_registry(["elsewhere_total"])) == ["elsewhere_total"]
    finally:
        REGISTRY.unregister(collector)


def test_collectors_of_two_stores_both_yield(store: sqlmetrics.Store, folder: Path) -> None:
    """Only what is of one store is left out the second time."""
    other = str(folder / "other.sqlite3")
    subprocess.run([sys.executable, "-c", _OTHER_APP, other], check=True, timeout=60)
    Counter("events", "Events", ["of"], registry=None).labels("this").inc()
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)
    sqlmetrics.MultiProcessCollector(registry, other)

    assert ask(registry, "events_total", of="this") == 1
    assert ask(registry, "events_total", of="other") == 1


_OTHER_APP = """
import sys
import sqlmetrics
from prometheus_client import Counter
sqlmetrics.install(sys.argv[1])
Counter("events", "Events", ["of"]).labels("other").inc()
"""


def test_a_private_metric_of_another_type_stays_private(store: sqlmetrics.Store) -> None:
    """Though the two have one name."""
    private = CollectorRegistry()
    Counter("size", "Size").inc(3)
    Gauge("size", "Size", registry=private, multiprocess_mode="sum").set(7)

    assert [name for name in names_of(REGISTRY) if name.startswith("size")] == ["size_total", "size_created"]
    assert names_of(private) == ["size"]


def test_a_peer_collector_made_before_install_yields_the_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It yields what the store has, once that is installed."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    registry = CollectorRegistry()
    collector = prometheus_client.multiprocess.MultiProcessCollector(registry)
    sqlmetrics.install()
    Counter("events", "Events", registry=None).inc()

    assert names_of(registry) == ["events_total"]
    assert names_of(collector) == ["events_total"]
