"""remove, remove_by_labels, clear and Counter.reset: gone from every process at once, and begun anew at zero."""

from __future__ import annotations

import pytest
from helpers import child, in_child, scrape, value
from prometheus_client import Counter, Gauge, Histogram, Summary

import sqlmetrics

pytestmark = pytest.mark.promise(2, 12)


def names() -> set[str]:
    """The sample names of a scrape."""
    return {name for name, _ in scrape()}


def test_a_removed_series_is_gone_from_all_processes_at_once(store: sqlmetrics.Store, shell) -> None:
    """One process removes, a third one's scrape and the views show nothing, while two hold the child."""
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/other").inc()

    with child(count=lambda: requests.labels("/").inc(5)) as one, child(remove=lambda: requests.remove("/")) as two:
        one.do("count")
        held = requests.labels("/")
        held.inc(3)
        assert value("requests_total", path="/") == 8

        two.do("remove")

        assert value("requests_total", path="/") is None
        assert in_child(lambda: sorted(path for (_, ((_, path),)), _ in scrape().items())) == ["/other"]
        assert shell("SELECT * FROM metrics WHERE labels LIKE '%\"/\"%'") == []
        assert shell("SELECT * FROM samples WHERE labels LIKE '%\"/\"%'") == []


def test_who_holds_the_child_counts_on_from_zero(store: sqlmetrics.Store) -> None:
    """In the remover as well as in the others, whether by the object or by its labels."""
    requests = Counter("requests", "Requests", ["path"])
    held = requests.labels("/")
    held.inc(100)

    with child(
        count=lambda: held.inc(), again=lambda: requests.labels("/").inc(), remove=lambda: requests.remove("/")
    ) as one:
        one.do("count")
        one.do("remove")
        one.do("count")
        assert value("requests_total", path="/") == 1
        held.inc(10)
        one.do("again")
        assert value("requests_total", path="/") == 12

        requests.remove("/")
        assert value("requests_total", path="/") is None
        one.do("count")
        requests.labels("/").inc(20)
        held.inc(300)
        assert value("requests_total", path="/") == 321
        store.flush()
        assert value("requests_total", path="/") == 321


@pytest.mark.parametrize("mode", ["all", "liveall", "min", "max", "sum", "livesum", "mostrecent", "livemostrecent"])
def test_a_removal_takes_gauges_of_all_modes(store: sqlmetrics.Store, mode: str) -> None:
    """And are there again with what is set afterwards."""
    depth = Gauge("depth", "Depth", ["queue"], multiprocess_mode=mode)
    depth.labels("a").set(1)

    with child(set=lambda amount: depth.labels("a").set(amount)) as one:
        one.do("set", 7)
        store.flush()
        depth.remove("a")
        assert "depth" not in names()
        one.do("set", 3)

        assert [amount for (name, _), amount in scrape().items() if name == "depth"] == [3]


def test_summaries_and_histograms_go_as_a_whole(store: sqlmetrics.Store) -> None:
    """Sums, counts and buckets of one child; others stay."""
    latency = Histogram("latency", "Latency", ["path"], buckets=[1, 2])
    size = Summary("size", "Size", ["path"])

    def observe(path: str) -> None:
        latency.labels(path).observe(1.5)
        size.labels(path).observe(10)

    with child(observe=observe) as one:
        for path in ("/", "/other"):
            observe(path)
            one.do("observe", path)
        latency.remove("/")
        size.remove("/")
        assert {dict(labels)["path"] for _, labels in scrape()} == {"/other"}
        assert value("latency_count", path="/other") == value("size_count", path="/other") == 2

        one.do("observe", "/")
        assert value("latency_bucket", path="/", le="2.0") == value("latency_count", path="/") == 1
        assert (value("latency_sum", path="/"), value("size_sum", path="/")) == (1.5, 10)


def test_two_histograms_of_one_name_are_removed_as_one(store: sqlmetrics.Store) -> None:
    """Their children share samples, and so they are one series each."""
    few = Histogram("latency", "Latency", ["path"], buckets=[1], registry=None)
    many = Histogram("latency", "Latency", ["path"], buckets=[1, 2], registry=None)
    held = many.labels("/")
    for metric in (few, many):
        metric.labels("/").observe(0.5)
    assert value("latency_count", path="/") == 2

    few.remove("/")
    assert "latency_count" not in names()
    held.observe(1.5)

    assert value("latency_bucket", path="/", le="1.0") == 0
    assert value("latency_count", path="/") == 1


def test_what_the_dead_left_is_removed(store: sqlmetrics.Store, shell) -> None:
    """Folded sums, and `all` gauges of processes that ended, whose rows go too."""
    requests = Counter("requests", "Requests", ["path"])
    each = Gauge("each", "Each", ["queue"], multiprocess_mode="all")
    requests.labels("/").inc()

    def work() -> None:
        requests.labels("/").inc(5)
        each.labels("a").set(9)

    for _ in range(3):
        in_child(work)
    store.flush()
    assert value("requests_total", path="/") == 16
    assert len([name for name, _ in scrape() if name == "each"]) == 3

    requests.remove("/")
    each.remove("a")

    assert scrape() == {}
    assert shell("SELECT * FROM processes WHERE state = 'remembered'") == []
    assert shell("SELECT * FROM series WHERE family NOT IN (SELECT id FROM figure)") == []


