"""Promises 2 and 3: what an operation did is in every scrape at once, and stays when its process dies."""

from __future__ import annotations

import os

import pytest
from helpers import child, scrape, value, wait_for
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics

pytestmark = pytest.mark.promise(2, 3)


def test_a_childs_operation_is_seen_by_its_parent_at_once(store: sqlmetrics.Store) -> None:
    """No flush, no hook: the operation has returned, so the scrape shows it."""
    requests = Counter("requests", "Requests", ["path"])

    with child(count=lambda path: requests.labels(path).inc()) as one:
        one.do("count", "/")
        assert value("requests_total", path="/") == 1
        one.do("count", "/")
        one.do("count", "/new")

        assert value("requests_total", path="/") == 2
        assert value("requests_total", path="/new") == 1


def test_what_a_killed_process_counted_stays(store: sqlmetrics.Store) -> None:
    """SIGKILL right after the operation loses nothing, the child made by it included."""
    latency = Histogram("latency", "Latency", ["path"], buckets=[1, 2])

    with child(observe=lambda: latency.labels("/").observe(1.5)) as one:
        one.do("observe")
        one.kill()

    assert value("latency_count", path="/") == 1
    assert value("latency_bucket", path="/", le="1.0") == 0
    assert value("latency_sum", path="/") == 1.5


def test_a_dead_process_leaves_the_live_gauges(store: sqlmetrics.Store, shell) -> None:
    """With no hook: the kernel released its lock."""
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
    each = Gauge("each", "Each", multiprocess_mode="liveall")

    def work() -> int:
        busy.inc()
        each.set(7)
        return os.getpid()

    with child(work=work) as one:
        pid = str(one.do("work"))
        assert value("busy") == 1
        assert value("each", pid=pid) == 7
        one.kill()

    assert value("busy") == 0
    assert value("each", pid=pid) is None
    store.flush()
    assert shell(f"SELECT * FROM processes WHERE pid = '{pid}'") == []


@pytest.mark.promise(7, 9)
def test_the_shell_sees_what_a_scrape_sees_after_a_flush(store: sqlmetrics.Store, shell) -> None:
    """The view `metrics` has the aggregates, cumulative buckets included."""
    latency = Histogram("delay", "Latency", buckets=[1, 2])
    latency.observe(0.5)
    latency.observe(1.5)
    store.flush()

    rows = shell("SELECT metric, labels, value FROM metrics WHERE family = 'delay' ORDER BY metric, labels")

    assert rows == [
        {"metric": "delay_bucket", "labels": '{"le":"+Inf"}', "value": 2.0},
        {"metric": "delay_bucket", "labels": '{"le":"1.0"}', "value": 1.0},
        {"metric": "delay_bucket", "labels": '{"le":"2.0"}', "value": 2.0},
        {"metric": "delay_count", "labels": "{}", "value": 2.0},
        {"metric": "delay_sum", "labels": "{}", "value": 2.0},
    ]
    assert len([name for name, _ in scrape() if name.startswith("delay")]) == len(rows)


def test_the_flusher_brings_values_to_the_shell_by_itself(path: str, shell) -> None:
    """Within an interval, without any call."""
    sqlmetrics.install(path, flush_interval=0.05)
    counter = Counter("events", "Events")
    counter.inc(41)
    wait_for(lambda: shell("SELECT value FROM samples WHERE metric = 'events_total'") == [{"value": 41.0}])
    counter.inc()

    wait_for(lambda: shell("SELECT value FROM samples WHERE metric = 'events_total'") == [{"value": 42.0}])


@pytest.mark.parametrize("times", [1, 2])
def test_installing_twice_is_installing_once(path: str, times: int) -> None:
    """The same call again changes nothing."""
    stores = {sqlmetrics.install(path) for _ in range(times)}
    Counter("events", "Events").inc()

    assert len(stores) == 1
    assert value("events_total") == 1
