"""What only uWSGI does: who forks from C has no thread, and who cannot have one flushes between requests.

With a stand-in for its module; a real uWSGI runs in `dropin`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from forking import c_fork, forked_from_c
from helpers import Child, Shell, child, scrape, value
from prometheus_client import Counter, Gauge

import sqlmetrics
from sqlmetrics.process import fork, under_uwsgi

pytestmark = pytest.mark.promise(3, 12)


def stand_in(*, has_threads: int) -> Any:
    """What this package asks of uWSGI's module; `worker` and `master` are what the functions give."""
    uwsgi: Any = types.ModuleType("uwsgi")
    uwsgi.has_threads, uwsgi.worker, uwsgi.master = has_threads, 0, os.getpid()
    uwsgi.worker_id, uwsgi.masterpid = lambda: uwsgi.worker, lambda: uwsgi.master
    uwsgi.mule_id, uwsgi.i_am_the_spooler = lambda: 0, lambda: None
    return uwsgi


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Be a uWSGI process that has loaded the app and not forked yet."""

    def begin(*, has_threads: int) -> Any:
        uwsgi = stand_in(has_threads=has_threads)
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
        return uwsgi

    yield begin
    under_uwsgi._theirs.clear()


def call_hooks() -> None:
    """What uWSGI calls; newer Pythons do not survive that here, nor does a real uWSGI: there, our hook alone."""
    ctypes.pythonapi.PyOS_AfterFork_Child() if sys.version_info < (3, 12) else fork._after_in_child()


def threads() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/task"))


def opened(path: str) -> list[str]:
    """What of SQLite's files this process has open."""
    links = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    return [link for link in links if link.startswith(path) and not link.endswith("-cells")]


def worker(uwsgi: Any, *, number: int = 1, **steps: Callable[..., object]) -> Child:
    """A worker, forked from C, in which uWSGI has called its hook."""

    def begin() -> None:
        uwsgi.worker = number
        vars(uwsgi)["post_fork_hook"]()

    one = forked_from_c(begin=begin, **steps)
    one.do("begin")
    return one


def rows(shell: Shell, metric: str) -> object:
    """What the rows have of a metric, added up."""
    return shell.value(f"SELECT sum(value) FROM samples WHERE metric = '{metric}'")


def test_what_forks_has_no_thread_and_no_connection(path: str, under) -> None:
    """At any moment: nobody tells it of a fork before."""
    under(has_threads=1)
    before = threads()
    store = sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests")
    requests.inc()
    assert value("requests_total") == 1
    store.flush()

    assert (threads(), opened(path)) == (before, [])


def test_workers_write_what_the_master_has(path: str, shell, under) -> None:
    """Which has no flusher; scrapes read its cells, and rows of them come from those that it forks."""
    uwsgi = under(has_threads=1)
    sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests")
    requests.inc(5)
    size = Gauge("size", "Size", multiprocess_mode="mostrecent")
    size.set(3)
    one, other = (worker(uwsgi, number=number, count=lambda: requests.inc(1)) for number in (1, 2))
    one.do("count")

    shell.wait_for_row("SELECT 1 FROM metrics WHERE metric = 'requests_total' AND value = 6")
    shell.wait_for_row("SELECT 1 FROM metrics WHERE metric = 'size' AND value = 3")
    requests.inc(10)  # and no worker does anything
    late = Counter("late", "Made after the fork", ["number"])
    for number in range(1000):  # more than a block of cells has room for
        late.labels(number).inc(7)
    shell.wait_for_row("SELECT 1 FROM metrics WHERE metric = 'requests_total' AND value = 16")
    shell.wait_for_row(
        "SELECT sum(value) AS all_late FROM metrics WHERE metric = 'late_total' GROUP BY metric HAVING all_late = 7000"
    )
    other.do("count")
    assert one.end() == other.end() == 0
    assert value("requests_total") == 17


def test_a_master_that_ends_is_settled_once(path: str, shell, under) -> None:
    """By a worker that has written its rows until then."""
    uwsgi = under(has_threads=1)

    def load() -> int:
        sqlmetrics.install(path, flush_interval=0.01)
        requests = Counter("requests", "Requests")
        requests.inc(5)
        pid = c_fork()
        if pid == 0:
            uwsgi.worker = 1
            requests.inc(1)
            time.sleep(60)
            os._exit(0)
        return pid

    with child(load=load) as master:
        pid = int(str(master.do("load")))
        shell.wait_for_row(f"SELECT 1 FROM processes WHERE os_pid = {master.pid} AND rows > 0")
    try:
        shell.wait_for_row("SELECT 1 FROM samples WHERE metric = 'requests_total' AND pid IS NULL AND value = 5")
        shell.wait_for_row("SELECT 1 FROM metrics WHERE metric = 'requests_total' AND value = 6")
        assert scrape(path)["requests_total", ()] == 6
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_collector_is_asked_in_an_idle_worker(path: str, shell, under) -> None:
    """What is published is shown of each worker, whether or not it has counted anything."""
    uwsgi = under(has_threads=1)
    sqlmetrics.install(path, flush_interval=0.01)
    Gauge("load", "Load", multiprocess_mode="all").set_function(lambda: os.getpid())
    one = worker(uwsgi)

    shell.wait_for_row(f"SELECT 1 FROM samples WHERE metric = 'load' AND pid = '{one.pid}' AND value = {one.pid}")
    assert one.end() == 0


