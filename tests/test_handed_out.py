"""What a scrape hands out is the caller's: changing it changes no later scrape, and none of another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from helpers import child
from prometheus_client import (
    PLATFORM_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
)
from prometheus_client import generate_latest as peers_text

import sqlmetrics

pytestmark = pytest.mark.promise(12)

NAMES = ["hits_total", "hits_created", "load", "took_bucket", "took_sum", "size_count", "build_info", "task", "own"]


class Own:
    """A collector that is published."""

    def collect(self) -> Iterable[Any]:
        """One family."""
        return Gauge("own", "Own", registry=None).collect()


OWN = Own()


def count() -> None:
    """Metrics of all kinds, each with labels, and one with an exemplar."""
    Counter("hits", "Hits", ["path"]).labels("/a").inc(1, {"trace": "a"})
    Gauge("load", "Load", ["core"]).labels("0").set(1)
    Histogram("took", "Took", ["path"], buckets=[1]).labels("/a").observe(0.5, {"trace": "a"})
    Summary("size", "Size", ["path"]).labels("/a").observe(3)
    Info("build", "Build", ["part"]).labels("a").info({"version": "1"})
    Enum("task", "Task", ["part"], states=["on", "off"]).labels("a").state("off")
    REGISTRY.register(OWN)
    sqlmetrics.publish(OWN)


def vandalise(families: Iterable[Any]) -> None:
    """Change everything that can be changed in what a scrape has yielded."""
    kept = {id(family) for family in PLATFORM_COLLECTOR.collect()}  # it hands out its own: other tests have them, too
    for family in [family for family in families if id(family) not in kept]:
        for sample in family.samples:
            sample.labels.clear()
            sample.labels["service"] = "shop"
            if sample.exemplar:
                sample.exemplar.labels["service"] = "shop"
        family.samples.append(family.samples[0])
        family.name, family.documentation, family.type, family.unit = "other", "other", "unknown", "s"


def of_a_collector() -> CollectorRegistry:
    """A registry with nothing but the store's collector."""
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry, created=True)
    return registry


WAYS: dict[str, Callable[[], Iterable[Any]]] = {
    "default registry": REGISTRY.collect,
    "restricted registry": lambda: REGISTRY.restricted_registry(NAMES).collect(),
    "registry of a collector": lambda: of_a_collector().collect(),
    "collector": lambda: sqlmetrics.MultiProcessCollector(None, created=True, self_metrics=True).collect(),
    "merge": lambda: sqlmetrics.MultiProcessCollector.merge([]),
}


def seen() -> list[Any]:
    """All that scrapes show, but what goes on by itself."""
    text = [line for line in peers_text(of_a_collector()).decode().split("\n") if "sqlmetrics" not in line]
    exemplars = [line for line in sqlmetrics.generate_latest(openmetrics=True).decode().split("\n") if " # {" in line]
    families = [*REGISTRY.restricted_registry(NAMES).collect(), *of_a_collector().collect()]
    return [text, exemplars, families, REGISTRY.get_sample_value("hits_total", {"path": "/a"})]


@pytest.mark.parametrize("way", WAYS)
def test_changing_what_a_scrape_yielded_changes_no_later_scrape(store: sqlmetrics.Store, way: str) -> None:
    """Labels, exemplars, lists of samples and what describes a family, whichever way the scrape went."""
    with child(count=count) as other:
        other.do("count")
        count()
        before = seen()
        vandalise(list(WAYS[way]()))

        assert before[1]
        assert before[3] == 2
        assert seen() == before


def test_a_thread_that_changes_what_it_got_disturbs_no_other(store: sqlmetrics.Store) -> None:
    """Two threads scrape at once, and one of them adds a label to everything."""
    hits = Counter("hits", "Hits", ["path"])
    for number in range(200):
        hits.labels(str(number)).inc()
    over = threading.Event()

    def add_labels() -> None:
        while not over.is_set():
            vandalise(of_a_collector().collect())

    thread = threading.Thread(target=add_labels)
    thread.start()
    try:
        found = {peers_text(of_a_collector()) for _ in range(50)}
    finally:
        over.set()
        thread.join()

    assert len(found) == 1
    assert b"service" not in found.pop()
