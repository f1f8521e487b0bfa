"""Operations in the middle of operations: signal handlers, garbage collections, locks of others, many threads."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import os
import signal
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator

import pytest
from helpers import Shell, child, scrape, value, wait_for
from interruption import Interruption
from outsiders import Operator
from prometheus_client import Counter, Gauge, Histogram, Metric

import sqlmetrics
from sqlmetrics import values
from sqlmetrics.cells import arenas, part, writer

pytestmark = pytest.mark.promise(4)

HELD = 60 if os.environ.get("SQLMETRICS_TEST_LONG") else 2
"""Seconds that a shell keeps the write lock."""
TRACED = (part, writer, arenas, values)


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """A deadlock ends the run, and shows where."""
    faulthandler.dump_traceback_later(HELD + 100, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


class App:
    """Metrics of three kinds, and how often each was used with which label value."""

    def __init__(self) -> None:
        self.requests = Counter("requests", "Requests", ["who"], registry=None)
        self.size = Gauge("size", "Size", ["who"], multiprocess_mode="livesum", registry=None)
        self.latency = Histogram("latency", "Latency", ["who"], buckets=(2,), registry=None)
        self.used: Tally[str] = Tally()

    def use(self, who: str) -> None:
        """Count once in each."""
        self.requests.labels(who).inc()
        self.size.labels(who).inc()
        self.latency.labels(who).observe(1)
        self.used[who] += 1

    def wrong(self, path: str | None = None) -> dict[str, object]:
        """Where a scrape differs from what was done."""
        shown: dict[str, dict[str, float]] = {name: {} for name in ("requests_total", "size", "latency_count")}
        for (name, labels), count in scrape(path).items():
            if name in shown:
                shown[name][dict(labels)["who"]] = count
        return {name: (counts, dict(self.used)) for name, counts in shown.items() if counts != dict(self.used)}


def new_child(app: App, store: sqlmetrics.Store, who: str) -> None:
    """A child that nobody has used before."""
    app.use(who)


def wrong_notice(app: App, store: sqlmetrics.Store, who: str) -> None:
    """Everything is to be announced again."""
    sqlmetrics.mark_process_dead(os.getpid())
    app.use(who)


def deleted_store(app: App, store: sqlmetrics.Store, who: str) -> None:
    """All values go to memory, and from there to other cells."""
    for suffix in ("", "-wal", "-shm", "-cells"):
        os.unlink(store.path + suffix)
    for _ in range(3):
        store.flush()
    app.use(who)


@pytest.mark.parametrize(("work", "stride"), [(new_child, 1), (wrong_notice, 3), (deleted_store, 3)])
@pytest.mark.slow
def test_an_operation_may_be_interrupted_at_every_line(path: str, work: Callable[..., None], stride: int) -> None:
    """By a handler that uses what is known, what is being made at this moment, and what nobody has used yet."""
    store = sqlmetrics.install(path, flush_interval=1000)
    store.flusher.stop()
    for line in itertools.count(1, stride):
        app = App()
        sqlmetrics.reset(force=True)
        app.use("known")
        interruption = Interruption(line, TRACED, lambda app=app: [app.use(who) for who in ("known", "now", "new")])
        with interruption.watching():
            work(app, store, "now")
        assert app.wrong() == {}, interruption.where
        app.use("known")
        app.use("now")
        store.flush()
        assert app.wrong() == {}, interruption.where
        if not interruption.where:
            break
    assert line > 50


def test_operations_in_signal_handlers_are_exact(path: str) -> None:
    """Known and new children in the handler and in the code that it interrupts, which scrapes and forks as well."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    app = App()
    numbers = itertools.count()
    before = signal.signal(signal.SIGALRM, lambda *_: app.use(f"signal {next(numbers) % 300}"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
    try:
        for number in range(1500):
            app.use(f"main {number % 200}")
            if number % 100 == 0:
                scrape()
                store.flush()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert next(numbers) > 50
    assert app.wrong() == {}


class Silent:
    """A collector that has nothing to say."""

    def collect(self) -> list[Metric]:
        """Return no family."""
        return []


def test_collectors_that_are_published_while_others_are_asked(path: str) -> None:
    """A collection of garbage may run code of the app in the middle of a walk through those that are published."""
    store = sqlmetrics.install(path, flush_interval=3600)
    collectors = [Silent() for _ in range(200)]
    left = iter(collectors)
    for _ in range(20):
        sqlmetrics.publish(next(left))
    with collecting(lambda _: sqlmetrics.publish(next(left, collectors[0])), threshold=10):
        for _ in range(5):
            gc.collect()  # then tuples are new objects, and not old ones that are used again
            store.flush()
    assert store.trouble.counts["app"] == 0
    assert len(list(left)) < 160  # more than the ten of these five collections


@contextlib.contextmanager
def collecting(action: Callable[[str], None], threshold: int) -> Iterator[None]:
    """Let the collector of garbage run as soon as so many objects are new, and an action with it."""

    def callback(phase: str, _: object) -> None:
        action(phase)

    before = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(threshold)
    try:
        yield
    finally:
        gc.callbacks.remove(callback)
        gc.set_threshold(*before)


def test_operations_in_garbage_collections_are_exact(path: str) -> None:
    """A callback of the collector counts, and so does what it collects."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    app = App()
    numbers = itertools.count()

    class Litter:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            app.use(f"litter {next(numbers) % 50}")

    def count(phase: str) -> None:
        app.requests.labels("collections").inc()
        collections.append(phase)

    collections: list[str] = []
    with collecting(count, threshold=20):
        for number in range(300):
            Litter()
            app.use(f"main {number % 100}")
            if number % 50 == 0:
                scrape()
                store.flush()
    gc.collect()
    assert len(collections) > 50
    assert value("requests_total", who="collections") == len(collections)
    app.requests.remove("collections")
    wrong = app.wrong()
    assert set(wrong) <= {"requests_total"}  # of which the collections are too many


def test_eight_threads_in_eight_processes_are_exact(path: str) -> None:
    """Eight times eight, on one counter and on new children."""
    sqlmetrics.install(path, flush_interval=0.01)
    app = App()

    def hammer(name: str) -> None:
        for number in range(300):
            app.requests.labels("all").inc()
            app.latency.labels(f"{name} {number % 20}").observe(1)

    def work() -> None:
        threads = [threading.Thread(target=hammer, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    pids = []
    for _ in range(8):
        pids.append(os.fork())
        if pids[-1] == 0:
            work()
            os._exit(0)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
    assert value("requests_total", who="all") == 64 * 300
    assert sum(count for (name, _), count in scrape().items() if name == "latency_count") == 64 * 300


@pytest.mark.slow
def test_children_forked_from_a_thread_count_while_others_write(path: str) -> None:
    """The children count as well, and end without a word."""
    sqlmetrics.install(path, flush_interval=0.005)
    app = App()
    ended = threading.Event()
    counts = [0, 0, 0]

    def write(number: int) -> None:
        while not ended.is_set():
            app.requests.labels(f"thread {counts[number] % 100}").inc()
            counts[number] += 1

    def fork() -> None:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                app.requests.labels("child").inc()
                os._exit(0)
            os.waitpid(pid, 0)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    forker = threading.Thread(target=fork)
    for thread in (*writers, forker):
        thread.start()
    forker.join()
    ended.set()
    for thread in writers:
        thread.join()
    assert value("requests_total", who="child") == 20
    assert sum(scrape().values()) == 20 + sum(counts)


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.slow
def test_operations_go_on_while_a_shell_keeps_the_lock(path: str, shell: Shell, kind: str) -> None:
    """For seconds, or for a minute if SQLMETRICS_TEST_LONG is set: all goes on, and the rows come when it is gone."""
    store = sqlmetrics.install(path, flush_interval=0.05)
    app = App()
    app.use("before")
    store.flush()
    signal_at = [False]
    with child(use=app.use) as one, child(use=app.use) as two, Operator(path, f"BEGIN {kind}"):
        timer = threading.Timer(HELD, lambda: signal_at.__setitem__(0, True))
        timer.start()
        for number in itertools.count():
            app.use(f"during {number % 50}")
            one.do("use", f"during {number % 70}")
            app.used[f"during {number % 70}"] += 1
            if number % 50 == 0:
                assert app.wrong() == {}
            if signal_at[0]:
                break
        two.do("use", "two")
        two.kill()
        app.used["two"] += 1
        assert set(app.wrong()) == {"size"}  # it has left that one
        assert value("requests_total", who="two") == 1
        timer.join()
        one.kill()
    total = sum(app.used.values())
    wait_for(lambda: shell.value("SELECT sum(value) FROM metrics WHERE metric = 'requests_total'") == total)
