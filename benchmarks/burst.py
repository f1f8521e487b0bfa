"""What label sets that explode cost: four workers at once, each of which meets users that no other has met.

Their counter is in the default registry, as an app's is, and a worker is scraped right after the burst.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Counter, generate_latest

from .comparison import compare
from .crowd import Pipe, make_children
from .process import Side, sides
from .sizes import Sizes
from .table import Row

if TYPE_CHECKING:
    from .library import Library

WORKERS = 4
_fork = multiprocessing.get_context("fork")
_LONGEST = 120
"""Seconds after which rows that are not there are taken for lost."""
_WAIT_FOR_ROWS = """
import sqlite3, sys, time
path, count, begun, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
wanted = "SELECT sum(value) FROM cell_copy WHERE series IN (SELECT id FROM series WHERE name = 'visits_total')"
while connection.execute(wanted).fetchone() != (count,):
    if time.monotonic() - begun > seconds:
        sys.exit(f"rows are missing after {seconds} s")
    time.sleep(0.1)
print(time.monotonic() - begun)
"""


class Burst:
    """The workers of one side, forked from one process."""

    def __init__(self, library: Library):
        visits, barrier = Counter("visits", "Visits", ["user"]), _fork.Barrier(WORKERS)
        self._pipes: list[Pipe] = []
        for number in range(WORKERS):
            here, there = _fork.Pipe()
            arguments = (there, [*self._pipes, here], barrier, library, visits, number)
            _fork.Process(target=_work, args=arguments, daemon=True).start()
            there.close()
            self._pipes.append(here)

    def explode(self, count: int) -> list[float]:
        """Let all of them make so many children at once; returns each one's seconds for a child."""
        for pipe in self._pipes:
            pipe.send(count)
        return [pipe.recv() for pipe in self._pipes]

    def scrape(self) -> tuple[float, dict[str, Any]]:
        """Let the first one be scraped; returns the seconds, and what it shows of the visits."""
        self._pipes[0].send(0)
        answer: tuple[float, dict[str, Any]] = self._pipes[0].recv()
        return answer


def _work(pipe: Pipe, others: list[Pipe], barrier: Barrier, library: Library, visits: Counter, number: int) -> None:
    for other in others:
        other.close()  # or this process would not notice the end of its parent
    while True:
        try:
            count = pipe.recv()
        except EOFError:
            return
        if count:
            barrier.wait()
            seconds = make_children(visits, str(number), count)
            for place in range(count):
                visits.labels(f"/{number}/{place}").inc()
            pipe.send(seconds)
        else:
            pipe.send(_scrape(library))


def _scrape(library: Library) -> tuple[float, dict[str, Any]]:
    registry = REGISTRY if library.side == "sqlmetrics" else library.scraped
    start = time.perf_counter()
    text = generate_latest(registry)
    seconds = time.perf_counter() - start
    lines = sorted(line for line in text.splitlines() if line.startswith(b"visits_total{"))
    return seconds, {"lines": len(lines), "digest": hashlib.sha256(b"\n".join(lines)).hexdigest()}


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """Each round with a new store. The rows are waited for by a process that does nothing else."""
    made: dict[str, list[float]] = {"mmap": [], "sqlmetrics": []}
    first: dict[str, list[float]] = {"mmap": [], "sqlmetrics": []}
    complete = []
    for _ in range(sizes.burst_rounds):
        with sides(folder, *made) as running:
            shown = {}
            for name, side in running.items():
                made[name].append(median(side.ask("explode", count=sizes.many)))
                waiting = _wait_for_rows(side, sizes) if name == "sqlmetrics" else None
                seconds, shown[name] = side.ask("scrape_after_burst")
                first[name].append(seconds)
                if waiting is not None:
                    complete.append(float(waiting.communicate()[0]))
            compare("scrapes after a burst", shown)
    crowd = f"{WORKERS} x {sizes.many:,}"
    yield Row(f"new counter child, {crowd} at once", made, "us", target=1.0)
    yield Row(f"first scrape of a worker, {crowd} new counters", first, "ms", target=1.0)
    notes = {"mmap": "no rows"}
    yield Row(f"until the rows are complete, {crowd} new counters", {"sqlmetrics": complete}, "s", most=5, notes=notes)


def _wait_for_rows(side: Side, sizes: Sizes) -> subprocess.Popen[str]:
    path, count = f"{side.folder}/metrics.sqlite3", str(WORKERS * sizes.many)
    command = [sys.executable, "-c", _WAIT_FOR_ROWS, path, count, str(time.monotonic()), str(_LONGEST)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
