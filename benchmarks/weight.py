"""What a series takes in memory and on the disk, in each process that has it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from statistics import median
from typing import TYPE_CHECKING, Any

from .comparison import compare
from .process import sides
from .sizes import Sizes
from .table import Row

if TYPE_CHECKING:
    from .library import Library

SAMPLES = 17
_fork = multiprocessing.get_context("fork")


class Growing:
    """Processes that make children of a histogram with the labels that web apps give it, the same in all."""

    def __init__(self, library: Library, folder: str, members: int):
        names = ["method", "handler", "status"]
        kind = library.classes.Histogram
        self._histogram = kind("http_request_duration_seconds", "Duration", names, registry=library.own)
        self._folder = folder
        self._pipes: list[Any] = []
        for _ in range(members):
            here, there = _fork.Pipe()
            _fork.Process(target=self._serve, args=(there, [*self._pipes, here]), daemon=True).start()
            there.close()
            self._pipes.append(here)

    def _serve(self, pipe: Connection, others: list[Connection]) -> None:
        for other in others:
            other.close()  # or this process would not notice the end of its parent
        while True:
            try:
                first, count = pipe.recv()
            except EOFError:
                return
            gc.collect()
            before = resident()
            for number in range(first, first + count):
                self._histogram.labels("GET", f"/api/v1/resource{number}/{{id}}", "200").observe(number % 16 / 8)
            time.sleep(2)  # until what they bring about is over
            gc.collect()
            pipe.send(resident() - before)

    def grow(self, first: int, count: int) -> tuple[float, int]:
        """Let all make so many children; returns the bytes of memory that each took for them, and all on the disk."""
        for pipe in self._pipes:
            pipe.send((first, count))
        grown = median(pipe.recv() for pipe in self._pipes)
        return grown, sum(entry.stat().st_blocks * 512 for entry in os.scandir(self._folder))


def resident() -> int:
    """Bytes of memory that are this process's own."""
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private"))


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """What grows with more children: without what is there once, such as the WAL."""
    series = sizes.weighed * SAMPLES
    with sides(folder, "memory", "mmap", "sqlmetrics") as running:
        memory, disk = {}, {}
        for name, side in running.items():
            _, before = side.ask("grow", members=sizes.members, first=0, count=sizes.weighed)
            grown, after = side.ask("grow", members=sizes.members, first=sizes.weighed, count=sizes.weighed)
            memory[name] = [grown / series]
            disk[name] = [(after - before) / series / sizes.members]
        compare("what was weighed", {name: running[name].ask("content") for name in ("mmap", "sqlmetrics")})
    del disk["memory"]
    yield Row("memory for each series and process", memory, "bytes", target=0.5)
    yield Row("disk for each series and process", disk, "bytes", target=0.5)
