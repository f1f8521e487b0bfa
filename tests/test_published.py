"""Collectors that every process samples into the store: `publish()`."""

from __future__ import annotations

import os
import threading
from typing import Any

import prometheus_client
import pytest
from helpers import child, flush_all, scrape, value, wait_for
from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import NativeHistogram

import sqlmetrics
from sqlmetrics.client import sampling
from sqlmetrics.client.published import Publication
from sqlmetrics.store import installed as stores

pytestmark = pytest.mark.promise(12)


class Custom(Collector):
    """Yields whatever it is given."""

    def __init__(self, *families):
        self.families = families

    def collect(self):
        return self.families


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


def test_each_sample_of_the_peers_three_collectors_is_there_once(store: sqlmetrics.Store) -> None:
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


def test_a_gauge_that_a_collector_no_longer_yields_leaves(store: sqlmetrics.Store) -> None:
    """What it has counted stays."""
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


@pytest.mark.parametrize("mode", ["max", "liveall"])
def test_publishing_again_leaves_nothing_of_the_first_time(store: sqlmetrics.Store, mode: str) -> None:
    """In the same mode or in another one: what is there has the mode given now, and leaves with `unpublish`."""
    custom = Custom(GaugeMetricFamily("level", "Level", value=4), CounterMetricFamily("jobs", "Jobs", value=2))
    sqlmetrics.publish(custom, "liveall")
    me = {"pid": str(os.getpid())}
    assert value("level", **me) == 4
    sqlmetrics.publish(custom, mode)
    labels = me if mode == "liveall" else {}
    wait_for(lambda: (value("level", **labels), value("jobs_total", **labels)) == (4, 2))
    assert [name for name, _ in scrape()].count("level") == 1
    sqlmetrics.publish(custom, "sum")
    sqlmetrics.publish(custom, mode)  # what was said before is said again
    wait_for(lambda: (value("level", **labels), value("jobs_total", **labels)) == (4, 2))
    sqlmetrics.unpublish(custom)
    wait_for(lambda: "level" not in {name for name, _ in scrape()})
    assert value("jobs_total", **labels) == 2


def test_a_collector_that_raises_is_logged_once(store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture) -> None:
    """It hurts nobody else."""

    class Bad(Collector):
        def collect(self):
            raise RuntimeError("no such device")

    sqlmetrics.publish(Bad())
    sqlmetrics.publish(Custom(GaugeMetricFamily("level", "Level", value=4)), "sum")

    assert value("level") == value("level") == 4
    assert len([one for one in caplog.records if "no such device" in one.getMessage()]) == 1


def test_publishing_what_is_no_collector_is_refused(store: sqlmetrics.Store) -> None:
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


