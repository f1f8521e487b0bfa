"""`name[]`: the names go into the query, with the registry's flag and without it."""

from __future__ import annotations

import prometheus_client
import pytest
from helpers import child, names_of
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

import sqlmetrics


@pytest.mark.parametrize("flag", [False, True], ids=["without the flag", "with it"])
def test_a_restricted_registry_yields_these_names(store: sqlmetrics.Store, flag: bool) -> None:
    """Of the registry's metrics and of a collector in it; in the peer's mode without the flag nothing is shown."""
    registry = CollectorRegistry(support_collectors_without_names=flag)
    own = Counter("own", "Own", ["path"], registry=registry)
    Counter("events", "Events", registry=None).inc()
    Histogram("latency", "Latency", registry=None, buckets=[1]).observe(0.5)
    own.labels("/").inc()
    sqlmetrics.MultiProcessCollector(registry)
    names = ["events_total", "latency_sum", "own_total", "nothing"]

    with child(count=lambda: own.labels("/").inc()) as one:
        one.do("count")
        restricted = registry.restricted_registry(names)

        assert sorted(names_of(restricted)) == ["events_total", "latency_sum", "own_total"]
        assert b'own_total{path="/"} 2.0' in prometheus_client.generate_latest(restricted)


def test_only_the_wanted_series_are_read(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names go into the query: the positions of other families are not added up."""
    from sqlmetrics.scrape import columns
    from sqlmetrics.scrape import reading as scrape

    for number in range(5):
        Histogram(f"latency_{number}", "Latency", ["path"]).labels("/").observe(1)
    seen: list[int] = []

    def counting(columns_, extra, wanted, length):
        seen.append(length if wanted is None else len(wanted := list(wanted)))
        return columns.add_up(columns_, extra, wanted, length)

    monkeypatch.setattr(scrape, "add_up", counting)
    names_of(REGISTRY.restricted_registry(["latency_3_count"]))  # type: ignore[arg-type]
    names_of(REGISTRY)

    assert seen[0] == 16
    assert seen[1] >= 5 * 16  # after the first flush, what the store counts of itself is there, too
