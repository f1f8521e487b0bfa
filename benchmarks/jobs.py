"""What a process costs that is forked for one job, counts ten times and ends, as the work horses of rq do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from .comparison import compare
from .process import sides
from .sizes import Sizes
from .table import Row

if TYPE_CHECKING:
    from .library import Metrics


def cpu_of_jobs(metrics: Metrics, jobs: int) -> float:
    """The median of the CPU seconds, of its program and of the system for it, that a process takes for one job."""
    _operate(metrics)  # the parent has the children already
    seconds = []
    for _ in range(jobs):
        pid = os.fork()
        if pid == 0:
            _operate(metrics)
            os._exit(0)
        _, _, used = os.wait4(pid, 0)
        seconds.append(used.ru_utime + used.ru_stime)
    return median(seconds)


def _operate(metrics: Metrics) -> None:
    for number in range(5):
        metrics.hits.labels(f"/job/{number}").inc()
        metrics.latency.labels(f"/job/{number}").observe(number / 4)


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """Nobody is told that a process has ended; the time of who settles it is not in the figure."""
    with sides(folder, "mmap", "sqlmetrics") as running:
        times: dict[str, list[float]] = {name: [] for name in running}
        for number in range(-1, sizes.job_rounds):
            for name, side in running.items():
                seconds = side.ask("cpu_of_jobs", jobs=sizes.jobs)
                if number >= 0:
                    times[name].append(seconds)
            time.sleep(1)  # until what the deaths bring about is over
        compare("what the jobs counted", {name: side.ask("content") for name, side in running.items()})
    yield Row("CPU of a process that lives for one job", times, "us", target=1.5)
