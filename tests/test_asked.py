"""What has to be asked for its value: `set_function`, and collectors that were published."""

from __future__ import annotations

import os
import time

import prometheus_client
import pytest
from helpers import child, scrape, value, wait_for
from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

import sqlmetrics


class Custom(Collector):
    """Yields whatever it is given."""

    def __init__(self, *families):
        self.families = families

    def collect(self):
        return self.families


def test_a_function_is_asked_before_a_scrape_of_its_process(store: sqlmetrics.Store) -> None:
    """In the peer's mode the gauge stays at 0."""
    answers = iter(range(1, 100))
    gauge = Gauge("queue", "Queue", multiprocess_mode="sum")
    gauge.set_function(lambda: next(answers))

    first = value("queue")

    assert first is not None
    assert first >= 1
    assert value("queue") > first


def test_a_function_is_asked_at_each_flush_for_the_others(path: str, shell) -> None:
    """Its owner does nothing, and others see it: by a scrape, and by the shell."""
    sqlmetrics.install(path, flush_interval=0.02)
    gauge = Gauge("queue", "Queue", ["of"], multiprocess_mode="livesum")

    def begin() -> None:
        begun = time.monotonic()
        gauge.labels("child").set_function(lambda: time.monotonic() - begun)

    with child(begin=begin) as one:
        one.do("begin")
        wait_for(lambda: (value("queue", of="child") or 0) > 0.1)
        shell.wait_for_row("SELECT 1 FROM samples WHERE metric = 'queue' AND value > 0.1")
        one.kill()
    assert value("queue", of="child") is None


def test_each_process_asks_its_own(path: str) -> None:
    """A gauge with a function that was made before the fork, as with --preload: also in a worker that is idle."""
    sqlmetrics.install(path, flush_interval=0.02)
    Gauge("pid_of", "Pid", multiprocess_mode="liveall").set_function(os.getpid)

    with child(nothing=lambda: None) as one:
        wait_for(lambda: value("pid_of", pid=str(one.pid)) == one.pid)
        assert value("pid_of", pid=str(os.getpid())) == os.getpid()


def test_the_other_methods_of_a_gauge_with_a_function_do_nothing(store: sqlmetrics.Store) -> None:
    """As the peer's documentation says."""
    gauge = Gauge("queue", "Queue", multiprocess_mode="sum")
    gauge.set_function(lambda: 7)
    gauge.set(1)
    gauge.inc()
    gauge.dec(5)

    assert value("queue") == 7


