"""Pools of processes, started in each way: exact across the death of a worker that was at work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps.serving import parse
from deployment import Deployment, Row
from exact import assert_tidy
from helpers import wait_for

pytestmark = pytest.mark.promise(3)

PAGE = "servers/multiprocessing.md"
SHORT, LONG = 0.01, 600.0
WORKERS = {"Pool": "multiprocessing.Pool", "ProcessPoolExecutor": "concurrent.futures.ProcessPoolExecutor"}


class Program(Deployment):
    """A program that reads a pipe in the place of its file of jobs; each is the time that it takes, in seconds."""

    def __init__(self, heading: str, method: str, folder: Path):
        self.done = 0
        row = Row(PAGE, heading, change=(" fork ", f" {method} "))
        super().__init__(row, folder, SQLMETRICS_FLUSH_INTERVAL="0.1")

    def begin(self) -> None:
        """Start it."""
        os.mkfifo(self.folder / "jobs.txt")
        self.start()
        self._jobs = (self.folder / "jobs.txt").open("w")

    def give(self, seconds: float) -> None:
        """Give it a job."""
        print(seconds, file=self._jobs, flush=True)

    def do(self, number: int) -> None:
        """Have a number of short jobs done; no scrape may ever show more."""
        self.done += number
        for _ in range(number):
            self.give(SHORT)
        wait_for(lambda: self.jobs() == (self.done, 0))

    def jobs(self) -> tuple[float, float]:
        """(jobs done, jobs in progress) of one scrape."""
        values = parse(self.ask("/metrics")[1])
        assert values["jobs_total", ()] <= self.done
        return values["jobs_total", ()], values["jobs_in_progress", ()]

    def do_until(self, number: int, but: set[int]) -> set[int]:
        """Have jobs done until so many others have done some; returns them."""
        wait_for(lambda: self.do(8) or len(self.counting_in("jobs_total") - but) >= number)
        return self.counting_in("jobs_total") - but

    def occupy(self) -> int:
        """Give a worker a job that it will not end; returns the worker."""
        wait_for(lambda: not self.counting_in("jobs_in_progress"))  # rows come after the values
        self.give(LONG)
        wait_for(lambda: self.counting_in("jobs_in_progress"))
        (worker,) = self.counting_in("jobs_in_progress")
        return worker

    def end(self) -> int:
        """Let it read to the end; returns its status."""
        self._jobs.close()
        return self.process.wait(20)

    def stop(self) -> None:
        """End it."""
        self._jobs.close()
        super().stop()


@pytest.fixture
def program(request: pytest.FixtureRequest, folder: Path) -> Iterator[Program]:
    """The program of a section of the page, with a start method."""
    one = Program(*request.param, folder)
    try:
        one.begin()
        yield one
    finally:
        one.stop()


def rows() -> Iterator[object]:
    """A parameter for each kind of pool and each start method, marked as a row of the table."""
    for heading, name in WORKERS.items():
        for method in ("fork", "spawn", "forkserver"):
            mark = pytest.mark.row("server", f"{name}: {method}", "Python")
            yield pytest.param((heading, method), marks=mark, id=f"{heading}-{method}")


@pytest.mark.parametrize("program", list(rows()), indirect=True)
def test_a_worker_that_is_killed_at_work_takes_nothing_with_it(program: Program) -> None:
    """Nor leaves anything in a live gauge; the pool's next worker, or the next executor's, adds to what is there."""
    before = program.do_until(2, but=set())
    victim = program.occupy()
    assert program.jobs() == (program.done, 1)

    program.kill(victim)
    assert program.jobs() == (program.done, 0)
    if program.row.heading == "ProcessPoolExecutor":  # it is broken when it has ended the other worker
        wait_for(
            lambda: program.jobs() and not before & program.counting()
        )  # a scrape notices deaths, a shell does not
    program.do_until(1, but=before)

    assert program.end() == 0
    assert program.shell.value("SELECT value FROM metrics WHERE metric = 'jobs_total'") == program.done
    assert program.log() == ""
    assert_tidy(program)
