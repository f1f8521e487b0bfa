"""Forks by Python: children count for themselves, nothing is lost, and no child hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mp_workers
import pytest
from helpers import child, hasty_threads, in_child, scrape, value, wait_for
from outsiders import ended
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.process import fork
from sqlmetrics.scrape.wanted import wanted
from sqlmetrics.store import installed as stores

pytestmark = pytest.mark.promise(3, 12)


@contextmanager
def threads(number: int, action: Callable[[int], object]) -> Iterator[None]:
    """Threads that repeat an action until the end."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(which: int) -> None:
        try:
            while not stop.is_set():
                action(which)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(which,)) for which in range(number)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join(30)
    assert errors == []


# Threads of the app's own are there at the fork: Python 3.12 says so, and it is what is tested.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forks_while_threads_make_children_hang_nobody(path: str) -> None:
    """Thirty forks under load: no child hangs, and every number is exact."""
    sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests", ["by", "path"])
    latency = Histogram("latency", "Latency", ["by"])
    done = [0, 0, 0]

    def load(which: int) -> None:
        requests.labels("thread", str(done[which] % 700)).inc()
        latency.labels(f"thread {done[which] % 70}").observe(1)
        done[which] += 1

    def work() -> None:
        for number in range(20):
            requests.labels("child", str(number)).inc()
            requests.labels("thread", str(number)).inc()
            latency.labels("child").observe(1)

    with threads(3, load), hasty_threads(1e-4):
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                try:
                    work()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert ended(pid) == 0

    shown = scrape()
    by_children = sum(count for (name, labels), count in shown.items() if ("by", "child") in labels and name[0] == "r")
    by_threads = sum(count for (name, labels), count in shown.items() if ("by", "thread") in labels)
    assert by_children == 30 * 20
    assert by_threads == sum(done) + 30 * 20
    assert shown["latency_count", (("by", "child"),)] == 30 * 20
    observed = [
        count for (name, labels), count in shown.items() if name == "latency_count" and ("by", "child") not in labels
    ]
    assert sum(observed) == sum(done)


def test_a_child_counts_for_itself(store: sqlmetrics.Store) -> None:
    """What the parent had before the fork is counted once, and the child begins at zero."""
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc(100)

    def own() -> float:
        requests.labels("/").inc(1)
        return requests.labels("/")._value.get()

    with child(own=own) as one:
        assert value("requests_total", path="/") == 100
        assert one.do("own") == 1
        assert value("requests_total", path="/") == 101
        requests.labels("/").inc(10)
        assert one.do("own") == 2

    assert requests.labels("/")._value.get() == 110
    assert value("requests_total", path="/") == 112


@pytest.mark.parametrize("before", [False, True])
def test_a_metric_first_used_after_the_fork_counts_in_parent_and_child(store: sqlmetrics.Store, before: bool) -> None:
    """A parent that has counted nothing yet has no part of the store for its children to confuse."""
    requests = Counter("requests", "Requests", registry=None)
    if before:
        requests.inc(0)

    def work() -> float:
        requests.inc(5)
        Counter("of_the_child", "Of the child", registry=None).inc()
        return requests._value.get()

    assert in_child(work) == 5
    assert value("requests_total") == 5
    assert value("of_the_child_total") == 1


def test_three_generations_count_each_for_itself(store: sqlmetrics.Store) -> None:
    """Three generations at once, each with its own part, the middle one with and without a count of its own."""
    requests = Counter("requests", "Requests")
    requests.inc(1)

    def grandchild() -> float:
        requests.inc(100)
        return requests._value.get()

    def fork_then_count() -> object:
        found = in_child(grandchild)
        requests.inc(10)
        return found

    def count_then_fork() -> object:
        requests.inc(10)
        return in_child(grandchild)

    assert in_child(fork_then_count) == 100
    assert in_child(count_then_fork) == 100
    assert value("requests_total") == 221


def test_gauges_of_the_parent_are_at_zero_in_the_child(store: sqlmetrics.Store) -> None:
    """As in the peer's mode, once the child does any operation at all."""
    modes = ("all", "min", "max", "sum", "liveall")
    gauges = {mode: Gauge(mode, mode, ["x"], multiprocess_mode=mode) for mode in modes}
    for gauge in gauges.values():
        gauge.labels("a").set(5)
    newest = Gauge("newest", "Newest", multiprocess_mode="mostrecent")
    newest.set(5)
    other = Counter("other", "Other")

    with child(nothing=os.getpid, anything=lambda: other.inc()) as one:
        pid = str(one.do("nothing"))
        assert value("all", x="a", pid=pid) is None
        assert value("min", x="a") == 5
        one.do("anything")

        assert value("all", x="a", pid=pid) == 0
        assert value("liveall", x="a", pid=pid) == 0
        assert value("min", x="a") == 0
        assert value("max", x="a") == 5
        assert value("sum", x="a") == 5
        assert value("newest") == 5