def test_a_function_that_raises_costs_its_own_sample_only(
    store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged once, and once more if it has worked in between."""
    answers: list[object] = []
    bad, good = Gauge("bad", "Bad", multiprocess_mode="sum"), Gauge("good", "Good", multiprocess_mode="sum")
    bad.set_function(lambda: answers[0])  # type: ignore[arg-type, return-value]
    good.set_function(lambda: 3)

    for _ in range(3):
        assert value("good") == 3
    assert len([one for one in caplog.records if "IndexError" in one.getMessage()]) == 1
    answers.append(5)
    assert value("bad") == 5
    answers.clear()
    assert (value("bad"), value("good")) == (5, 3)
    assert len([one for one in caplog.records if "IndexError" in one.getMessage()]) == 2


def test_a_function_may_scrape(store: sqlmetrics.Store) -> None:
    """It is not asked again within its own answer."""
    Gauge("other", "Other", multiprocess_mode="sum").set(2)
    Gauge("twice", "Twice", multiprocess_mode="sum").set_function(lambda: 2 * (value("other") or 0))

    assert value("twice") == 4


def test_a_function_set_before_install(path: str) -> None:
    """Is taken over with its gauge; after uninstall the gauge asks it in memory again."""
    gauge = Gauge("queue", "Queue", multiprocess_mode="sum")
    gauge.set_function(lambda: 7)
    sqlmetrics.install(path)
    assert value("queue") == 7
    sqlmetrics.uninstall()

    assert REGISTRY.get_sample_value("queue") == 7


def test_the_default_registry_asks_too(store: sqlmetrics.Store) -> None:
    """With the aggregate over processes."""
    gauge = Gauge("workers", "Workers", multiprocess_mode="livesum")
    gauge.set_function(lambda: 1)

    with child(touch=lambda: value("workers")) as one:
        wait_for(lambda: one.do("touch") == 2)  # the flush that the function brought about
        assert REGISTRY.get_sample_value("workers") == 2


def test_the_process_collector_is_published_in_one_line(path: str) -> None:
    """Memory and CPU of each worker, with its pid; a dead one leaves."""
    sqlmetrics.install(path, flush_interval=0.02)
    sqlmetrics.publish(prometheus_client.PROCESS_COLLECTOR)

    with child(nothing=lambda: None) as one:
        wait_for(lambda: value("process_resident_memory_bytes", pid=str(one.pid)))
        assert value("process_resident_memory_bytes", pid=str(os.getpid())) > 1e6
        assert value("process_cpu_seconds_total", pid=str(os.getpid())) > 0
        wait_for(lambda: value("process_cpu_seconds_total", pid=str(one.pid)) is not None)
        names = [s.name for m in REGISTRY.collect() for s in m.samples if s.labels.get("pid") == str(one.pid)]
        assert names.count("process_resident_memory_bytes") == 1
        one.kill()
    assert value("process_resident_memory_bytes", pid=str(one.pid)) is None


def test_all_three_collectors_of_the_peer(store: sqlmetrics.Store) -> None:
    """Each sample that they yield is there, once."""
    collectors = (
        prometheus_client.PROCESS_COLLECTOR,
        prometheus_client.GC_COLLECTOR,
        prometheus_client.PLATFORM_COLLECTOR,
    )
    expected = {(s.name, *sorted(s.labels)) for one in collectors for m in one.collect() for s in m.samples}
    for one in collectors:
        sqlmetrics.publish(one, "max")

    shown = [(name, *(key for key, _ in labels)) for name, labels in scrape()]

    assert expected <= set(shown)
    in_registry = [(s.name, tuple(s.labels.items())) for m in REGISTRY.collect() for s in m.samples]
    assert len(in_registry) == len(set(in_registry))


def test_gauges_of_a_collector_have_the_mode_asked_for(store: sqlmetrics.Store) -> None:
    """And counters, summaries and histograms are added up, and outlive their process."""
    counter = CounterMetricFamily("jobs", "Jobs", labels=["kind"])
    counter.add_metric(["a"], 3)
    summary = SummaryMetricFamily("size", "Size", count_value=2, sum_value=5)
    histogram = HistogramMetricFamily("wait", "Wait", buckets=[("1.0", 2), ("2.0", 3), ("+Inf", 7)], sum_value=20)
    info = InfoMetricFamily("build", "Build", value={"version": "1"})
    custom = Custom(counter, summary, histogram, info, GaugeMetricFamily("level", "Level", value=4))
    sqlmetrics.publish(custom, "max")

    with child(look=lambda: value("level")) as one:
        one.do("look")
        for end in (lambda: None, one.kill):
            end()
            assert value("level") == 4
            assert value("jobs_total", kind="a") == 6
            assert (value("size_count"), value("size_sum")) == (4, 10)
            assert [value("wait_bucket", le=le) for le in ("1.0", "2.0", "+Inf")] == [4, 6, 14]
            assert (value("wait_count"), value("wait_sum")) == (14, 40)
            assert value("build_info", version="1") == 1


def test_a_series_that_a_collector_no_longer_yields(store: sqlmetrics.Store) -> None:
    """Leaves, if it is a gauge; what was counted stays."""
    gauge, counter = GaugeMetricFamily("level", "Level", labels=["of"]), CounterMetricFamily("jobs", "Jobs", value=2)
    gauge.add_metric(["a"], 1)
    gauge.add_metric(["b"], 2)
    custom = Custom(gauge, counter)
    sqlmetrics.publish(custom, "max")
    assert value("level", of="b") == 2
    gauge.samples.pop()
    custom.families = (gauge,)

    wait_for(lambda: value("level", of="b") is None)
    assert value("level", of="a") == 1
    assert value("jobs_total") == 2
    sqlmetrics.unpublish(custom)
    wait_for(lambda: value("level", of="a") is None)
    assert value("jobs_total") == 2


def test_a_collector_that_raises(store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture) -> None:
    """Is logged once, and hurts nobody else."""

    class Bad(Collector):
        def collect(self):
            raise RuntimeError("no such device")

    sqlmetrics.publish(Bad())
    sqlmetrics.publish(Custom(GaugeMetricFamily("level", "Level", value=4)), "sum")

    assert value("level") == value("level") == 4
    assert len([one for one in caplog.records if "no such device" in one.getMessage()]) == 1


def test_publishing_what_cannot_be_published(store: sqlmetrics.Store) -> None:
    """Clear errors at set-up."""
    with pytest.raises(ValueError, match="unknown multiprocess mode 'most'"):
        sqlmetrics.publish(prometheus_client.PROCESS_COLLECTOR, "most")
    with pytest.raises(TypeError, match="a collector has a method collect"):
        sqlmetrics.publish(42)


def test_a_published_collector_of_another_registry_is_shown_there(store: sqlmetrics.Store) -> None:
    """And not in the default one."""
    registry = CollectorRegistry()
    custom = Custom(GaugeMetricFamily("level", "Level", value=4))
    registry.register(custom)
    sqlmetrics.publish(custom, "sum")

    with child(look=lambda: value("level")) as one:
        wait_for(lambda: one.do("look") == 8)
        assert registry.get_sample_value("level") == 8
        assert REGISTRY.get_sample_value("level") is None


def test_nothing_to_ask_means_no_work(path: str) -> None:
    """An idle process with plain metrics writes nothing; one with a function does, at every flush."""
    store = sqlmetrics.install(path, flush_interval=60)
    Gauge("plain", "Plain").set(1)
    wait_for(lambda: store.flush().name == "NOTHING_CHANGED")
    assert store.flush().name == "NOTHING_CHANGED"
    Gauge("clock", "Clock").set_function(time.time)

    assert store.flush().name == "DONE"
    assert store.flush().name == "DONE"
