"""`max_series` over processes: they share the limit, whoever made a label set, and wherever it is written yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps.serving import serving
from helpers import Child, Shell, child, in_child, own, scrape, value, wait_for
from launching import run, write
from limits import FOREVER, OTHER, paths_of
from prometheus_client import REGISTRY, Counter

import sqlmetrics

pytestmark = [pytest.mark.promise(10), pytest.mark.store(flush_interval=FOREVER, max_series=3)]


def test_refused_calls_are_counted_for_all_processes(store: sqlmetrics.Store) -> None:
    """The calls that a process made which was killed since, too."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(5):
        requests.labels(f"/{number}").inc()

    def work() -> None:
        for number in range(10, 20):
            requests.labels(f"/{number}").inc()
        store.flush()

    with child(work=work) as one:
        one.do("work")
        one.kill()
    store.flush()

    assert own("series_limited_total", family="requests") == 12


def test_processes_share_the_limit(store: sqlmetrics.Store) -> None:
    """A label set that another process has is one's own series, too; one that nobody has is not."""
    requests = Counter("requests", "Requests", ["path"])

    def count_paths(*paths: str) -> None:
        for path in paths:
            requests.labels(path).inc()
        store.flush()

    with child(count=count_paths) as first, child(count=count_paths) as second:
        first.do("count", "/a", "/b")
        second.do("count", "/c")
        second.do("count", "/a", "/d", "/b", "/e")
        first.do("count", "/c", "/d", "/a")

    assert paths_of() == {"/a": 3, "/b": 2, "/c": 2, OTHER: 3}


@pytest.fixture
def others(store: sqlmetrics.Store) -> Iterator[Child]:
    """Another process, whose label sets are in no row: its flusher is not there."""
    requests = Counter("requests", "Requests", ["path"])

    def count_paths(*paths: str) -> None:
        store.flusher.stop()
        for path in paths:
            requests.labels(path).inc()

    with child(count=count_paths) as one:
        yield one
    REGISTRY.unregister(requests)


def test_label_sets_that_are_no_rows_yet_count_against_the_limit(others: Child) -> None:
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


def test_a_forked_process_hears_of_its_parent(store: sqlmetrics.Store) -> None:
    """Of what that makes after the fork, before it is in rows."""
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/a").inc()
    requests.labels("/b").inc()

    with child(count=lambda path: requests.labels(path).inc()) as one:
        one.do("count", "/a")
        store.flusher.stop()
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


def test_a_process_that_starts_knows_what_there_is(path: str, store: sqlmetrics.Store) -> None:
    """It has looked when it is installed: a worker that is restarted again and again adds nothing."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(3):
        requests.labels(f"/{number}").inc()
    store.flush()
    sqlmetrics.uninstall()
    requests.clear()

    sqlmetrics.install(path, flush_interval=FOREVER, max_series=3)
    requests.labels("/1").inc()
    requests.labels("/new").inc()

    assert paths_of() == {"/0": 1, "/1": 2, "/2": 1, OTHER: 1}


def test_what_ended_processes_left_counts_against_the_limit(store: sqlmetrics.Store) -> None:
    """Their series are shown like others; removing one makes room."""
    requests = Counter("requests", "Requests", ["path"])

    def work() -> None:
        for number in range(3):
            requests.labels(f"/{number}").inc()
        store.flush()

    in_child(work)
    store.flush()
    requests.labels("/new").inc()
    store.flush()
    requests.labels("/newer").inc()
    assert requests.labels("/newer") is requests.labels(OTHER)

    requests.remove("/0")
    store.flush()
    requests.remove("/new")
    requests.labels("/newest").inc()
    assert value("requests_total", path="/newest") == 1


def test_a_removal_in_another_process_makes_room(store: sqlmetrics.Store) -> None:
    """With the next flush of this one, or its next look at what others have written."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(4):
        requests.labels(f"/{number}").inc()
    store.flush()

    in_child(lambda: requests.remove("/0"))

    def has_room() -> bool:
        store.flush()
        requests.labels("/new").inc()
        return "/new" in paths_of()

    wait_for(has_room)


def test_a_killed_process_beyond_the_limit_loses_nothing(store: sqlmetrics.Store) -> None:
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
    store.flush()
    assert sum(paths_of().values()) == 2000
    assert len(paths_of()) == 4


def test_a_fork_takes_over_what_is_known(store: sqlmetrics.Store) -> None:
    """A child of a process at the limit is at the limit from its first operation on."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(3):
        requests.labels(f"/{number}").inc()

    in_child(lambda: [requests.labels(path).inc() for path in ("/0", "/new", "/newer")] and None)

    assert paths_of() == {"/0": 2, "/1": 1, "/2": 1, OTHER: 2}


def test_after_a_reset_there_is_room_for_all(store: sqlmetrics.Store) -> None:
    """A launcher empties the store before its workers start: they must not go by what was there."""
    in_child(lambda: _fill(store))
    store.flush()
    requests = Counter("requests", "Requests", ["path"])

    sqlmetrics.reset(force=True)
    requests.labels("/new").inc()

    assert paths_of() == {"/new": 1}


def _fill(store: sqlmetrics.Store) -> None:
    requests = Counter("requests", "Requests", ["path"], registry=None)
    for number in range(3):
        requests.labels(f"/{number}").inc()
    store.flush()


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


@pytest.mark.slow
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
