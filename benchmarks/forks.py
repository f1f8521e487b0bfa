"""What the first operation of a forked process costs, in which every child that was made before has to be its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from .comparison import expect
from .library import Metrics
from .process import sides
from .sizes import Sizes
from .table import Row


def first_operation(metrics: Metrics, children: int) -> float:
    """Make the children if need be, fork, and return the seconds of the first operation in the new process."""
    for number in range(children):
        metrics.hits.labels(f"/hit/{number}")
    reading, writing = os.pipe()
    if os.fork() == 0:
        start = time.perf_counter()
        metrics.hits.labels("/hit/1").inc()
        os.write(writing, str(time.perf_counter() - start).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = float(pipe.read())
    os.wait()
    return answer


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """One process after the other is forked from one that has made the children."""
    with sides(folder, "mmap", "sqlmetrics") as running:
        times: dict[str, list[float]] = {name: [] for name in running}
        for number in range(-1, sizes.fork_rounds):
            for name, side in running.items():
                seconds = side.ask("first_operation", children=sizes.inherited)
                if number >= 0:
                    times[name].append(seconds)
        for name, side in running.items():
            shown = side.ask("content", family="hits").get('hits_total {"path": "/hit/1"}')
            expect(f"what {name} shows of what the forked processes counted", shown, sizes.fork_rounds + 1)
    yield Row(f"first operation after a fork, {sizes.inherited:,} children", times, "us", target=0.3)