# The fork server keeps the environment of the test that started it.
@pytest.mark.parametrize(
    ("method", "named_by"),
    [
        ("fork", "argument"),
        ("fork", "environment"),
        ("spawn", "argument"),
        ("spawn", "environment"),
        ("forkserver", "argument"),
    ],
)
def test_children_of_multiprocessing_count_by_every_start_method(
    path: str, monkeypatch: pytest.MonkeyPatch, method: str, named_by: str
) -> None:
    """Every start method; the children find the store by an argument or by the environment."""
    monkeypatch.setenv("SQLMETRICS_PATH", path)
    sqlmetrics.install()
    context = multiprocessing.get_context(method)
    where = path if named_by == "argument" else None
    processes = [context.Process(target=mp_workers.count, args=(where, 50)) for _ in range(3)]

    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert value("jobs_total", kind="any") == 150
    assert value("job_seconds_count") == 3
    assert [value("job_pid", pid=str(process.pid)) for process in processes] == [process.pid for process in processes]


def test_neither_thread_nor_connection_is_there_at_the_fork(path: str) -> None:
    """The flusher is stopped and every connection closed: the child has only what is mapped."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    requests = Counter("requests", "Requests", ["path"])

    def found() -> list[object]:
        files = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        targets = [os.readlink(file) for file in files if os.path.lexists(file)]
        sqlite = [target for target in targets if target.startswith(path) and not target.endswith("-cells")]
        return [len(os.listdir("/proc/self/task")), sqlite]

    for number in range(20):
        requests.labels(str(number)).inc()
        store.flush()
        scrape()
        assert in_child(found) == [1, []]
    requests.labels("again").inc()

    assert in_child(found) == [1, []]
    assert value("requests_total", path="again") == 1


class Hesitating(fork.ForkAware):
    """Lets another thread go on between a fork's hooks and the fork."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.done = threading.Event()

    def before_fork(self) -> None:
        """Wait a moment for the other thread; it must not get where it wants to."""
        self.begun.set()
        self.done.wait(0.5)


def test_a_first_scrape_at_the_moment_of_a_fork_does_not_block_the_child(path: str) -> None:
    """By another thread, which makes a reader and has its lock: the child can fork and scrape all the same."""
    sqlmetrics.install(path).flush()
    requests = Counter("requests", "Requests")
    requests.inc()
    hesitating = Hesitating()
    fork.register(hesitating)
    forked = threading.Event()

    def hold(*_: object) -> None:
        hesitating.done.set()
        forked.wait(20)

    def first_scrape() -> None:
        hesitating.begun.wait(20)
        stores.reader(path).read(wanted(), own=None, finish=hold)

    thread = threading.Thread(target=first_scrape)
    thread.start()

    def work() -> object:
        signal.alarm(20)  # instead of waiting for ever
        requests.inc()
        return [in_child(lambda: requests.inc()), value("requests_total")]

    with child(work=work) as one:
        forked.set()
        thread.join()
        assert one.do("work") == [None, 3]


def test_the_flusher_goes_on_after_a_fork(path: str, shell) -> None:
    """What the parent counted right before a fork comes to the rows, whether or not it counts on."""
    sqlmetrics.install(path, flush_interval=0.05)
    requests = Counter("requests", "Requests")

    def rows() -> object:
        return shell("SELECT value FROM samples WHERE metric = 'requests_total'")

    requests.inc(5)
    assert in_child(os.getpid) != os.getpid()
    wait_for(lambda: rows() == [{"value": 5.0}], 5)
    requests.inc(5)
    wait_for(lambda: rows() == [{"value": 10.0}], 5)


def test_a_fork_does_not_wait_long(path: str) -> None:
    """Not even while the flusher is busy with many rows."""
    sqlmetrics.install(path, flush_interval=0.001)
    requests = Counter("requests", "Requests", ["path"])
    for number in range(5000):
        requests.labels(str(number)).inc()

    slowest = []
    for _ in range(10):
        for number in range(500):
            requests.labels(str(number)).inc()
        before = time.perf_counter()
        assert in_child(lambda: requests.labels("0").inc()) is None
        slowest.append(time.perf_counter() - before)

    assert sorted(slowest)[5] < 1.0
    assert value("requests_total", path="0") == 21
