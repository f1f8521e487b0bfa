"""A fork waits for nothing that takes long: what another thread does in SQLite is interrupted, and done after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import pytest
from forking import SECONDS, in_a_thread, state_of_fork, still_open, timed_fork
from helpers import flush_all, in_child, scrape, value, wait_for
from outsiders import Operator, python
from prometheus_client import Counter, Gauge

import sqlmetrics
from sqlmetrics.process import fork
from sqlmetrics.rows import checkup, database
from sqlmetrics.store import flush

pytestmark = pytest.mark.promise(4)

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000000000) SELECT count(*) FROM n"
"""A query of minutes."""


def filled(path: str) -> tuple[sqlmetrics.Store, Counter]:
    """A store with something in it, and a flusher."""
    store = sqlmetrics.install(path, flush_interval=0.05)
    requests = Counter("requests", "Requests", ["path"])
    for number in range(100):
        requests.labels(str(number)).inc()
    store.flush()
    return store, requests


def test_a_check_of_all_files_is_given_up_for_a_fork(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made later, its connection is not open at the fork, and nothing is taken for damage."""
    store, requests = filled(path)
    begun = threading.Event()
    whole = checkup.check
    checks: list[str] = []

    def slow(connection: apsw.Connection, file: object) -> None:
        if not checks:
            checks.append("begun")
            begun.set()
            connection.execute(LONG).fetchall()
        whole(connection, file)  # type: ignore[arg-type]
        checks.append("done")

    monkeypatch.setattr(checkup, "check", slow)
    monkeypatch.setattr(checkup, "_RETRY_SECONDS", 0.1)
    store.file.due[0] = 0.0
    requests.labels("0").inc()
    assert begun.wait(20)

    before = time.monotonic()
    assert in_child(lambda: still_open(path)) == []
    assert time.monotonic() - before < SECONDS

    def is_checked() -> bool:
        requests.labels("0").inc()
        return "done" in checks

    wait_for(is_checked)
    assert not store.file.is_doubted()
    assert not store.trouble.counts


def test_a_long_flush_is_given_up_for_a_fork(path: str, monkeypatch: pytest.MonkeyPatch, shell) -> None:
    """Its transaction is rolled back, and written afterwards: once."""
    store, requests = filled(path)
    begun = threading.Event()
    original = flush.ingest.copy_images

    def slow(connection: apsw.Connection, *arguments: object, **named: object) -> None:
        original(connection, *arguments, **named)  # type: ignore[arg-type]
        if not begun.is_set():
            begun.set()
            connection.execute(LONG).fetchall()

    monkeypatch.setattr(flush.ingest, "copy_images", slow)
    requests.labels("new").inc(3)
    requests.labels("0").inc(4)
    assert begun.wait(20)

    assert timed_fork(path) < SECONDS

    assert value("requests_total", path="new") == 3
    query = "SELECT value FROM metrics WHERE metric = 'requests_total' AND labels ->> 'path' = '0'"
    wait_for(lambda: shell(query) == [{"value": 5.0}])
    assert not store.trouble.counts


