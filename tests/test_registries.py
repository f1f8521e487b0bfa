"""A registry yields what all processes have counted: without changes to an app, without duplicates, by names."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import prometheus_client
import pytest
from helpers import child, wait_for
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import sqlmetrics

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


def names_of(registry: CollectorRegistry) -> list[str]:
    """The samples of a registry, as often as they are yielded."""
    return [sample.name for metric in registry.collect() for sample in metric.samples]


def ask(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """One sample of a registry, or of a restricted one."""
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return next((sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)), None)


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
    mine = Counter("mine", "Mine", registry=registry)
    other = Counter("other", "Other")

    def count() -> None:
        mine.inc()
        other.inc()

    with child(count=count) as one:
        one.do("count")
        mine.inc()

        assert ask(registry, "mine_total") == 2
        assert ask(registry, "other_total") is None
        assert ask(REGISTRY, "other_total") == 1
        assert ask(REGISTRY, "mine_total") is None


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
    from sqlmetrics import columns, scrape

    for number in range(5):
        Histogram(f"latency_{number}", "Latency", ["path"]).labels("/").observe(1)
    seen: list[int] = []

    def counting(columns_, extra, wanted, length):
        seen.append(length if wanted is None else len(wanted := list(wanted)))
        return columns.add_up(columns_, extra, wanted, length)

    monkeypatch.setattr(scrape, "add_up", counting)
    names_of(REGISTRY.restricted_registry(["latency_3_count"]))  # type: ignore[arg-type]
    names_of(REGISTRY)

    assert seen == [16, 5 * 16]


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


def test_a_unit_is_known_to_all(store: sqlmetrics.Store) -> None:
    """OpenMetrics has it, in another process too, by each way to a text."""
    latency = Histogram("latency", "Latency", unit="seconds", buckets=[1], registry=None)

    with child(observe=lambda: latency.observe(0.5)) as one:
        one.do("observe")
        registry = CollectorRegistry()
        sqlmetrics.MultiProcessCollector(registry)

        expected = openmetrics.generate_latest(registry)
        assert b"# UNIT latency_seconds seconds\n" in expected
        assert sqlmetrics.generate_latest(openmetrics=True) == expected


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


def test_the_peers_server_on_the_plain_registry(store: sqlmetrics.Store) -> None:
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


def test_the_values_of_a_store_for_tests_and_health_checks(store: sqlmetrics.Store) -> None:
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


def test_a_mode_is_chosen_at_the_scrape(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """For libraries that leave their gauges at `all`; what cannot be made of what the dead left stays as it is."""
    busy = Gauge("busy", "Busy")
    top = Gauge("top", "Top", multiprocess_mode="max")

    def work(number: int) -> None:
        busy.set(number)
        top.set(number)

    work(1)
    with child(work=work) as one:
        one.do("work", 5)

        def shown(**modes: str) -> list[float | None]:
            registry = CollectorRegistry()
            sqlmetrics.MultiProcessCollector(registry, modes=modes)
            return [ask(registry, "busy"), ask(registry, "top")]

        assert shown(busy="sum") == [6, 5]
        assert shown(busy="livemin", top="sum") == [1, 5]
        one.kill()
        assert shown(busy="sum") == [6, 5]
        assert shown(busy="livesum", top="livemax") == [1, 1]
        monkeypatch.setenv("SQLMETRICS_MODES", "busy=max,top=livemax")
        assert ask(REGISTRY, "busy") == 5
        assert b"\nbusy 5.0\n" in sqlmetrics.generate_latest()
        assert sqlmetrics.generate_latest(modes={"busy": "min"}).count(b"\nbusy 1.0\n") == 1


def test_modes_that_there_are_not(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error at set-up."""
    with pytest.raises(ValueError, match="'most' for 'busy' is no multiprocess mode; there are all, liveall"):
        sqlmetrics.MultiProcessCollector(None, modes={"busy": "most"})
    monkeypatch.setenv("SQLMETRICS_MODES", "busy")
    with pytest.raises(ValueError, match="SQLMETRICS_MODES='busy' cannot be used: wanted is name=mode"):
        sqlmetrics.generate_latest()


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
