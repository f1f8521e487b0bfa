"""`max_series`: beyond so many label sets of a metric, new ones count in one series, and memory does not grow."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from helpers import Shell, in_child, own, value
from limits import FOREVER, OTHER, paths_of
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)

import sqlmetrics

pytestmark = [pytest.mark.promise(10), pytest.mark.store(flush_interval=FOREVER, max_series=3)]


def test_new_label_sets_beyond_the_limit_count_in_one_series(store: sqlmetrics.Store, shell: Shell) -> None:
    """All of whose label values are `(other)`; those that have a series go on, and nothing is lost."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(100):
        requests.labels(f"/{number}").inc()
    requests.labels("/1").inc(5)
    store.flush()

    assert paths_of() == {"/0": 1, "/1": 6, "/2": 1, OTHER: 97}
    assert shell.value("SELECT count(*) FROM series WHERE name = 'requests_total'") == 4
    assert shell.value('SELECT value FROM metrics WHERE labels = \'{"path":"(other)"}\'') == 97


def test_memory_does_not_grow_with_what_is_refused(store: sqlmetrics.Store) -> None:
    """Neither the metric nor the store's own objects keep a label set that got no series."""
    requests = Counter("requests", "Requests", ["path", "user"])
    for number in range(1000):
        requests.labels(f"/{number}", "someone").inc()
    others = requests.labels("/again", "and again")

    assert len(requests._metrics) == 4
    assert others is requests.labels(OTHER, OTHER) is requests.labels(path="/by", user="name")
    (made,) = store.rounds.admission._made.values()
    assert len(made) <= 3


def test_each_operation_works_on_the_series_of_the_others(store: sqlmetrics.Store) -> None:
    """Of all kinds of metrics: its child is one like any other."""
    names = iter(f"/{number}" for number in count())
    kinds: dict[str, Any] = {
        "counter": Counter("events", "Events", ["path"]),
        "gauge": Gauge("level", "Level", ["path"], multiprocess_mode="sum"),
        "busy": Gauge("busy", "Busy", ["path"], multiprocess_mode="livesum"),
        "function": Gauge("asked", "Asked", ["path"], multiprocess_mode="max"),
        "summary": Summary("size", "Size", ["path"]),
        "histogram": Histogram("latency", "Latency", ["path"], buckets=(1, 2)),
        "info": Info("build", "Build", ["path"]),
        "enum": Enum("task", "Task", ["path"], states=["waiting", "running"]),
    }
    for metric in kinds.values():
        for _ in range(3):
            metric.labels(next(names))

    kinds["counter"].labels("/a").inc(2, exemplar={"trace": "x"})
    kinds["counter"].labels("/b").inc(3)
    kinds["gauge"].labels("/a").set(7)
    kinds["gauge"].labels("/b").dec(3)
    with kinds["busy"].labels("/a").track_inprogress(), kinds["busy"].labels("/b").track_inprogress():
        assert value("busy", path=OTHER) == 2
    kinds["function"].labels("/a").set_function(lambda: 42)
    kinds["summary"].labels("/a").observe(5)
    kinds["histogram"].labels("/a").observe(1.5, {"trace": "y"})
    kinds["info"].labels("/a").info({"version": "1"})
    kinds["info"].labels("/b").info({"version": "2"})
    kinds["enum"].labels("/a").state("running")
    store.flush()

    shown = {
        "events_total": 5.0,
        "level": 4.0,
        "busy": 0.0,
        "asked": 42.0,
        "size_sum": 5.0,
        "latency_count": 1.0,
    }
    assert {name: value(name, path=OTHER) for name in shown} == shown
    assert value("latency_bucket", path=OTHER, le="2.0") == 1
    assert value("build_info", path=OTHER, version="2") == 1
    assert value("task", path=OTHER, task="running") == 1
    exemplified = sqlmetrics.generate_latest(openmetrics=True).decode()
    assert '{trace="x"} 2.0' in exemplified
    assert '{trace="y"} 1.5' in exemplified


def test_one_label_set_is_one_whatever_its_samples(store: sqlmetrics.Store) -> None:
    """A histogram's child has 16 samples, and counts as one."""
    latency = Histogram("latency", "Latency", ["path"])
    for number in range(5):
        latency.labels(f"/{number}").observe(1)
    store.flush()

    assert paths_of("latency_count") == {"/0": 1, "/1": 1, "/2": 1, OTHER: 2}


def test_each_metric_has_a_limit_of_its_own(store: sqlmetrics.Store) -> None:
    """One that explodes takes no room from another; one without labels is never limited."""
    wild, tame, plain = Counter("wild", "W", ["path"]), Counter("tame", "T", ["path"]), Counter("plain", "P")
    for number in range(10):
        wild.labels(f"/{number}").inc()
        plain.inc()
    for number in range(3):
        tame.labels(f"/{number}").inc()

    assert paths_of("tame_total") == {"/0": 1, "/1": 1, "/2": 1}
    assert value("plain_total") == 10


