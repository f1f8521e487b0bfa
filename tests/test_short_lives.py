"""Processes that are forked for one short job: they leave all that they counted, and do not open SQLite for it."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

import pytest
from helpers import Shell, child, scrape
from prometheus_client import Counter, Gauge

import sqlmetrics
from sqlmetrics.process import waits
from sqlmetrics.store import flusher

pytestmark = pytest.mark.promise(2, 3, 6)

_ROW = "SELECT 1 FROM samples WHERE metric = 'jobs_total' AND value = {} AND pid IS {}"


class Job:
    """What such a process counts, and what it has open then."""

    def __init__(self, path: str):
        self._path = path
        self._jobs = Counter("jobs", "Jobs", ["queue"])
        self._busy = Gauge("busy", "Busy", multiprocess_mode="livesum")

    def do(self, queue: str) -> list[str]:
        """Ten operations, with time between them for a flusher that has something to do; returns what is open."""
        self._busy.inc()
        for _ in range(8):
            self._jobs.labels(queue).inc()
            time.sleep(0.01)
        self._busy.dec()
        files = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
        return [file for file in files if file in (self._path, self._path + "-wal", self._path + "-shm")]


def test_what_a_short_lived_process_counted_is_scraped_and_becomes_rows(
    path: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next scrape of another process has it, and so has the shell after the next flush of another process."""
    monkeypatch.setattr(flusher, "QUIET_SECONDS", 1000.0)
    store = sqlmetrics.install(path, flush_interval=1000)
    job = Job(path)
    for end in ("end", "kill"):
        with child(do=job.do) as one:
            assert one.do("do", end) == []  # neither the database nor its WAL
            assert shell(f"SELECT * FROM samples WHERE pid = '{one.pid}'") == []
            assert scrape()["jobs_total", (("queue", end),)] == 8
            getattr(one, end)()
        assert scrape()["jobs_total", (("queue", end),)] == 8
    store.flush()
    assert len(shell(_ROW.format("8.0", "NULL"))) == 2
    assert shell("SELECT * FROM processes WHERE state = 'remembered'") == []


def test_a_forked_process_that_lives_on_makes_rows_by_itself(
    path: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its first moments, with no further operation, and from then on soon after each new child."""
    monkeypatch.setattr(flusher, "QUIET_SECONDS", 0.3)
    sqlmetrics.install(path, flush_interval=1000)
    job = Job(path)
    with child(do=job.do) as one:
        assert one.do("do", "a") == []
        shell.wait_for_row(_ROW.format("8.0", f"'{one.pid}'"))
        one.do("do", "b")
        shell.wait_for_row("SELECT 1 FROM samples WHERE labels = json_object('queue', 'b')")


def test_what_is_urgent_does_not_wait_for_the_first_moments_to_be_over(
    path: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal, say, wakes the flusher; and a process that forks or ends does not wait for it."""
    monkeypatch.setattr(flusher, "QUIET_SECONDS", 1000.0)
    store = sqlmetrics.install(path, flush_interval=1000)
    job = Job(path)

    def fork_and_end() -> float:
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        store.flusher.stop()
        return time.monotonic() - begun

    with child(do=job.do, end_flusher=fork_and_end) as one:
        one.do("do", "a")
        assert float(str(one.do("end_flusher"))) < waits.FLUSHER_AT_EXIT
    with child(do=job.do, wake=lambda: store.flusher.wake()) as one:
        one.do("do", "b")
        one.do("wake")
        shell.wait_for_row(_ROW.format("8.0", f"'{one.pid}'"))
    assert scrape()["jobs_total", (("queue", "b"),)] == 8


def test_a_process_in_cells_that_a_settled_one_had_is_in_the_next_scrape(path: str) -> None:
    """Each scrape settles the last one, whose blocks the next one gets; all are known from their journals only."""
    store = sqlmetrics.install(path, flush_interval=1000)
    jobs = Counter("jobs", "Jobs", ["queue"])
    taken = []

    def do(number: int) -> list[int]:
        store.flusher.stop()
        jobs.labels("").inc()
        jobs.labels(f"{number}").inc()
        (slot,) = store.file.own_slots
        return store.file.blocks.owned_by(slot)

    with ExitStack() as stack:  # all at once: a fork closes the connection of the process that scrapes
        for number, one in enumerate([stack.enter_context(child(do=do)) for _ in range(8)], 1):
            taken += one.do("do", number)  # type: ignore[operator]
            assert scrape()["jobs_total", (("queue", ""),)] == number
            assert scrape()["jobs_total", (("queue", f"{number}"),)] == 1
            one.kill()
            assert scrape()["jobs_total", (("queue", ""),)] == number
    assert len(set(taken)) < len(taken)  # else the test has shown nothing
