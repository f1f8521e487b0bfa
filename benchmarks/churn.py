"""What a store costs after many processes have ended: seconds of a scrape, bytes on the disk, files.

The mmap mode is told of each death, as its documentation wants; sqlmetrics is told nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from .comparison import compare
from .library import Library
from .process import sides
from .sizes import Sizes
from .table import Row

AT_ONCE = 5


class Workers:
    """Short-lived processes, forked from one parent; every second one is killed."""

    def __init__(self, library: Library):
        classes, registry = library.classes, library.own
        self._requests = classes.Counter("served", "Served", ["path"], registry=registry)
        self._busy = library.gauge("busy", "livesum")
        self._newest = library.gauge("newest", "max")
        self._latency = classes.Histogram("waited", "Waited", ["path"], registry=registry)
        self._ever = 0

    def churn(self, deaths: int) -> list[int]:
        """Start processes until so many have ever been; returns the pids of those that have ended now."""
        ended = []
        while self._ever < deaths:
            pids = [self._start(number) for number in range(self._ever, min(deaths, self._ever + AT_ONCE))]
            self._ever += len(pids)
            for pid in pids:
                os.waitpid(pid, 0)
            ended += pids
        return ended

    def _start(self, number: int) -> int:
        pid = os.fork()
        if pid == 0:
            self._work(number)
            if number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        return pid

    def _work(self, number: int) -> None:
        self._busy.set(1)
        self._newest.set(number)
        for count in range(20):
            self._requests.labels(f"/{count % 8}").inc()
            self._latency.labels(f"/{count % 8}").observe(number % 16 / 8)  # exact sums in any order


def footprint(folder: str) -> tuple[int, int]:
    """Bytes on the disk, as `du` counts them, and files."""
    found = list(os.scandir(folder))
    return sum(entry.stat().st_blocks * 512 for entry in found), len(found)


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """One row for each thing and number of deaths; both sides must show the same each time.

    The first scrape after so many deaths has them to settle, if nobody else has: it is a row of its own.
    """
    with sides(folder, "mmap", "sqlmetrics") as running:
        for deaths in sizes.deaths:
            for side in running.values():
                side.ask("churn", deaths=deaths)
            time.sleep(1)  # until what a death brings about is over
            first = {name: [side.ask("scrape", way="own")[0]] for name, side in running.items()}
            yield Row(f"first scrape after {deaths:,} died, nobody alive", first, "ms", target=1.0)
            times: dict[str, list[float]] = {name: [] for name in running}
            for _ in range(sizes.churn_rounds):
                for name, side in running.items():
                    times[name].append(side.ask("scrape", way="own")[0])
            compare(f"{deaths} deaths", {name: side.ask("content") for name, side in running.items()})
            yield Row(f"the next ones, {deaths:,} died", times, "ms")
            sizes_of = {name: side.ask("footprint") for name, side in running.items()}
            yield Row(f"on the disk, {deaths:,} died", {name: [one[0]] for name, one in sizes_of.items()}, "MiB")
            yield Row(f"files, {deaths:,} died", {name: [one[1]] for name, one in sizes_of.items()}, "files")