def test_many_short_statements_end_for_a_fork(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only one long one: between two of them nothing can be interrupted, so the next is refused."""
    store, requests = filled(path)
    begun = threading.Event()
    original = flush.ingest.copy_images

    def slow(connection: apsw.Connection, *arguments: object, **named: object) -> None:
        end = time.monotonic() + (0 if begun.is_set() else 30)
        begun.set()
        while time.monotonic() < end:
            connection.execute("SELECT 1").fetchall()
        original(connection, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(flush.ingest, "copy_images", slow)
    requests.labels("0").inc(4)
    assert begun.wait(20)

    assert timed_fork(path) < SECONDS

    requests.labels("0").inc()
    flush_all(store)
    assert value("requests_total", path="0") == 6


def test_a_scrape_is_interrupted_by_a_fork_and_made_again(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller gets the answer, a little later."""
    filled(path)
    begun = threading.Event()
    original = database.transaction

    @contextmanager
    def slow(connection: apsw.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
        with original(connection, kind):
            if kind == "DEFERRED" and threading.current_thread() is not threading.main_thread() and not begun.is_set():
                begun.set()
                connection.execute(LONG).fetchall()
            yield

    monkeypatch.setattr(database, "transaction", slow)
    with in_a_thread(lambda: value("requests_total", path="0")) as found:
        assert begun.wait(20)
        assert timed_fork(path) < SECONDS
    assert found == [1]


def test_a_writer_that_is_waited_for_holds_up_no_fork(path: str) -> None:
    """A shell has the write lock; a reset waits for it for a second, and for its turn after the fork."""
    store, requests = filled(path)
    with Operator(path, "BEGIN IMMEDIATE"):
        requests.labels("0").inc()
        with in_a_thread(lambda: store.reset(force=True, keep_own=True)) as found:
            wait_for(lambda: store.writing._holder)
            assert timed_fork(path) < SECONDS
        assert isinstance(found[0], apsw.BusyError)
        requests.labels("new").inc()
        assert timed_fork(path) < SECONDS
    wait_for(lambda: value("requests_total", path="0") == 2)


def test_removals_go_on_after_a_fork(path: str) -> None:
    """In one thread all the time, while another forks: each is carried out, none is told as trouble."""
    store, requests = filled(path)
    done = threading.Event()

    def remove() -> int:
        number = 0
        while not done.is_set():
            requests.labels("gone").inc()
            requests.remove("gone")
            number += 1
        return number

    with in_a_thread(remove) as found:
        for _ in range(20):
            assert timed_fork(path) < SECONDS
        done.set()
    assert isinstance(found[0], int)
    wait_for(lambda: ("requests_total", (("path", "gone"),)) not in scrape())
    assert store.trouble.counts["removal"] == 0


def test_an_install_in_another_thread_holds_up_no_fork(path: str) -> None:
    """It begins again after it, and its caller has a store."""
    statements = ("PRAGMA journal_mode = wal", "BEGIN EXCLUSIVE")
    with Operator(path, *statements), in_a_thread(lambda: sqlmetrics.install(path)) as found:
        wait_for(lambda: still_open(path))
        begun = time.monotonic()
        assert in_child(lambda: None) is None
        assert time.monotonic() - begun < SECONDS
    assert isinstance(found[0], sqlmetrics.Store)
    requests = Counter("requests", "Requests")
    requests.inc()
    wait_for(found[0].is_open)
    assert value("requests_total") == 1


def test_a_function_that_blocks_holds_up_no_fork(path: str) -> None:
    """The flusher is calling it, and uses no SQLite meanwhile."""
    blocks = threading.Event()
    entered = threading.Event()
    _, requests = filled(path)
    gauge = Gauge("busy", "Busy")

    def answer() -> float:
        if threading.current_thread() is threading.main_thread():
            return 1.0
        entered.set()
        blocks.wait(20)
        return 1.0

    gauge.set_function(answer)
    requests.labels("0").inc()
    assert entered.wait(20)
    try:
        begun = time.monotonic()
        assert in_child(lambda: requests.labels("0").inc()) is None
        assert time.monotonic() - begun < SECONDS
    finally:
        blocks.set()
    wait_for(lambda: value("requests_total", path="0") == 3)


def test_a_child_of_a_thread_that_cannot_be_interrupted_uses_no_sqlite(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child counts, and never uses SQLite, by no connection whatever: the table of open files is its parent's."""
    monkeypatch.setattr(fork.wait_until, "__defaults__", (0.2,))
    monkeypatch.setattr(fork.acquire, "__defaults__", (0.2,))
    store, requests = filled(path)
    forked, entered = threading.Event(), threading.Event()

    def hold(connection: apsw.Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM store").fetchall()
        entered.set()
        forked.wait(20)
        database.roll_back(connection)

    def work() -> list[object]:
        requests.labels("0").inc()
        outcomes: list[object] = [store.flush().name]
        for act in (lambda: scrape(path), lambda: database.connect(path)):
            try:
                act()
            except sqlmetrics.SQLMetricsError as error:
                outcomes.append(type(error).__name__)
        return outcomes

    with in_a_thread(lambda: store.follower.patiently(hold)):
        assert entered.wait(20)
        outcomes = in_child(work)
        forked.set()
    assert outcomes == ["FAILED", "ForkedInUseError", "ForkedInUseError"]
    assert value("requests_total", path="0") == 2
    assert in_child(lambda: state_of_fork(path)) == [[], True, True]


@pytest.mark.slow
def test_a_fork_does_not_wait_for_a_check_of_a_real_store(path: str) -> None:
    """Of 20,000 series, in a process without the threads of this test."""
    script = """
    import os, sys, time
    import sqlmetrics, prometheus_client
    from sqlmetrics.rows import checkup
    store = sqlmetrics.install(sys.argv[1])
    requests = prometheus_client.Counter("requests", "", ["user"])
    for number in range(20_000):
        requests.labels(str(number)).inc()
    while store.flush().name != "NOTHING_CHANGED":
        pass
    worst = 0.0
    for delay in (0.0, 0.02, 0.05):
        begun = []
        whole = checkup.check
        checkup.check = lambda *given: (begun.append(1), whole(*given))
        store.file.due[0] = 0.0
        requests.labels("0").inc()
        store.flusher.wake()
        while not begun:
            time.sleep(0.001)
        time.sleep(delay)
        before = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        worst = max(worst, time.monotonic() - before)
        os.waitpid(pid, 0)
        checkup.check = whole
    print(worst)
    """
    assert float(python(script, path, seconds=120)) < SECONDS