def test_a_process_that_died_unsettled_is_removed_too(store: sqlmetrics.Store) -> None:
    """Its last child was in its journal only."""
    requests = Counter("requests", "Requests", ["path"])

    with child(count=lambda: requests.labels("/").inc(5)) as one:
        one.do("count")
        one.kill()
    requests.remove("/")
    requests.labels("/other").inc()

    assert value("requests_total", path="/") is None
    store.flush()
    assert value("requests_total", path="/") is None


def test_remove_by_labels_removes_what_has_these_labels(store: sqlmetrics.Store) -> None:
    """In all processes, odd texts included."""
    requests = Counter("requests", "Requests", ["path", "method"])
    odd = 'a"b\\c\nd\ud800é'

    def count() -> None:
        for path in ("/", odd):
            for method in ("get", "post"):
                requests.labels(path, method).inc()

    with child(count=count) as one:
        one.do("count")
        count()
        requests.remove_by_labels({"path": odd})
        assert {dict(labels)["path"] for _, labels in scrape()} == {"/"}
        requests.remove_by_labels({"method": "get"})
        assert {tuple(dict(labels).values()) for _, labels in scrape()} == {("post", "/")}
        one.do("count")

        assert value("requests_total", path="/", method="get") == 1
        assert value("requests_total", path="/", method="post") == 3


def test_clear_removes_all_children(store: sqlmetrics.Store) -> None:
    """Of one metric; of a metric without label names nothing."""
    requests = Counter("requests", "Requests", ["path"])
    plain = Counter("plain", "Plain")
    plain.inc()

    def count() -> None:
        for number in range(50):
            requests.labels(str(number)).inc()

    with child(count=count) as one:
        one.do("count")
        count()
        requests.clear()
        plain.clear()
        assert scrape() == {("plain_total", ()): 1}
        one.do("count")

        assert value("requests_total", path="7") == 1


@pytest.mark.slow
def test_a_reset_counter_is_shown_with_zero(store: sqlmetrics.Store, shell) -> None:
    """The parts of all processes and of the dead are gone; who holds it counts on from zero."""
    events = Counter("events", "Events")
    by = Counter("by", "By", ["who"])

    def count() -> None:
        events.inc(5)
        by.labels("me").inc(5)

    in_child(count)
    with child(count=count) as one:
        one.do("count")
        count()
        before = events._created
        events.reset()
        by.labels("me").reset()

        assert (value("events_total"), value("by_total", who="me")) == (0, 0)
        assert events._created > before
        assert shell("SELECT value FROM metrics WHERE metric = 'events_total'") == [{"value": 0.0}]
        made = shell.value("SELECT created FROM series WHERE name = 'events_total'")
        assert before < made <= events._created  # type: ignore[operator]
        one.do("count")
        events.inc()
        assert (value("events_total"), value("by_total", who="me")) == (6, 5)
        store.flush()
        shell.wait_for_row("SELECT value FROM metrics WHERE metric = 'events_total' AND value = 6")


def test_arguments_are_checked_as_the_peer_does(store: sqlmetrics.Store) -> None:
    """The same errors with the same texts."""
    requests = Counter("requests", "Requests", ["path"])
    plain = Counter("plain", "Plain")

    with pytest.raises(ValueError, match=r"^No label names were set when constructing counter:plain$"):
        plain.remove("a")
    with pytest.raises(ValueError, match=r"^Incorrect label count \(expected 1, got \('a', 'b'\)\)$"):
        requests.remove("a", "b")
    requests.remove("never made")
    requests.labels("1").inc()
    requests.remove(1)
    assert "requests_total" not in names()


@pytest.mark.skipif(not hasattr(Counter, "remove_by_labels"), reason="an older prometheus_client")
def test_labels_are_checked_as_the_peer_does(store: sqlmetrics.Store) -> None:
    """No labels at all remove nothing."""
    requests = Counter("requests", "Requests", ["path"])
    plain = Counter("plain", "Plain")
    requests.labels("/").inc()

    with pytest.raises(ValueError, match=r"^No label names were set when constructing counter:plain$"):
        plain.remove_by_labels({"path": "/"})
    with pytest.raises(TypeError, match=r"^labels must be a dict of \{label_name: label_value\}$"):
        requests.remove_by_labels("/")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^Unknown label names: \['user'\]; expected \('path',\)$"):
        requests.remove_by_labels({"user": "me"})
    requests.remove_by_labels({})
    assert value("requests_total", path="/") == 1


def test_removal_does_not_warn_with_the_peers_variable(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that removal is not implemented in its multiprocess mode; here it is. (Warnings are errors in tests.)"""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    sqlmetrics.install()
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()

    requests.remove("/")
    requests.remove_by_labels({"path": "/"})
    requests.clear()

    assert "requests_total" not in names()


def test_uninstall_gives_the_peers_methods_back(path: str) -> None:
    """They are in the table of what is replaced."""
    before = [Counter.remove, Counter.clear, Counter.reset]
    sqlmetrics.install(path)
    assert Counter.remove is not before[0]
    sqlmetrics.uninstall()

    assert [Counter.remove, Counter.clear, Counter.reset] == before


# --- removers that are killed --------------------------------------------------------------------------------------
