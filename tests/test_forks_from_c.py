"""Forks that run none of Python's hooks, as uWSGI's: the wiped page tells, and no row is lost."""

from __future__ import annotations

import os
import threading

import pytest
from forking import c_fork, forked_from_c
from helpers import in_child, scrape, value, wait_for
from outsiders import ended
from prometheus_client import Counter, Gauge

import sqlmetrics

pytestmark = pytest.mark.promise(3, 12)


def test_a_child_loses_no_row_where_its_parent_has_an_idle_connection(path: str, shell) -> None:
    """The child counts in cells of its own, flushes by itself, and no committed row is lost."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    requests.labels("both").inc(100)
    store.flush()
    scrape()
    rest(store)

    def work(number: int) -> float:
        requests.labels("both").inc()
        requests.labels(f"child {number}").inc()
        store.flush()
        return requests.labels("both")._value.get()

    one = forked_from_c(work=work)
    for number in range(100):
        assert one.do("work", number) == number + 1
        requests.labels(f"parent {number}").inc()
        store.flush()
    assert value("requests_total", by="both") == 200
    assert one.end() == 0
    sqlmetrics.uninstall()

    assert shell.value("PRAGMA integrity_check") == "ok"
    assert len(shell("SELECT * FROM samples WHERE metric = 'requests_total'")) >= 201
    shown = scrape(path)
    assert len(shown) == 201
    assert shown["requests_total", (("by", "both"),)] == 200


def rest(store: sqlmetrics.Store) -> None:
    """Wait until the flusher waits for its bell: a child that C forked from a busy moment may hang for ever.

    In CPython itself, or on a lock of SQLite's that the flusher had. A look may come between two steps of a flush, so
    five of them in a row, 5 ms apart.
    """
    looks: list[bool] = []

    def at_rest() -> bool:
        is_rung = store.flusher._is_rung or not store.flusher._bell.locked()
        looks.append(is_rung or bool(store.writing._holder) or any(a.has_news() for a in store.part.arenas()))
        return len(looks) >= 5 and not any(looks[-5:])

    wait_for(at_rest)


def test_three_generations_count_whoever_forks_from_c(path: str) -> None:
    """First from C, then by Python, and the other way round, while the first parent's flusher runs."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    requests.inc(1)
    rest(store)

    def python_fork() -> object:
        found = in_child(lambda: (requests.inc(100), requests._value.get())[1])
        requests.inc(10)
        return found

    def fork_from_c() -> object:
        requests.inc(0)
        rest(store)
        one = forked_from_c(count=lambda: (requests.inc(100), requests._value.get())[1])
        found = one.do("count")
        one.end()
        return found

    one = forked_from_c(python_fork=python_fork)
    assert one.do("python_fork") == 100
    one.end()
    assert in_child(fork_from_c) == 100

    assert value("requests_total") == 1 + 110 + 100


@pytest.mark.parametrize("first", ["mark_process_dead", "scrape", "flush", "reset", "fork", "install", "exit"])
def test_the_childs_first_call_waits_for_no_lock_of_its_parent(path: str, first: str) -> None:
    """Whatever it is, the child does not wait for a lock that a thread of its parent held, nor use its connection."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    Gauge("busy", "Busy", multiprocess_mode="livesum").set(1)
    requests.inc()
    rest(store)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.writing():
            inside.set()
            leave.wait(30)

    calls = {
        "mark_process_dead": lambda: sqlmetrics.mark_process_dead(1234),
        "scrape": scrape,
        "flush": store.flush,
        "reset": sqlmetrics.reset,
        "fork": lambda: in_child(lambda: requests.inc()),
        "install": lambda: sqlmetrics.install(path, flush_interval=1000),
        "exit": store.close,
    }
    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    pid = c_fork()
    if pid == 0:
        status = 0
        try:
            calls[first]()
        except Exception as error:
            # SQLite cannot be used in this child, and who needs it is told so.
            status = 0 if first in ("scrape", "mark_process_dead", "reset") and "forked" in str(error) else 3
        finally:
            requests.inc()
            os._exit(status)
    try:
        assert ended(pid, 10) == 0
    finally:
        leave.set()
        thread.join()

    wait_for(lambda: value("requests_total") == (3 if first == "fork" else 2))