def test_the_first_worker_of_a_uwsgi_without_a_master_gets_a_thread(path: str, shell, under) -> None:
    """It has loaded the app itself, and has a thread as soon as it has answered a request."""
    uwsgi = under(has_threads=1)
    uwsgi.master = 0
    before = threads()
    sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests")
    requests.inc()
    uwsgi.worker = 1
    vars(uwsgi)["after_req_hook"]()

    assert threads() == before + 1
    requests.inc(2)
    shell.wait_for_row("SELECT 1 FROM samples WHERE metric = 'requests_total' AND value = 3")


def test_a_worker_without_threads_flushes_between_requests(path: str, shell, under) -> None:
    """A thread would stop in mid-transaction while uWSGI waits: it keeps the interpreter lock."""
    uwsgi = under(has_threads=0)
    sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests", ["path"])

    def answer(target: str) -> int:
        requests.labels(target).inc()
        vars(uwsgi)["after_req_hook"]()
        return threads()

    one = worker(uwsgi, answer=answer)
    assert one.do("answer", "/a") == 1
    assert rows(shell, "requests_total") == 1
    shell.wait_for_row("SELECT 1 FROM processes WHERE rows > 0")
    while rows(shell, "requests_total") == 1:
        one.do("answer", "/b")
    assert one.end() == 0


def test_a_worker_without_threads_leaves_others_the_time_between(path: str, under) -> None:
    """It does not flush after each request: that would take longer than many a request."""
    uwsgi = under(has_threads=0)
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["path"])
    uwsgi.worker = 1
    flushes = []
    flush, store.flusher._flush = store.flusher._flush, lambda: flushes.append(1) or flush()
    for number in range(50):
        requests.labels(str(number)).inc()
        vars(uwsgi)["after_req_hook"]()

    assert len(flushes) == 1


def test_hooks_of_the_app_are_called_too(path: str, under) -> None:
    """Those that it has set before, and those that it sets after the store was installed."""
    uwsgi = under(has_threads=1)
    called = []
    uwsgi.post_fork_hook = lambda: called.append("before")
    sqlmetrics.install(path)
    uwsgi.after_req_hook = lambda: called.append("after")

    vars(uwsgi)["post_fork_hook"]()
    vars(uwsgi)["after_req_hook"]()
    assert called == ["before", "after"]
    uwsgi.post_fork_hook()
    uwsgi.after_req_hook()
    assert called == ["before", "after"] * 2


def test_hooks_do_nothing_after_uninstall(path: str, under) -> None:
    """They do nothing after an uninstall()."""
    uwsgi = under(has_threads=0)
    sqlmetrics.install(path)
    sqlmetrics.uninstall()
    uwsgi.worker = 1

    assert vars(uwsgi)["post_fork_hook"]() is vars(uwsgi)["after_req_hook"]() is None


def test_the_hook_of_a_fork_that_was_not_announced_runs_the_childs_hooks(path: str, shell) -> None:
    """--py-call-osafterfork: after a fork from C, Python's hooks for the child are run, and none before."""
    sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests")
    requests.inc()
    shell.wait_for_row("SELECT 1 FROM samples WHERE metric = 'requests_total' AND value = 1")
    sqlmetrics.uninstall()
    sqlmetrics.install(path, flush_interval=1000).flusher.stop()  # no thread at the fork: C code waits for none

    def count() -> object:
        call_hooks()
        sqlmetrics.install(path, flush_interval=1000).flusher._interval = 0.01
        requests.inc(10)
        return requests._value.get()

    one = forked_from_c(count=count)
    assert one.do("count") == 10
    shell.wait_for_row(f"SELECT 1 FROM samples WHERE metric = 'requests_total' AND pid = '{one.pid}' AND value = 10")
    assert one.end() == 0


def test_the_hook_changes_nothing_where_there_was_no_fork(path: str, shell) -> None:
    """uWSGI calls it in its first worker, too, which without a master is the process that has loaded the app."""

    def count() -> object:
        sqlmetrics.install(path, flush_interval=1000)
        requests = Counter("requests", "Requests")
        requests.inc(1)
        call_hooks()
        requests.inc(10)
        return requests._value.get()

    with child(count=count) as one:
        assert one.do("count") == 11
        assert scrape(path)["requests_total", ()] == 11


def test_an_exit_from_within_a_signal_handler_in_the_middle_of_a_flush_ends_there(store: sqlmetrics.Store) -> None:
    """In the middle of a flush: it ends there, with the connection left as it is."""
    with store.writing() as connection:
        store.close()
        assert connection.execute("SELECT 1").get == 1
