"""What a process's other threads cost: with nothing to do, and while it counts a thousand times in each second."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .process import sides
from .sizes import Sizes
from .table import Row

if TYPE_CHECKING:
    from .library import Metrics


class Busy:
    """Measures this process's other threads by what the kernel has booked to them."""

    def __init__(self, metrics: Metrics):
        self._metrics = metrics
        self._operations: dict[str, list[Any]] = {}

    def idle(self, seconds: float) -> tuple[float, float]:
        """CPU seconds and wake-ups in each second."""
        cpu, switches = _others()
        time.sleep(seconds)
        later = _others()
        return (later[0] - cpu) / seconds, (later[1] - switches) / seconds

    def work(self, kind: str, rate: int, seconds: float) -> float:
        """CPU seconds in each second, with operations on children at random, in a hundred portions a second."""
        operations = self._operations.get(kind) or self._make(kind)
        cpu, _ = _others()
        start = time.perf_counter()
        portions = int(seconds * 100)
        for portion in range(portions):
            for _ in range(rate // 100):
                random.choice(operations)(0.25)
            time.sleep(max(0.0, start + (portion + 1) / 100 - time.perf_counter()))
        return (_others()[0] - cpu) / (time.perf_counter() - start)

    def _make(self, kind: str) -> list[Any]:
        if kind == "counter":
            made = [self._metrics.hits.labels(f"/{number}").inc for number in range(5000)]
        else:
            made = [self._metrics.latency.labels(f"/{number}").observe for number in range(5000)]
        time.sleep(5)  # until what they bring about is over
        self._operations[kind] = made
        return made


def _others() -> tuple[float, int]:
    """CPU seconds and voluntary context switches of all threads but this one; proc_pid_stat(5), schedstat."""
    cpu, switches = 0.0, 0
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != os.getpid():
            with open(f"/proc/self/task/{thread}/schedstat") as file:
                cpu += int(file.read().split()[0]) / 1e9
            with open(f"/proc/self/task/{thread}/status") as file:
                switches += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
    return cpu, switches


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """The mmap mode has no other thread."""
    with sides(folder, "sqlmetrics") as running:
        side = running["sqlmetrics"]
        none = {"mmap": "0 %"}
        for kind in ("counter", "histogram"):
            rounds = [
                side.ask("work", kind=kind, rate=1000, seconds=sizes.busy_seconds) for _ in range(sizes.busy_rounds)
            ]
            what = f"background CPU, 1,000/s over 5,000 {kind}s"
            yield Row(what, {"sqlmetrics": rounds}, "%", most=0.005, notes=none)
        time.sleep(3)
        idle = [side.ask("idle", seconds=sizes.busy_seconds) for _ in range(sizes.busy_rounds)]
        yield Row(
            "background CPU, idle with 10,000 children", {"sqlmetrics": [cpu for cpu, _ in idle]}, "%", notes=none
        )
        wakes = [switches for _, switches in idle]
        yield Row("wake-ups, idle", {"sqlmetrics": wakes}, "1/s", notes={"mmap": "0 1/s"})
