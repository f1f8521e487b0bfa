"""`name[]`: the names go into the query, with the registry's flag and without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import prometheus_client
import pytest
from helpers import child, names_of
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

import sqlmetrics

pytestmark = pytest.mark.promise(9)


@pytest.mark.parametrize("flag", [False, True], ids=["without the flag", "with it"])
def test_a_restricted_registry_yields_its_names_only(store: sqlmetrics.Store, flag: bool) -> None:
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


@pytest.mark.store(flush_interval=1000)
def test_only_the_wanted_series_are_asked_for(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names go into the query, for what is in rows and for what is in journals."""
    from sqlmetrics.scrape import query

    def make(first: int) -> None:
        for number in range(first, first + 5):
            Histogram(f"latency_{number}", "Latency", ["path"]).labels("/").observe(1)
            Gauge(f"level_{number}", "Level").set(1)

    seen: dict[str, list[int]] = {"sums": [], "gauges": []}

    def counted(what: str, ask: Callable[..., query.Totals]) -> Callable[..., query.Totals]:
        def count(*arguments: Any, **named: Any) -> query.Totals:
            answer = ask(*arguments, **named)
            seen[what].append(len(answer.values))
            return answer

        return count

    for what in seen:
        monkeypatch.setattr(query, what, counted(what, getattr(query, what)))
    make(0)
    store.flush()
    make(5)
    for number in (3, 8):
        names_of(REGISTRY.restricted_registry([f"latency_{number}_count", f"level_{number}"]))  # type: ignore[arg-type]
    names_of(REGISTRY)

    assert max(seen["sums"][:2]) <= 16  # or less: what is 0 and has a row needs no answer
    assert seen["sums"][2] >= 10 * 2  # what the store counts of itself is there, too
    assert seen["gauges"] == [1, 1, 10]
