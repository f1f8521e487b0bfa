"""`_created` samples: the earliest over processes; units; what else of a family is lost in the mmap mode."""

from __future__ import annotations

import prometheus_client
import pytest
from helpers import ask, child, names_of, wait_for
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.utils import floatToGoString

import sqlmetrics

pytestmark = pytest.mark.promise(1)


def test_created_samples_are_the_earliest_of_all_processes(store: sqlmetrics.Store) -> None:
    """As in memory, in the default registry; of a collector on request, and in OpenMetrics as the peer writes them."""
    counter = Counter("events", "Events", ["kind"])

    def count() -> float:
        counter.labels("a").inc()
        made: float = counter.labels("a")._created
        return made

    with child(count=count) as one:
        first = one.do("count")
        counter.labels("a").inc()
        for _ in range(2):  # from the journal, and from the rows
            found = ask(REGISTRY, "events_created", kind="a")
            assert found is not None
            assert found == pytest.approx(first, abs=0.05)
            assert ask(REGISTRY.restricted_registry(["events_created"]), "events_created", kind="a") == found
            store.flush()
        registry = CollectorRegistry()
        sqlmetrics.MultiProcessCollector(registry)
        assert ask(registry, "events_created", kind="a") is None
        asked = CollectorRegistry()
        sqlmetrics.MultiProcessCollector(asked, created=True)
        text = openmetrics.generate_latest(asked).decode()
        assert f'events_total{{kind="a"}} 2.0\nevents_created{{kind="a"}} {floatToGoString(found)}\n' in text


def test_created_samples_can_be_switched_off(store: sqlmetrics.Store) -> None:
    """By the peer's own switch."""
    Counter("events", "Events").inc()
    prometheus_client.disable_created_metrics()
    try:
        assert "events_created" not in names_of(REGISTRY)
    finally:
        prometheus_client.enable_created_metrics()
    assert "events_created" in names_of(REGISTRY)


def test_a_unit_is_shown_by_every_process(store: sqlmetrics.Store) -> None:
    """OpenMetrics has it, in another process too, by each way to a text."""
    latency = Histogram("latency", "Latency", unit="seconds", buckets=[1], registry=None)

    with child(observe=lambda: latency.observe(0.5)) as one:
        one.do("observe")
        registry = CollectorRegistry()
        sqlmetrics.MultiProcessCollector(registry)

        expected = openmetrics.generate_latest(registry)
        assert b"# UNIT latency_seconds seconds\n" in expected
        assert sqlmetrics.generate_latest(openmetrics=True) == expected


def test_two_types_of_one_name_are_both_shown_and_told_of(path: str, shell, caplog: pytest.LogCaptureFixture) -> None:
    """Two versions of an app in a rolling deploy."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    Counter("size", "Size", registry=None).inc(2)

    with child(use=lambda: Gauge("size", "Size", registry=None, multiprocess_mode="max").set(7)) as one:
        one.do("use")
        wait_for(lambda: shell("SELECT 1 FROM family WHERE name = 'size' AND type = 'gauge'"))
        Info("anything", "Has the flusher look", registry=None)
        wait_for(lambda: store.trouble.counts["types"])

        assert store.get_sample_value("size_total") == 2
        assert store.get_sample_value("size") == 7
    wait_for(lambda: "size is counter and gauge" in caplog.text)