def test_a_sample_that_is_no_number_costs_itself_only(
    store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not shown, those after it are, and it is logged once."""
    gauge = GaugeMetricFamily("level", "Level", labels=["of"])
    for of, amount in (("a", 1), ("b", None), ("c", 3)):
        gauge.add_metric([of], amount)  # type: ignore[arg-type]
    sqlmetrics.publish(Custom(gauge), "sum")

    for _ in range(2):
        assert [value("level", of=of) for of in "abc"] == [1, None, 3]
    assert len([one for one in caplog.records if "its last answer stays" in one.getMessage()]) == 1


@pytest.mark.parametrize("type_", ["histogram", "gaugehistogram", "unknown"])
def test_a_native_histogram_is_left_out_and_logged_once(
    store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture, type_: str
) -> None:
    """There is no value that it could have; the classic buckets beside it, and other families, are shown."""
    both = Metric("latency", "Latency", type_)
    both.add_sample("latency", {}, 0.0, native_histogram=NativeHistogram(3, 6.0, 0, 0.001, 1))
    both.add_sample("latency_bucket", {"le": "+Inf"}, 3.0)
    both.add_sample("latency_sum", {}, 6.0)
    sqlmetrics.publish(Custom(both, GaugeMetricFamily("level", "Level", value=4)), "sum")

    for _ in range(3):
        store.flush()
        assert [value("level"), value("latency"), value("latency_sum")] == [4, None, 6]
        assert value("latency_bucket", le="+Inf") == 3
    assert len([one for one in caplog.records if "native histogram" in one.getMessage()]) == 1


def test_a_collector_published_before_install_is_shown(path: str) -> None:
    """By an idle process, too."""
    sqlmetrics.publish(prometheus_client.PROCESS_COLLECTOR)
    sqlmetrics.install(path, flush_interval=0.02)
    mine = str(os.getpid())

    with child(look=lambda: value("process_open_fds", pid=mine)) as one:
        wait_for(lambda: one.do("look"))


def test_a_collector_that_is_unpublished_while_it_is_asked_does_not_come_back(path: str) -> None:
    """The answer that was under way does not bring it back."""
    sqlmetrics.install(path, flush_interval=0.02)
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Custom):
        def collect(self):
            begun.set()
            go_on.wait(20)
            return super().collect()

    slow = Slow(GaugeMetricFamily("level", "Level", value=1))
    sqlmetrics.publish(slow, "sum")
    assert begun.wait(20)
    sqlmetrics.unpublish(slow)
    go_on.set()
    Gauge("other", "Other").set(1)

    flush_all(sqlmetrics.install())
    assert value("level") is None


def test_two_collectors_may_yield_one_gauge(path: str) -> None:
    """What one of them does not yield any more stays the other's, and each name is shown once in a registry."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    registry = CollectorRegistry()
    one, two = (Custom(GaugeMetricFamily("level", "Level", value=amount)) for amount in (1, 2))
    for custom in (one, two):
        registry.register(custom)
        sqlmetrics.publish(custom, "sum")
    assert [s.name for m in registry.collect() for s in m.samples] == ["level"]
    one.families = ()
    store.flush()
    store.flush()

    assert value("level") == 2
    assert registry.get_sample_value("level") == 2


def test_a_collector_gives_back_no_gauge_of_the_app(path: str) -> None:
    """A gauge of the app that a collector happens to yield, too."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    gauge = Gauge("level", "Level", multiprocess_mode="sum")
    gauge.set(10)
    custom = Custom(GaugeMetricFamily("level", "Level", value=20))
    sqlmetrics.publish(custom, "sum")
    assert value("level") == 20
    custom.families = ()
    store.flush()
    gauge.inc()

    assert value("level") == 21


def test_a_collector_without_a_hash_is_refused(store: sqlmetrics.Store) -> None:
    """A clear error."""

    class NoHash(Custom):
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="a collector can be in a registry and so has a hash"):
        sqlmetrics.publish(NoHash())


@pytest.mark.parametrize("by_itself", [True, False])
@pytest.mark.slow
def test_an_answer_that_comes_after_uninstall_opens_no_store(
    path: str, monkeypatch: pytest.MonkeyPatch, by_itself: bool
) -> None:
    """Although the environment names one, and whichever thread has uninstalled it."""
    monkeypatch.setenv("SQLMETRICS_PATH", path)
    asked, ends = threading.Event(), threading.Event()

    class Slow(Collector):
        def collect(self):
            asked.set()
            if by_itself:
                sqlmetrics.uninstall()
            else:
                ends.wait(20)
            yield GaugeMetricFamily("slow", "Slow", 1)

    store = sqlmetrics.install(flush_interval=1000)
    sqlmetrics.publish(Slow())
    thread = threading.Thread(target=store.flush)
    thread.start()
    assert asked.wait(20)
    if not by_itself:
        sqlmetrics.uninstall()
    ends.set()
    thread.join(20)

    assert stores.installed() is None


def test_a_gauge_that_is_made_while_its_collector_is_unpublished_does_not_stay(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread takes the gauges out; another one, which has asked before, makes them again in the middle of that."""
    store = sqlmetrics.install(path, flush_interval=1000)
    level = GaugeMetricFamily("level", "Level", labels=["of"])
    for of in ("first", "second"):
        level.add_metric([of], 1)
    custom = Custom(level)
    sqlmetrics.publish(custom, "liveall")
    flush_all(store)
    assert value("level", of="first", pid=str(os.getpid())) == 1

    publication = sampling.sampler.publications[custom]
    asking, made, go_on = threading.Thread(target=publication.sample), threading.Event(), threading.Event()
    give_back, make = Publication._give_back, Publication._make

    def give_back_slowly(*arguments: Any) -> None:
        give_back(*arguments)
        if asking.ident is None:
            asking.start()
            assert made.wait(20)

    def make_slowly(self: Publication, kept: Any, help_text: str) -> Any:
        if ("of", "second") in kept.labels:
            made.set()
            assert go_on.wait(20)
        return make(self, kept, help_text)

    monkeypatch.setattr(Publication, "_give_back", give_back_slowly)
    monkeypatch.setattr(Publication, "_make", make_slowly)
    sqlmetrics.unpublish(custom)
    go_on.set()
    asking.join(20)
    flush_all(store)
    assert not [name for name, _ in scrape() if name == "level"]
