"""`max_series`: beyond so many label sets of a metric, new ones count in one series, and memory does not grow."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from apps.serving import serving
from helpers import Child, Shell, child, in_child, own, scrape, value, wait_for
from launching import run, write
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

FOREVER = 3600.0
OTHER = "(other)"


@pytest.fixture
def limited(path: str) -> sqlmetrics.Store:
    """A store whose metrics may have three label sets each, and which flushes when it is told to or has new ones."""
    return sqlmetrics.install(path, flush_interval=FOREVER, max_series=3)


def paths_of(name: str = "requests_total") -> dict[str, float]:
    """The values of a sample by its label `path`, as a scrape shows them."""
    return {dict(labels)["path"]: value for (sample, labels), value in scrape().items() if sample == name}


def test_new_label_sets_beyond_the_limit_count_in_one_series(limited: sqlmetrics.Store, shell: Shell) -> None:
    """All of whose label values are `(other)`; those that have a series go on, and nothing is lost."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(100):
        requests.labels(f"/{number}").inc()
    requests.labels("/1").inc(5)
    limited.flush()

    assert paths_of() == {"/0": 1, "/1": 6, "/2": 1, OTHER: 97}
    assert shell.value("SELECT count(*) FROM series WHERE name = 'requests_total'") == 4
    assert shell.value('SELECT value FROM metrics WHERE labels = \'{"path":"(other)"}\'') == 97


def test_memory_does_not_grow_with_what_is_refused(limited: sqlmetrics.Store) -> None:
    """Neither the metric nor the store's own objects keep a label set that got no series."""
    requests = Counter("requests", "Requests", ["path", "user"])
    for number in range(1000):
        requests.labels(f"/{number}", "someone").inc()
    others = requests.labels("/again", "and again")

    assert len(requests._metrics) == 4
    assert others is requests.labels(OTHER, OTHER) is requests.labels(path="/by", user="name")
    (made,) = limited.rounds.admission._made.values()
    assert len(made) <= 3


def test_each_operation_works_on_the_series_of_the_others(limited: sqlmetrics.Store) -> None:
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
    limited.flush()

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


def test_one_label_set_is_one_whatever_its_samples(limited: sqlmetrics.Store) -> None:
    """A histogram's child has 16 samples, and counts as one."""
    latency = Histogram("latency", "Latency", ["path"])
    for number in range(5):
        latency.labels(f"/{number}").observe(1)
    limited.flush()

    assert paths_of("latency_count") == {"/0": 1, "/1": 1, "/2": 1, OTHER: 2}


def test_each_metric_has_a_limit_of_its_own(limited: sqlmetrics.Store) -> None:
    """One that explodes takes no room from another; one without labels is never limited."""
    wild, tame, plain = Counter("wild", "W", ["path"]), Counter("tame", "T", ["path"]), Counter("plain", "P")
    for number in range(10):
        wild.labels(f"/{number}").inc()
        plain.inc()
    for number in range(3):
        tame.labels(f"/{number}").inc()

    assert paths_of("tame_total") == {"/0": 1, "/1": 1, "/2": 1}
    assert value("plain_total") == 10


