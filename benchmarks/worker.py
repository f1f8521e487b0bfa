"""A process of one side: ``python -m benchmarks.worker SIDE FOLDER`` does what it reads, one JSON line each."""

from __future__ import annotations

import json
import os
import random
import sys
import time
import timeit
from statistics import median
from typing import Any

from . import anatomy
from .background import Busy
from .burst import Burst
from .churn import Workers, footprint
from .crowd import Crowd, make_children
from .forks import first_operation
from .jobs import cpu_of_jobs
from .library import Library, Metrics, flat
from .stall import longest_stall, share_of_another_thread
from .waits import longest_inc, make_known
from .weight import Growing


class Worker:
    """The tasks; each public method is one, and what it returns is the answer."""

    def __init__(self, side: str, folder: str):
        self._folder = folder
        self._library = Library(side, folder)
        self._workers: Workers | None = None
        self._metrics = Metrics(self._library)
        self._busy = Busy(self._metrics)
        self._growing: Growing | None = None

    def operate(self, statement: str, count: int) -> float:
        """Run a statement so often and return the seconds of one."""
        return timeit.Timer(statement, globals=self._metrics.operated).timeit(count) / count

    def create(self, prefix: str, count: int, kind: str = "histogram") -> float:
        """Make children and return the seconds of one."""
        return make_children(self._metrics.hits if kind == "counter" else self._metrics.latency, prefix, count)

    def grow(self, members: int, first: int, count: int) -> tuple[float, int]:
        """Let processes make children; see `weight.Growing`."""
        self._growing = self._growing or Growing(self._library, self._folder, members)
        return self._growing.grow(first, count)

    def gather(self, members: int, children: int, gauges: int = 0) -> list[float]:
        """Fork processes that live from now on; returns how long a child took in each."""
        self._crowd = Crowd(self._metrics, members, children, gauges)
        return self._crowd.start()

    def count(self, member: int, new_series: bool) -> list[Any]:
        """Let one of them count something; returns the label and value of it that a scrape must show."""
        return list(self._crowd.count(member, new_series))

    def change_all(self) -> None:
        """Let all of them change all samples that they have."""
        self._crowd.change_all()

    def explode(self, count: int) -> list[float]:
        """Let four workers make so many children at once; see `burst.Burst`."""
        self._burst = Burst(self._library)
        return self._burst.explode(count)

    def scrape_after_burst(self) -> tuple[float, dict[str, Any]]:
        """The first scrape of one of these workers: its seconds, and what it shows."""
        return self._burst.scrape()

    def make_known(self, children: int) -> None:
        """Make so many children, until they are rows."""
        make_known(self._metrics, children)

    def longest_inc(self, seconds: float) -> tuple[float, int]:
        """The seconds of the slowest operation on one of them, and how many there were."""
        return longest_inc(self._metrics, seconds)

    def remove(self, path: str) -> None:
        """Remove one of them, whichever process has it."""
        self._metrics.hits.remove(path)

    def cpu_of_jobs(self, jobs: int) -> float:
        """The CPU seconds of a process that is forked for one job."""
        return cpu_of_jobs(self._metrics, jobs)

    def share_of_another_thread(self) -> float:
        """What another thread gets done during scrapes, as a part of what it gets done without."""
        return share_of_another_thread(self._library)

    def scrape(self, way: str) -> tuple[float, list[Any]]:
        """Scrape, and return the seconds and what was counted last, as the scrape shows it."""
        ways = {"own": self._library.own_text, "generate_latest": self._library.text}
        scrape = ways.get(way, self._library.collect)
        start = time.perf_counter()
        result = scrape()
        seconds = time.perf_counter() - start
        return seconds, _newest_beat(result)

    def peak(self) -> int:
        """The most bytes of memory that this process ever took during scrapes, more than before them."""
        before = _status("VmRSS")
        for _ in range(3):
            self._library.own_text()
        return _status("VmHWM") - before

    def stall(self, number: str) -> tuple[float, str]:
        """The longest that an event loop stood still during a scrape, and the text's line of a beat."""
        return longest_stall(self._library, number)

    def first_operation(self, children: int) -> float:
        """Seconds of the first operation of a process that was forked with so many children made before."""
        return first_operation(self._metrics, children)

    def idle(self, seconds: float) -> tuple[float, float]:
        """CPU seconds and wake-ups of the other threads of this process in each second, with nothing to do."""
        return self._busy.idle(seconds)

    def work(self, kind: str, rate: int, seconds: float) -> float:
        """CPU seconds of its other threads in each second, while it counts."""
        return self._busy.work(kind, rate, seconds)

    def increment_parts(self) -> dict[str, float]:
        """Seconds of the parts of an increment."""
        return anatomy.increment(self._metrics)

    def flush_parts(self, children: int, operations: int) -> dict[str, float]:
        """Seconds of the parts of a flush, after so many observations of children at random."""
        import sqlmetrics

        store = sqlmetrics.install()
        store.flusher.stop()
        made = [self._metrics.latency.labels(f"/{number}") for number in range(children)]
        store.flush()

        def flush() -> None:
            store.flush()

        def observe_and_flush() -> dict[str, float]:
            for _ in range(operations):
                random.choice(made).observe(0.25)
            return anatomy.parts_of(anatomy.FLUSH, flush, 1)

        runs = [observe_and_flush() for _ in range(7)]
        return {part: median(run[part] for run in runs) for part in runs[0]}

    def scrape_parts(self, everything: bool) -> dict[str, float]:
        """Seconds of the parts of a scrape after a process has counted; everything: as if all of them had."""

        def scrape() -> None:
            self.count(0, new_series=False)
            if everything:
                self._library.forget_sums()
            self._library.own_text()

        scrape()
        return anatomy.parts_of(anatomy.SCRAPE, scrape, 7)

    def churn(self, deaths: int) -> None:
        """Let processes come and go until so many have ended."""
        self._workers = self._workers or Workers(self._library)
        for pid in self._workers.churn(deaths):
            self._library.note_death(pid)

    def wear_out(self, deaths: int, children: int) -> None:
        """Let processes end that have observed so many of the children that the crowd has."""
        for _ in range(deaths // 4):
            pids = [self._short_life(children) for _ in range(4)]
            for pid in pids:
                os.waitpid(pid, 0)

    def _short_life(self, children: int) -> int:
        pid = os.fork()
        if pid == 0:
            for place in range(children):
                self._metrics.latency.labels(f"/page/{place}").observe(place % 16 / 8)
            os._exit(0)
        return pid

    def footprint(self) -> tuple[int, int]:
        """Bytes and files of the store."""
        return footprint(self._folder)

    def content(self, family: str = "") -> dict[str, float | str]:
        """All that a scrape shows, or only one family."""
        return self._library.content(family)


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(name))


def _newest_beat(result: Any) -> list[Any]:
    """The label and value of the newest series of the metric `beats`."""
    if isinstance(result, bytes):
        lines = [line for line in result.decode().splitlines() if line.startswith("beats_total{")]
        shown = {line.split('"')[1]: float(line.split()[-1]) for line in lines}
    else:
        samples = flat(family for family in result if family.name == "beats").items()
        shown = {line.split('"')[3]: float(value) for line, value in samples if line.startswith("beats_total ")}
    newest = max(shown, key=int, default="")
    return [newest, shown.get(newest)]


def main() -> None:
    """Read and do, until the other end of the pipe is closed."""
    worker = Worker(*sys.argv[1:])
    for line in sys.stdin:
        task, arguments = json.loads(line)
        print(json.dumps(getattr(worker, task)(**arguments)), flush=True)


if __name__ == "__main__":
    main()
