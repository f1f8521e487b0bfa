"""System calls that fail, one at a time and all of them: no operation raises, nothing is lost, and nothing leaks."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import sys
import time
from typing import Any

import pytest
from faulty import ERRORS, POINTS, Faults
from helpers import Shell, child, in_child, scrape, wait_for
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary

import sqlmetrics
from sqlmetrics.process import native

pytestmark = pytest.mark.promise(4)

NEW_CHILDREN = 12
LONGEST = 0.5
"""Seconds that no operation may take; the machine may be busy with others."""


class App:
    """Metrics of all kinds."""

    def __init__(self) -> None:
        self.jobs = Counter("jobs", "Jobs", ["of"])
        self.forks = Counter("forks", "Forks", ["of"])
        self.gone = Counter("gone", "Gone", ["of"])
        self.busy = Gauge("busy", "Busy", ["of"], multiprocess_mode="livesum")
        self.newest = Gauge("newest", "Newest", multiprocess_mode="mostrecent")
        self.sizes = Summary("sizes", "Sizes", ["of"])
        self.latency = Histogram("latency", "Latency", ["of"])
        self.version = Info("version", "Version")
        self.mood = Enum("mood", "Mood", states=["good", "bad"])
        self.queue = Gauge("queue", "Queue", multiprocess_mode="livesum")

    def use(self, number: int) -> None:
        """Operations of all kinds."""
        of = f"{number}"
        self.jobs.labels(of).inc(1, {"trace": of})
        self.busy.labels(of).inc(2)
        self.busy.labels(of).dec()
        self.newest.set(number)
        self.sizes.labels(of).observe(1)
        self.latency.labels(of).observe(1, {"trace": of})
        self.version.info({"number": of})
        self.mood.state("good")
        self.gone.labels(of).inc()
        self.queue.set_function(lambda: 1)

    def fork(self, store: sqlmetrics.Store) -> None:
        """Fork a process that counts, too."""
        pid = os.fork()
        if pid == 0:
            for number in range(3):
                self.forks.labels(f"{number}").inc()
                self.busy.labels(f"{number}").inc()
            for _ in range(2):  # the first one may be where it fails
                store.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


EXPECTED = {
    "jobs_total": NEW_CHILDREN + 1,
    "latency_count": NEW_CHILDREN + 1,
    "sizes_count": NEW_CHILDREN + 1,
    "forks_total": 2 * 3,
    "busy": NEW_CHILDREN + 1,
}
"""What one round adds up to."""


def descriptors() -> list[str]:
    """What this process has open of the store."""
    found = []
    for one in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{one}"))
    return sorted(name for name in found if "sqlite3" in name)


def work(app: App, store: sqlmetrics.Store, first: int, error: str, for_ever: bool) -> dict[str, Any]:
    """Operations of all kinds while system calls fail, in a process that has not counted before."""
    unraisable: list[str] = []
    sys.unraisablehook = lambda one: unraisable.append(repr(one.exc_value))
    faults, slowest = Faults(first, error, for_ever=for_ever), 0.0
    with faults.on():
        for number in range(NEW_CHILDREN):
            begun = time.perf_counter()
            app.use(number)
            slowest = max(slowest, time.perf_counter() - begun)
            if number in (0, NEW_CHILDREN // 2):
                app.fork(store)
            if number % 4 == 3:
                store.flush()
        app.gone.clear()
        slots = len(store.file.held_slots())
    app.use(0)
    wait_for(lambda: store.flush().name in ("DONE", "NOTHING_CHANGED") and store.flush().name != "FAILED")
    return {
        "calls": faults.calls,
        "failed": sum(faults.failed.values()),
        "unraisable": unraisable,
        "slots": slots,
        "descriptors": descriptors(),
        "waits": slowest > LONGEST,
    }


def totals() -> dict[str, float]:
    """What a scrape shows, summed up over labels."""
    shown: dict[str, float] = dict.fromkeys(EXPECTED, 0.0)
    for (name, _), number in scrape().items():
        if name in shown:
            shown[name] += number
    return shown


class Rounds:
    """Rounds of work in new processes, and what all of them must have come to."""

    def __init__(self, path: str):
        self.store = sqlmetrics.install(path, flush_interval=0.05)
        self.app = App()
        self.done = 0

    def round(self, first: int, error: str, *, for_ever: bool) -> dict[str, Any]:
        """One round; checks the numbers while its process lives and when it has ended."""
        with child(work=lambda *given: work(self.app, self.store, *given)) as one:
            found: Any = one.do("work", first, error, for_ever)
            self.done += 1
            self.check(1, for_ever)
            assert found["unraisable"] == []
            assert found["slots"] <= 6, found  # this process, the parent, its two, who are dead and maybe not settled
            one.kill()
        self.check(0, for_ever)
        return dict(found)

    def check(self, living: int, for_ever: bool) -> None:
        """Whether all counts are exact, seen from here. What was forked, and ended while all failed, is lost."""
        expected = {name: count * self.done for name, count in EXPECTED.items()}
        expected["busy"] = EXPECTED["busy"] * living
        shown = totals()
        if for_ever:
            expected["forks_total"] = min(shown["forks_total"], expected["forks_total"])
        assert shown == expected

    def check_leaks(self, shell: Shell) -> None:
        """Whether what the processes had is free again."""
        file = self.store.file
        wait_for(lambda: self.store.flush() and len(file.held_slots()) <= 1)
        wait_for(lambda: self.store.flush() and file.extents.used() <= 1)
        assert file.blocks.used() <= 1
        assert shell.value("PRAGMA integrity_check") == "ok"
        total = self.done * EXPECTED["jobs_total"]
        assert shell.value("SELECT sum(value) FROM metrics WHERE metric = 'jobs_total'") == total


@pytest.mark.parametrize("for_ever", [False, True], ids=["one call", "all from it on"])
@pytest.mark.slow
def test_failing_calls_raise_nothing_and_lose_nothing(path: str, shell: Shell, for_ever: bool) -> None:
    """Whichever call it is, in a process that begins, forks, counts, removes and flushes."""
    rounds = Rounds(path)
    usual = rounds.round(0, "EIO", for_ever=False)
    assert usual["calls"] > 50
    errors = itertools.cycle(ERRORS)
    firsts = [*range(1, 60, 3), *range(61, min(int(usual["calls"]), 300), 13)]
    failed, waits = 0, 0
    for first, error in zip(firsts, errors, strict=False):
        found = rounds.round(first, error, for_ever=for_ever)
        failed += found["failed"]
        waits += found["waits"]
        assert len(found["descriptors"]) <= len(usual["descriptors"]), (first, error, found, usual)
    assert failed >= len(firsts) * 0.9
    assert waits <= 2
    rounds.check_leaks(shell)


def _limited(what: int, limit: int) -> None:
    resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))


LIMITS = {
    "open files": (resource.RLIMIT_NOFILE, lambda: 3),
    "address space": (resource.RLIMIT_AS, lambda: 1 << 20),
    "file size": (resource.RLIMIT_FSIZE, lambda: 0),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_of_the_system_stop_no_operation(path: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ulimit`s that are reached in the middle, in a process that has counted and in one that begins then."""
    monkeypatch.setenv("PYTHONFAULTHANDLER", "")
    store = sqlmetrics.install(path, flush_interval=0.05)
    app = App()

    def work() -> int:
        """Count `NEW_CHILDREN` times what `use` counts, below the limit, and once more above it."""
        what, to = LIMITS[limit]
        before = resource.getrlimit(what)[0]
        _limited(what, to())
        try:
            for number in range(NEW_CHILDREN):
                app.use(number)
            store.flush()
        finally:
            _limited(what, before)
        app.use(0)
        wait_for(lambda: store.flush().name != "FAILED")
        return NEW_CHILDREN + 1

    def begun() -> int:
        app.use(0)
        store.flush()
        return work()

    with child(work=work) as new, child(begun=begun) as old:
        assert new.do("work") == old.do("begun") == NEW_CHILDREN + 1
        wait_for(lambda: totals()["jobs_total"] == 2 * (NEW_CHILDREN + 1) + 1)
        wait_for(lambda: totals()["latency_count"] == 2 * (NEW_CHILDREN + 1) + 1)
        assert len(store.file.held_slots()) <= 3


