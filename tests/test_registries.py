"""A registry yields what all processes have counted of its metrics, without changes to an app."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import prometheus_client
import pytest
from helpers import ask, child, in_child, names_of
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import GaugeMetricFamily

import sqlmetrics

pytestmark = pytest.mark.promise(2, 12)

_OTHER_WORKER = """
import sys
import sqlmetrics
sqlmetrics.install(sys.argv[1])
from prometheus_client import Counter, CollectorRegistry, Histogram
Counter("elsewhere", "Of a module that only this worker imported", ["path"]).labels("/").inc(3)
Counter("private", "In a registry of its own", registry=CollectorRegistry()).inc()
Counter("homeless", "In no registry", registry=None).inc()
print("counted", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["a name of its own", "two equal bounds", "a value class of the app's"])
def test_a_histogram_without_labels_is_the_total_whatever_holds_its_buckets(
    path: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One object has all buckets of a histogram; in these cases each bucket has its own."""
    identify = (lambda: f"process {os.getpid()}") if kind == "a name of its own" else None
    sqlmetrics.install(path, process_identifier=identify)

    class Value(values.ValueClass):
        def inc(self, amount: float) -> None:
            super().inc(amount)

    with monkeypatch.context() as patched:
        if kind == "a value class of the app's":
            patched.setattr(values, "ValueClass", Value)
        sizes = Histogram("sizes", "Sizes", buckets=(1, 1, 2) if kind == "two equal bounds" else (1, 2))
    sizes.observe(1)
    in_child(lambda: [sizes.observe(2) for _ in range(3)])

    buckets = [REGISTRY.get_sample_value("sizes_bucket", {"le": bound}) for bound in ("1.0", "2.0", "+Inf")]
    assert buckets == [1, 4, 4]
    assert REGISTRY.get_sample_value("sizes_count") == 4
    assert ask(REGISTRY.restricted_registry(["sizes_count"]), "sizes_count") == 4


def test_the_default_registry_yields_the_sum_of_all_processes(store: sqlmetrics.Store) -> None:
    """`generate_latest()` of an app that knows nothing of this package, from either process."""
    requests = Counter("requests", "Requests", ["path"])
    latency = Histogram("latency", "Latency", buckets=[1])

    def use() -> str:
        requests.labels("/").inc(2)
        latency.observe(0.5)
        return prometheus_client.generate_latest().decode()

    use()
    with child(use=use, show=lambda: prometheus_client.generate_latest().decode()) as one:
        shown = str(one.do("use"))
        requests.labels("/").inc()
        assert 'requests_total{path="/"} 4.0\n' in shown
        assert 'latency_bucket{le="1.0"} 2.0\n' in shown
        assert 'requests_total{path="/"} 5.0\n' in str(one.do("show"))


def test_each_registry_yields_its_own_metrics_only(store: sqlmetrics.Store) -> None:
    """A metric of another registry stays out, in every process."""
    registry = CollectorRegistry()
    mine = Counter("only_here", "Mine", registry=registry)
    other = Counter("other", "Other")

    def count() -> None:
        mine.inc()
        other.inc()

    with child(count=count) as one:
        one.do("count")
        mine.inc()

        assert ask(registry, "only_here_total") == 2
        assert ask(registry, "other_total") is None
        assert ask(REGISTRY, "other_total") == 1
        assert ask(REGISTRY, "only_here_total") is None


def test_metrics_that_were_never_imported_here_are_in_the_default_registry(store: sqlmetrics.Store, path: str) -> None:
    """The store remembers who belongs there; those in other registries, or in none, do not."""
    worker = subprocess.Popen(
        [sys.executable, "-c", _OTHER_WORKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdout
        assert worker.stdout.readline() == "counted\n"

        assert ask(REGISTRY, "elsewhere_total", path="/") == 3
        assert ask(REGISTRY, "private_total") is None
        assert ask(REGISTRY, "homeless_total") is None
        assert ask(CollectorRegistry(), "elsewhere_total", path="/") is None
        worker.kill()
    store.flush()
    assert ask(REGISTRY, "elsewhere_total", path="/") == 3
    assert ask(REGISTRY, "private_total") is None


def test_a_metric_that_is_unregistered_leaves_the_default_registry_of_all(store: sqlmetrics.Store) -> None:
    """And comes back with its registration; its values are not touched."""
    counter = Counter("events", "Events")
    counter.inc()

    with child(look=lambda: ask(REGISTRY, "events_total"), forget=lambda: REGISTRY.unregister(counter)) as one:
        assert one.do("look") == 1
        one.do("forget")
        REGISTRY.unregister(counter)
        assert one.do("look") is None
        REGISTRY.register(counter)

        assert one.do("look") == 1


def test_metrics_that_exist_before_install_are_known_to_be_registered(path: str) -> None:
    """Also without a child yet."""
    counter = Counter("events", "Events")
    labelled = Counter("others", "Others", ["kind"])
    store = sqlmetrics.install(path)

    def forget_and_look() -> list[float | None]:
        REGISTRY._collector_to_names.clear()  # as if their module had not been imported
        return [ask(REGISTRY, "events_total"), ask(REGISTRY, "others_total", kind="a")]

    counter.inc()
    labelled.labels("a").inc()
    store.flush()
    with child(look=forget_and_look) as one:
        assert one.do("look") == [1, 1]


def test_a_labelled_metric_without_children_is_a_family(store: sqlmetrics.Store) -> None:
    """As in memory."""
    Counter("events", "Events", ["kind"])

    assert "# TYPE events_total counter\n" in prometheus_client.generate_latest().decode()


def test_target_info_and_custom_collectors_work_as_ever(store: sqlmetrics.Store) -> None:
    """Beside the metrics of the store."""
    registry = CollectorRegistry(target_info={"env": "test"})
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    Counter("events", "Events", registry=registry).inc()

    names = names_of(registry)
    assert {"target_info", "process_resident_memory_bytes", "events_total"} <= set(names)
    assert len(names) == len(set(names)) + 6  # the garbage collector has three samples of three generations
    assert names_of(registry.restricted_registry(["target_info"])) == ["target_info"]  # type: ignore[arg-type]


class Setting:
    """A collector that counts, and sets a gauge, whenever it is asked."""

    def __init__(self, registry: CollectorRegistry, of_metrics: CollectorRegistry | None):
        self.level = Gauge("level", "Level", multiprocess_mode="max", registry=of_metrics)
        registry.register(self)  # type: ignore[arg-type]
        self.asked = Counter("asked", "Asked", ["how"], registry=of_metrics)

    def describe(self):
        yield GaugeMetricFamily("custom", "Custom")

    def collect(self):
        self.asked.labels("often").inc()
        self.level.set(self.asked.labels("often")._value.get())
        yield GaugeMetricFamily("custom", "Custom", value=7)


@pytest.mark.parametrize("ways", ["metrics", "private", "metrics and a collector", "a collector", "the default one"])
def test_what_a_collector_sets_is_in_the_same_scrape(store: sqlmetrics.Store, ways: str) -> None:
    """Collectors are asked first, and the families come in the order of their registration all the same."""
    registry = REGISTRY if ways == "the default one" else CollectorRegistry()
    setting = Setting(registry, None if ways == "a collector" else registry)
    if "collector" in ways:
        sqlmetrics.MultiProcessCollector(registry)
    if ways == "metrics":
        in_child(lambda: None)  # which the registry is shared with
    try:
        for number in (1, 2):
            families = {metric.name: metric for metric in registry.collect()}
            assert families["asked"].samples[0].value == families["level"].samples[0].value == number
        assert ask(registry.restricted_registry(["custom", "level"]), "level") == 3
        if ways != "a collector":
            assert [name for name in families if name in ("level", "custom", "asked")] == ["level", "custom", "asked"]
    finally:
        registry.unregister(setting)  # type: ignore[arg-type]


def test_what_a_collector_sets_is_in_the_same_file(store: sqlmetrics.Store, folder: Path) -> None:
    """Where the metrics are shared, and the file is this process's own."""
    registry, file = CollectorRegistry(), folder / "out.prom"
    Setting(registry, registry)
    in_child(lambda: None)  # which the registry is shared with
    for number in (1, 2):
        prometheus_client.write_to_textfile(str(file), registry)
        assert f"level {number}.0\n" in file.read_text()


def test_what_a_collector_raises_is_raised_by_the_scrape(store: sqlmetrics.Store) -> None:
    """As in one process; the next scrape is whole again."""

    class Raising:
        fails = True

        def collect(self):
            yield GaugeMetricFamily("one", "One", value=1)
            if self.fails:
                raise LookupError("of the app's own")

    registry = CollectorRegistry()
    Counter("events", "Events", registry=registry).inc()
    registry.register(Raising())  # type: ignore[arg-type]
    sqlmetrics.MultiProcessCollector(registry)
    with pytest.raises(LookupError, match="of the app's own"):
        prometheus_client.generate_latest(registry)
    Raising.fails = False

    assert names_of(registry)[:2] == ["events_total", "events_created"]
    assert ask(registry, "one") == 1


def test_a_class_with_its_own_way_to_its_samples_is_asked_itself(store: sqlmetrics.Store) -> None:
    """Whoever derives from a metric and overrides `collect` knows best."""

    class Doubled(Counter):
        def collect(self):
            for metric in super().collect():
                metric.samples = [sample._replace(value=2 * sample.value) for sample in metric.samples]
                yield metric

    Doubled("events", "Events").inc(3)

    assert ask(REGISTRY, "events_total") == 6


def test_a_registry_shows_this_process_while_the_store_cannot_be_opened(tmp_path: Path) -> None:
    """A newer schema, say: the process counts in memory, and that is what it shows."""
    path = str(tmp_path / "newer.sqlite3")
    sqlmetrics.install(path)
    sqlmetrics.uninstall()
    subprocess.run(
        [sys.executable, "-c", _REFUSE, path],
        check=True,
    )
    sqlmetrics.install(path)
    Counter("events", "Events").inc(4)

    assert ask(REGISTRY, "events_total") == 4


_REFUSE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE store SET min_writer = 99")
connection.execute("PRAGMA user_version = 99")
connection.commit()
"""


def test_the_peers_server_shows_all_processes(store: sqlmetrics.Store) -> None:
    """`prometheus_client.start_http_server` of an app that has not been changed."""
    counter = Counter("events", "Events")
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1")
    try:
        with child(count=counter.inc) as one:
            one.do("count")
            counter.inc()
            url = f"http://127.0.0.1:{server.server_port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert b"events_total 2.0\n" in answer.read()
            with urllib.request.urlopen(f"{url}?name[]=events_total", timeout=10) as answer:
                assert b"python_info" not in answer.read()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_get_sample_value_gives_the_aggregate(store: sqlmetrics.Store) -> None:
    """`Store.get_sample_value` gives the aggregate as a number."""
    counter = Counter("events", "Events", ["kind"])
    latency = Histogram("latency", "Latency", buckets=[1])

    def count() -> None:
        counter.labels("a").inc()
        latency.observe(0.5)

    with child(count=count) as one:
        one.do("count")
        count()

    assert store.get_sample_value("events_total", {"kind": "a"}) == 2
    assert store.get_sample_value("latency_bucket", {"le": "1.0"}) == 2
    assert store.get_sample_value("latency_count") == 2
    assert store.get_sample_value("events_total", {"kind": "b"}) is None
    assert store.get_sample_value("events_total") is None


def test_uninstall_puts_the_registries_back(store: sqlmetrics.Store) -> None:
    """What was counted in this process goes on in memory."""
    counter = Counter("events", "Events")
    counter.inc()
    with child(count=counter.inc) as one:
        one.do("count")
    assert ask(REGISTRY, "events_total") == 2
    sqlmetrics.uninstall()

    assert ask(REGISTRY, "events_total") == 1
    assert CollectorRegistry.collect.__module__ == "prometheus_client.registry"


def test_a_scraper_may_show_either_of_two_stores_or_both(store: sqlmetrics.Store, folder: Path) -> None:
    """Two apps that know nothing of each other; a scraper may show either, or both."""
    other = str(folder / "other.sqlite3")
    subprocess.run([sys.executable, "-c", _OTHER_WORKER, other], check=True, stdin=subprocess.DEVNULL, timeout=60)
    Counter("elsewhere", "Of this app", ["path"]).labels("/").inc(10)

    of_other = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(of_other, other)

    assert ask(REGISTRY, "elsewhere_total", path="/") == 10
    assert ask(of_other, "elsewhere_total", path="/") == 3
    assert ask(REGISTRY, "private_total") is None
    assert b"private_total 1.0\n" in sqlmetrics.generate_latest(other)
