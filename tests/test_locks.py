"""Locks that vanish, death notices for the living, and a notice in the middle of a notice."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import child, flush_all, scrape, value, wait_for
from prometheus_client import CollectorRegistry, Counter, Gauge

import sqlmetrics
from sqlmetrics.rows import settle

pytestmark = pytest.mark.promise(3)


def drop_locks(path: str) -> bool:
    """What a backup script or a curious library may do in this process: POSIX then drops its locks on the file."""
    with open(path + "-cells", "rb") as file:
        file.read(1)
    return True


def test_a_flush_takes_lost_locks_again(path: str) -> None:
    """Before anybody else looked: nothing has happened at all."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
    requests.inc(10)
    busy.set(3)

    with child(look=lambda: list(map(list, scrape().items()))) as one:
        drop_locks(path)
        store.flush()
        one.do("look")
        requests.inc(10)

    assert value("requests_total") == 20
    assert value("busy") == 3


@pytest.mark.parametrize("rounds", [1, 30])
def test_a_process_that_was_taken_for_dead_counts_nothing_twice(path: str, rounds: int) -> None:
    """Others settle it when its locks are gone; it notices at its next operation, and nothing is counted twice."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    requests = Counter("requests", "Requests", ["by"])
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")

    def use(times: int) -> bool:
        for _ in range(times):
            requests.labels("child").inc()
        return True

    def settle() -> bool:
        store.flush()
        return bool(scrape())

    with child(use=use, settle=settle, drop=lambda: drop_locks(path)) as one:
        for done in range(1, rounds + 1):
            one.do("use", 10)
            requests.labels("parent").inc(10)
            busy.set(5)
            one.do("drop")
            drop_locks(path)
            one.do("settle")
            store.flush()
            one.do("use", 1)
            requests.labels("parent").inc(1)
            busy.set(6)

            assert value("busy") == 6
            assert value("requests_total", by="child") == 11 * done
            assert value("requests_total", by="parent") == 11 * done
            assert one.do("settle")
        one.end()

    assert value("requests_total", by="child") == 11 * rounds
    assert value("requests_total", by="parent") == 11 * rounds
    flush_all(store)
    assert value("requests_total", by="child") == 11 * rounds


def test_an_operation_under_way_when_the_locks_vanish_is_counted(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has seen that its cell is its own, and adds to it while others settle the process: they wait for it."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")

    class Slow(int):
        @property
        def __class__(self) -> type:  # what `inc` asks for between its look at the cell's owner and the addition
            arena = store.part.arenas()[0]
            drop_locks(path)
            os.write(to_parent, b"!")
            wait_for(arena.is_noticed)
            poll = select.poll()  # select() takes no descriptor beyond 1,023
            poll.register(from_parent, select.POLLIN)
            assert poll.poll(20_000), "nobody waits for this operation"
            return int

    def first() -> None:
        store.flusher.stop()  # it would take the lock again
        requests.inc()

    def count() -> None:
        requests.inc(Slow(1))

    def wait(seconds: float) -> None:
        os.write(to_child, b"!")
        begin_to_count.join(20)

    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    with child(first=first, count=count) as one:
        one.do("first")
        begin_to_count = threading.Thread(target=one.do, args=("count",))
        begin_to_count.start()
        os.read(from_child, 1)
        monkeypatch.setattr(settle, "native", SimpleNamespace(sleep=wait))
        flush_all(store)
        assert value("requests_total") == 2
        one.do("first")
        assert value("requests_total") == 3
    for pipe in (from_child, to_parent, from_parent, to_child):
        os.close(pipe)


def test_counts_are_exact_while_locks_vanish(path: str) -> None:
    """In the middle of flushes, settlements and new children: all counts stay exact, scrapes work."""
    store = sqlmetrics.install(path, flush_interval=0.002)
    requests = Counter("requests", "Requests", ["by", "number"])
    counted = dict.fromkeys(["careless", "careful", "parent"], 0)

    def use(who: str, times: int, dropping: bool) -> None:
        for number in range(times):
            requests.labels(who, str(number % 600)).inc()
            if dropping and number % 10 == 0:
                drop_locks(path)
            if number % 25 == 0:
                store.flush()

    def shown(who: str) -> float:
        return sum(count for (_, labels), count in scrape().items() if ("by", who) in labels)

    with child(use=use) as careless, child(use=use) as careful:
        for _ in range(8):
            careless.do("use", "careless", 200, True)
            careful.do("use", "careful", 200, False)
            use("parent", 200, False)
            for who in counted:
                counted[who] += 200
            assert shown("careful") == counted["careful"]
            assert shown("parent") == counted["parent"]
            assert shown("careless") == counted["careless"]
        before = shown("careless")
        careless.do("use", "careless", 50, False)
        wait_for(lambda: shown("careless") == before + 50)
        careless.end()
        careful.end()

    assert shown("careful") == counted["careful"]
    assert shown("careless") == counted["careless"] + 50


def test_a_collector_by_way_of_a_symlinked_folder_loses_no_lock(folder: Path, path: str) -> None:
    """The same file under another name: reading it does not lose the locks of the process that writes it."""
    store = sqlmetrics.install(path, flush_interval=1000)
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
    busy.set(3)
    link = str(folder) + "-link"
    os.symlink(folder, link)
    try:
        with child(look=lambda: value("busy")) as one:
            registry = CollectorRegistry()
            sqlmetrics.MultiProcessCollector(registry, link + "/metrics.sqlite3")
            for _ in range(3):
                assert registry.get_sample_value("busy") == 3
                assert one.do("look") == 3
            sqlmetrics.mark_process_dead(1234, link)
            assert one.do("look") == 3
            assert store.part.arenas()[0].is_mine()
    finally:
        os.unlink(link)


def test_marking_a_process_that_lives_keeps_its_counts(store: sqlmetrics.Store) -> None:
    """Its live gauges go, its next operation brings them all back with their values, and its counts are kept."""
    requests = Counter("requests", "Requests")
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
    each = Gauge("each", "Each", ["x"], multiprocess_mode="liveall")
    kept = Gauge("kept", "Kept", multiprocess_mode="sum")

    def start() -> int:
        store.flusher.stop()  # it counts its own work at times, which is an operation
        requests.inc(5)
        busy.inc(2)
        each.labels("a").set(7)
        kept.set(9)
        return os.getpid()

    with child(start=start, count=lambda: requests.inc(), work=lambda: busy.inc()) as one:
        pid = one.do("start")
        for flushed in (False, True):
            if flushed:
                store.flush()
            before = value("busy")
            assert value("each", x="a", pid=str(pid)) == 7

            sqlmetrics.mark_process_dead(pid)
            sqlmetrics.mark_process_dead(str(pid))

            assert value("each", x="a", pid=str(pid)) is None
            assert value("busy") in (None, 0)
            assert value("kept") == 9
            one.do("work")
            assert value("busy") == before + 1
            one.do("count")
            assert value("each", x="a", pid=str(pid)) == 7
        one.kill()

    assert value("requests_total") == 7
    assert value("each", x="a", pid=str(pid)) is None


def test_marking_the_dead_and_the_unknown_loses_nothing(store: sqlmetrics.Store) -> None:
    """Twice, before and after a scrape has settled it, and a pid that never was: nothing is lost or raised."""
    requests = Counter("requests", "Requests")
    busy = Gauge("busy", "Busy", multiprocess_mode="livemax")

    def start() -> int:
        requests.inc(5)
        busy.set(2)
        return os.getpid()

    for times in range(1, 4):
        with child(start=start) as one:
            pid = one.do("start")
            one.kill()
        for _ in range(times):
            sqlmetrics.mark_process_dead(pid)
            sqlmetrics.mark_process_dead(2**22 + 1)
            sqlmetrics.mark_process_dead("worker-ü\ud800")

        assert value("requests_total") == 5 * times
        assert value("busy") in (None, 0)


def test_a_notice_in_the_middle_of_a_notice_does_not_hang(path: str) -> None:
    """gunicorn calls `child_exit` in its SIGCHLD handler: thousands of them, and the process never stands still."""
    store = sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests", ["by"])
    inside = 0

    def handle(*_: object) -> None:
        nonlocal inside
        inside += 1
        sqlmetrics.mark_process_dead(inside)
        requests.labels("handler").inc()
        requests.labels(f"handler {inside % 300}").inc()
        if inside % 3 == 0:
            os.kill(os.getpid(), signal.SIGALRM)  # a handler in a handler
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.0002)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0002)
    try:
        done = 0
        while inside < 2000:
            sqlmetrics.mark_process_dead(done)
            requests.labels("main").inc()
            store.flush()
            done += 1
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    wait_for(lambda: store.flush() and value("requests_total", by="handler") == inside)
    assert value("requests_total", by="main") == done
    assert sum(value("requests_total", by=f"handler {number}") or 0 for number in range(300)) == inside
    wait_for(lambda: not store.rounds.notices)