def test_it_is_said_once_per_metric_and_counted(
    limited: sqlmetrics.Store, shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the metric; a family about the store counts the calls of `labels()` that it was about."""
    first, second = Counter("first", "F", ["path"]), Gauge("second", "S", ["path"], multiprocess_mode="sum")
    for number in range(10):
        first.labels(f"/{number}").inc()
        first.labels(f"/{number}").inc()
        second.labels(f"/{number}").set(1)
    limited.flush()
    limited.flush()

    told = [record for record in caplog.records if "max_series" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING] * 2
    assert ["first" in record.getMessage() for record in told] == [True, False]
    assert own("series_limited_total", family="first") == 14
    assert own("series_limited_total", family="second") == 7
    assert "sqlmetrics_series_limited" not in sqlmetrics.generate_latest().decode()
    assert not [row for row in shell("SELECT metric FROM samples") if "sqlmetrics" in str(row["metric"])]


def test_it_is_counted_for_all_processes(limited: sqlmetrics.Store) -> None:
    """The calls that a process made which was killed since, too."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(5):
        requests.labels(f"/{number}").inc()

    def work() -> None:
        for number in range(10, 20):
            requests.labels(f"/{number}").inc()
        limited.flush()

    with child(work=work) as one:
        one.do("work")
        one.kill()
    limited.flush()

    assert own("series_limited_total", family="requests") == 12


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
def test_a_removal_makes_room(limited: sqlmetrics.Store, is_flushed: bool, remove: Callable[[Any], None]) -> None:
    """At once, whether or not the label sets were rows."""
    requests = Counter("requests", "Requests", ["path", "method"])
    for number in range(5):
        requests.labels(f"/{number}", "get").inc()
    if is_flushed:
        limited.flush()

    remove(requests)
    requests.labels("/new", "get").inc()

    assert value("requests_total", path="/new", method="get") == 1


def test_what_was_refused_can_be_removed(limited: sqlmetrics.Store) -> None:
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


def test_processes_share_the_limit(limited: sqlmetrics.Store) -> None:
    """A label set that another process has is one's own series, too; one that nobody has is not."""
    requests = Counter("requests", "Requests", ["path"])

    def count_paths(*paths: str) -> None:
        for path in paths:
            requests.labels(path).inc()
        limited.flush()

    with child(count=count_paths) as first, child(count=count_paths) as second:
        first.do("count", "/a", "/b")
        second.do("count", "/c")
        second.do("count", "/a", "/d", "/b", "/e")
        first.do("count", "/c", "/d", "/a")

    assert paths_of() == {"/a": 3, "/b": 2, "/c": 2, OTHER: 3}


@pytest.fixture
def others(limited: sqlmetrics.Store) -> Iterator[Child]:
    """Another process, whose label sets are in no row: its flusher is not there."""
    requests = Counter("requests", "Requests", ["path"])

    def count_paths(*paths: str) -> None:
        limited.flusher.stop()
        for path in paths:
            requests.labels(path).inc()

    with child(count=count_paths) as one:
        yield one
    REGISTRY.unregister(requests)


def test_label_sets_that_are_no_rows_yet_count(others: Child) -> None:
    """What another process has made a moment ago is known to all, as it is to scrapes."""
    others.do("count", "/a", "/b")
    requests = REGISTRY._names_to_collectors["requests"]
    requests.labels("/c").inc()
    for path in ("/d", "/b", "/a", "/e"):
        requests.labels(path).inc()
    others.do("count", "/c", "/f")

    assert paths_of() == {"/a": 2, "/b": 2, "/c": 2, OTHER: 3}


def test_what_a_killed_process_made_counts_before_it_is_in_rows(others: Child) -> None:
    """Its journal is there, and its series are shown."""
    others.do("count", "/a", "/b", "/c")
    others.kill()
    requests = REGISTRY._names_to_collectors["requests"]
    requests.labels("/d").inc()

    assert paths_of() == {"/a": 1, "/b": 1, "/c": 1, OTHER: 1}


def test_a_forked_process_hears_of_its_parent(limited: sqlmetrics.Store) -> None:
    """Of what that makes after the fork, before it is in rows."""
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/a").inc()
    requests.labels("/b").inc()

    with child(count=lambda path: requests.labels(path).inc()) as one:
        one.do("count", "/a")
        limited.flusher.stop()
        requests.labels("/c").inc()
        one.do("count", "/d")
        one.do("count", "/c")

    assert paths_of() == {"/a": 2, "/b": 1, "/c": 2, OTHER: 1}


def test_four_processes_at_once_stay_at_the_limit(path: str, shell: Shell) -> None:
    """Or near it: two that make one at the same moment may both find room, and one that begins knows less."""
    sqlmetrics.install(path, max_series=200)
    requests = Counter("requests", "Requests", ["path"])

    def explode(number: int) -> int:
        for place in range(3000):
            requests.labels(f"/{number}/{place}").inc()
        return len(requests._metrics)

    crowd: list[Child] = []
    for number in range(4):
        one = Child()
        if one.in_child:
            one.serve(explode=lambda number=number: explode(number))
        crowd.append(one)
    try:
        for one in crowd:
            print('["explode", []]', file=one._out, flush=True)
        for one in crowd:
            assert one._in.readline()
    finally:
        for one in crowd:
            one.kill()

    assert sum(paths_of().values()) == 12_000
    assert 200 + 1 <= len(paths_of()) <= 600  # 4 x 200 + 1 if they knew nothing of one another
    wait_for(lambda: shell.value("SELECT sum(value) FROM metrics") == 12_000)


def test_a_process_that_starts_knows_what_there_is(path: str, limited: sqlmetrics.Store) -> None:
    """It has looked when it is installed: a worker that is restarted again and again adds nothing."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(3):
        requests.labels(f"/{number}").inc()
    limited.flush()
    sqlmetrics.uninstall()
    requests.clear()

    sqlmetrics.install(path, flush_interval=FOREVER, max_series=3)
    requests.labels("/1").inc()
    requests.labels("/new").inc()

    assert paths_of() == {"/0": 1, "/1": 2, "/2": 1, OTHER: 1}


def test_what_ended_processes_left_counts(limited: sqlmetrics.Store) -> None:
    """Their series are shown like others; removing one makes room."""
    requests = Counter("requests", "Requests", ["path"])

    def work() -> None:
        for number in range(3):
            requests.labels(f"/{number}").inc()
        limited.flush()

    in_child(work)
    limited.flush()
    requests.labels("/new").inc()
    limited.flush()
    requests.labels("/newer").inc()
    assert requests.labels("/newer") is requests.labels(OTHER)

    requests.remove("/0")
    limited.flush()
    requests.remove("/new")
    requests.labels("/newest").inc()
    assert value("requests_total", path="/newest") == 1


def test_a_removal_in_another_process_makes_room(limited: sqlmetrics.Store) -> None:
    """With the next flush of this one, or its next look at what others have written."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(4):
        requests.labels(f"/{number}").inc()
    limited.flush()

    in_child(lambda: requests.remove("/0"))

    def has_room() -> bool:
        limited.flush()
        requests.labels("/new").inc()
        return "/new" in paths_of()

    wait_for(has_room)


def test_a_killed_process_beyond_the_limit_loses_nothing(limited: sqlmetrics.Store) -> None:
    """What it counted in `(other)` is what it counted."""
    requests = Counter("requests", "Requests", ["path"])

    def work() -> None:
        for number in range(1000):
            requests.labels(f"/{number}").inc()

    for _ in range(2):
        with child(work=work) as one:
            one.do("work")
            one.kill()

    assert sum(paths_of().values()) == 2000
    limited.flush()
    assert sum(paths_of().values()) == 2000
    assert len(paths_of()) == 4


def test_metrics_that_were_there_before_the_store(path: str) -> None:
    """Their children go on, and count; new ones beyond the limit do not come, not even before a flush."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(4):
        requests.labels(f"/{number}").inc()

    sqlmetrics.install(path, flush_interval=FOREVER, max_series=3)
    for number in range(6):
        requests.labels(f"/{number}").inc()

    assert paths_of() == {"/0": 2, "/1": 2, "/2": 2, "/3": 2, OTHER: 2}


def test_threads_at_the_limit(path: str) -> None:
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


def test_a_fork_takes_over_what_is_known(limited: sqlmetrics.Store) -> None:
    """A child of a process at the limit is at the limit from its first operation on."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(3):
        requests.labels(f"/{number}").inc()

    in_child(lambda: [requests.labels(path).inc() for path in ("/0", "/new", "/newer")] and None)

    assert paths_of() == {"/0": 2, "/1": 1, "/2": 1, OTHER: 2}


def test_private_registries_are_not_limited(limited: sqlmetrics.Store) -> None:
    """They show what they show without a store."""
    registry = sqlmetrics.private(CollectorRegistry())
    mine = Counter("mine", "Mine", ["path"], registry=registry)
    for number in range(10):
        mine.labels(f"/{number}").inc()

    assert OTHER not in generate_latest(registry).decode()
    assert len(mine._metrics) == 10


def test_uninstall_ends_the_limit(limited: sqlmetrics.Store) -> None:
    """Then a metric is `prometheus_client`'s again."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(4):
        requests.labels(f"/{number}").inc()
    sqlmetrics.uninstall()

    requests.labels("/new").inc()

    assert REGISTRY.get_sample_value("requests_total", {"path": "/new"}) == 1
    assert REGISTRY.get_sample_value("requests_total", {"path": OTHER}) == 1


def test_without_the_setting_there_is_no_limit(store: sqlmetrics.Store) -> None:
    """And nothing is looked at."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(2000):
        requests.labels(f"/{number}").inc()
    store.flush()

    assert len(paths_of()) == 2000
    assert not store.rounds.admission._known


def test_after_a_reset_there_is_room_for_all(limited: sqlmetrics.Store) -> None:
    """A launcher empties the store before its workers start: they must not go by what was there."""
    in_child(lambda: _fill(limited))
    limited.flush()
    requests = Counter("requests", "Requests", ["path"])

    sqlmetrics.reset(force=True)
    requests.labels("/new").inc()

    assert paths_of() == {"/new": 1}


def _fill(store: sqlmetrics.Store) -> None:
    requests = Counter("requests", "Requests", ["path"], registry=None)
    for number in range(3):
        requests.labels(f"/{number}").inc()
    store.flush()


REFUSED: dict[str, Callable[[Any], Any]] = {
    "too few": lambda metric: metric.labels("/a"),
    "too many": lambda metric: metric.labels("/a", "b", "c"),
    "both ways": lambda metric: metric.labels("/a", method="get"),
    "another name": lambda metric: metric.labels(path="/a", verb="get"),
    "of a child": lambda metric: metric.labels("/0", "get").labels("/0", "get"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused_as_ever(limited: sqlmetrics.Store, call: Callable[[Any], Any]) -> None:
    """With the same error as before, at the limit too."""
    requests = Counter("requests", "Requests", ["path", "method"])
    for number in range(4):
        requests.labels(f"/{number}", "get")

    with pytest.raises(ValueError, match=r"label|both"):
        call(requests)


def test_label_values_of_any_kind(limited: sqlmetrics.Store) -> None:
    """Numbers, texts beyond ASCII and lone surrogates are known again, as their rows have them."""
    requests = Counter("requests", "Requests", ["path"])

    def work() -> None:
        for path in (200, "/grüße", "/\ud800"):
            requests.labels(path).inc()
        limited.flush()

    in_child(work)
    limited.flush()
    limited.rounds.admission.begin()
    for path in (200, "/grüße", "/\ud800", "/new"):
        requests.labels(path).inc()

    assert len(requests._metrics) == 4
    assert value("requests_total", path="200") == 2
    assert value("requests_total", path=OTHER) == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3"])
def test_a_keyword_that_cannot_be_used(path: str, wrong: Any) -> None:
    """The error says what was found, and what is wanted."""
    with pytest.raises(ValueError, match=rf"max_series is {wrong!r}; .* whole number"):
        sqlmetrics.install(path, max_series=wrong)


def test_the_launcher_takes_it_from_the_environment(folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it takes the other settings: the program is not changed."""
    monkeypatch.setenv("SQLMETRICS_MAX_SERIES", "3")
    program = write(
        folder,
        "program.py",
        """
        from prometheus_client import Counter

        REQUESTS = Counter("requests", "Requests", ["path"])
        for number in range(10):
            REQUESTS.labels(f"/{number}").inc()
        """,
    )
    for _ in range(2):
        assert run(sys.executable, str(program), path=path).returncode == 0

    shown = {dict(labels)["path"]: count for (name, labels), count in scrape(path).items() if name == "requests_total"}
    assert shown == {"/0": 1, "/1": 1, "/2": 1, OTHER: 7}


def test_gunicorn_workers_share_the_limit(folder: Path, path: str) -> None:
    """A bot asks four workers for paths that nobody has: all is counted, in about as many series as may be."""
    with serving(
        folder,
        "counting:app",
        "-w4",
        SQLMETRICS_PATH=path,
        SQLMETRICS_MAX_SERIES="20",
        SQLMETRICS_FLUSH_INTERVAL="0.02",
    ) as server:
        server.workers(4)
        server.get_all(f"/user/{number}" for number in range(1000))
        shown = {
            dict(labels)["path"]: count
            for (name, labels), count in scrape(path).items()
            if name == "requests_total" and dict(labels)["path"].startswith(("/user", OTHER))
        }

    assert sum(shown.values()) >= 1000
    assert 20 <= len(shown) <= 40
    assert shown[OTHER] > 900