def test_a_metric_at_its_limit_is_told_once_and_counted(
    store: sqlmetrics.Store, shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the metric; a family about the store counts the calls of `labels()` that it was about."""
    first, second = Counter("first", "F", ["path"]), Gauge("second", "S", ["path"], multiprocess_mode="sum")
    for number in range(10):
        first.labels(f"/{number}").inc()
        first.labels(f"/{number}").inc()
        second.labels(f"/{number}").set(1)
    store.flush()
    store.flush()

    told = [record for record in caplog.records if "max_series" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING] * 2
    assert ["first" in record.getMessage() for record in told] == [True, False]
    assert own("series_limited_total", family="first") == 14
    assert own("series_limited_total", family="second") == 7
    assert "sqlmetrics_series_limited" not in sqlmetrics.generate_latest().decode()
    assert not [row for row in shell("SELECT metric FROM samples") if "sqlmetrics" in str(row["metric"])]


@pytest.mark.parametrize(
    "remove",
    [
        lambda metric: metric.remove("/0", "get"),
        lambda metric: metric.remove_by_labels({"path": "/0"}),
        lambda metric: metric.clear(),
    ],
    ids=["remove", "remove_by_labels", "clear"],
)
@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_removal_makes_room(store: sqlmetrics.Store, is_flushed: bool, remove: Callable[[Any], None]) -> None:
    """At once, whether or not the label sets were rows."""
    requests = Counter("requests", "Requests", ["path", "method"])
    for number in range(5):
        requests.labels(f"/{number}", "get").inc()
    if is_flushed:
        store.flush()

    remove(requests)
    requests.labels("/new", "get").inc()

    assert value("requests_total", path="/new", method="get") == 1


def test_what_was_refused_can_be_removed(store: sqlmetrics.Store) -> None:
    """As anything that a metric does not have: nothing happens; `(other)` itself can be removed, and comes again."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(5):
        requests.labels(f"/{number}").inc()

    requests.remove("/4")
    requests.remove("/never seen")
    assert paths_of() == {"/0": 1, "/1": 1, "/2": 1, OTHER: 2}

    requests.remove(OTHER)
    assert paths_of() == {"/0": 1, "/1": 1, "/2": 1}
    requests.labels("/4").inc()
    assert paths_of() == {"/0": 1, "/1": 1, "/2": 1, OTHER: 1}


def test_metrics_from_before_install_keep_their_children_and_get_no_more(path: str) -> None:
    """Their children go on, and count; new ones beyond the limit do not come, not even before a flush."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(4):
        requests.labels(f"/{number}").inc()

    sqlmetrics.install(path, flush_interval=FOREVER, max_series=3)
    for number in range(6):
        requests.labels(f"/{number}").inc()

    assert paths_of() == {"/0": 2, "/1": 2, "/2": 2, "/3": 2, OTHER: 2}


def test_threads_that_make_a_label_set_at_one_moment_stay_at_the_limit(path: str) -> None:
    """However many make a label set at one moment, there are not more."""
    store = sqlmetrics.install(path, flush_interval=FOREVER, max_series=10)
    requests = Counter("requests", "Requests", ["path"])
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for place in range(200):
            requests.labels(f"/{number}/{place}").inc()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    store.flush()
    assert sum(paths_of().values()) == 1600
    assert len(paths_of()) == 11
    assert own("series_limited_total", family="requests") == 1590


def test_private_registries_are_not_limited(store: sqlmetrics.Store) -> None:
    """They show what they show without a store."""
    registry = sqlmetrics.private(CollectorRegistry())
    mine = Counter("mine", "Mine", ["path"], registry=registry)
    for number in range(10):
        mine.labels(f"/{number}").inc()

    assert OTHER not in generate_latest(registry).decode()
    assert len(mine._metrics) == 10


def test_uninstall_ends_the_limit(store: sqlmetrics.Store) -> None:
    """Then a metric is `prometheus_client`'s again."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(4):
        requests.labels(f"/{number}").inc()
    sqlmetrics.uninstall()

    requests.labels("/new").inc()

    assert REGISTRY.get_sample_value("requests_total", {"path": "/new"}) == 1
    assert REGISTRY.get_sample_value("requests_total", {"path": OTHER}) == 1


@pytest.mark.store
def test_without_the_setting_there_is_no_limit(store: sqlmetrics.Store) -> None:
    """And nothing is looked at."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(2000):
        requests.labels(f"/{number}").inc()
    store.flush()

    assert len(paths_of()) == 2000
    assert not store.rounds.admission._known


REFUSED: dict[str, Callable[[Any], Any]] = {
    "too few": lambda metric: metric.labels("/a"),
    "too many": lambda metric: metric.labels("/a", "b", "c"),
    "both ways": lambda metric: metric.labels("/a", method="get"),
    "another name": lambda metric: metric.labels(path="/a", verb="get"),
    "of a child": lambda metric: metric.labels("/0", "get").labels("/0", "get"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused_as_ever(store: sqlmetrics.Store, call: Callable[[Any], Any]) -> None:
    """With the same error as before, at the limit too."""
    requests = Counter("requests", "Requests", ["path", "method"])
    for number in range(4):
        requests.labels(f"/{number}", "get")

    with pytest.raises(ValueError, match=r"label|both"):
        call(requests)


def test_label_values_of_any_kind_are_known_again(store: sqlmetrics.Store) -> None:
    """Numbers, texts beyond ASCII and lone surrogates are known again, as their rows have them."""
    requests = Counter("requests", "Requests", ["path"])

    def work() -> None:
        for path in (200, "/grüße", "/\ud800"):
            requests.labels(path).inc()
        store.flush()

    in_child(work)
    store.flush()
    store.rounds.admission.begin()
    for path in (200, "/grüße", "/\ud800", "/new"):
        requests.labels(path).inc()

    assert len(requests._metrics) == 4
    assert value("requests_total", path="200") == 2
    assert value("requests_total", path=OTHER) == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3"])
def test_a_limit_that_cannot_be_used_is_refused(path: str, wrong: Any) -> None:
    """The error says what was found, and what is wanted."""
    with pytest.raises(ValueError, match=rf"max_series is {wrong!r}; .* whole number"):
        sqlmetrics.install(path, max_series=wrong)