def test_threads_that_cannot_be_started_come_later(path: str) -> None:
    """The scrapes are exact all along; the flusher starts with the next new child, or at a scrape of its process."""

    def work() -> list[Any]:
        store, app = sqlmetrics.install(path, flush_interval=0.02), App()
        with Faults(1, "EAGAIN", for_ever=True, points=((native, "start_new_thread"),)).on():
            for number in range(NEW_CHILDREN):
                app.use(number)
            before = scrape(path)
        scrape(path)
        wait_for(lambda: Shell(path)("SELECT 1 FROM samples WHERE metric = 'jobs_total'"))
        return [before[("jobs_total", (("of", "3"),))], store.flusher._running]

    assert in_child(work) == [1, True]


@pytest.mark.parametrize("point", ["lockf", "posix_fallocate", "mmap"])
@pytest.mark.slow
def test_retries_take_no_more_and_more(path: str, point: str) -> None:
    """A process that can have nothing, and tries again with each new child: nothing is used up, of whatever kind."""
    store = sqlmetrics.install(path, flush_interval=1000)
    app = App()
    app.use(0)
    store.flush()
    points = tuple(one for one in POINTS if one[1] == point)
    assert points

    def work(first: int) -> list[int]:
        open_before, faults = len(descriptors()), Faults(first, "ENOLCK", for_ever=True, points=points)
        with faults.on():
            for number in range(300):
                app.use(number)
                if number % 100 == 99:
                    store.part.move_in()
        assert faults.failed or point == "mmap"
        file = store.file
        return [len(file.held_slots()), file.extents.used(), len(descriptors()) - open_before, file.blocks.used()]

    for first in (1, 2, 3, 5):
        with child(work=work, flush=lambda: store.flush() and None) as one:
            slots, extents, opened, blocks = map(int, one.do("work", first))  # type: ignore[call-overload]
            assert slots <= 2
            assert extents <= 10 + 1 if point != "mmap" else 100
            assert opened <= 4  # SQLite's: the database, twice, its WAL and its index
            assert blocks <= 20
            one.do("flush")
            one.do("flush")
            assert totals()["jobs_total"] == first_total(first)
            one.kill()
        wait_for(lambda: store.flush() and len(store.file.held_slots()) == 1)
        wait_for(lambda: store.flush() and store.file.extents.used() == 1)


def first_total(first: int) -> int:
    """What was counted when the process of that number has counted, and the parent."""
    return 1 + 300 * (1 + (1, 2, 3, 5).index(first))
