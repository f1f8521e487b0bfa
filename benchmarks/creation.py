"""What making a child costs: a labelled histogram (16 values), and a labelled counter."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from .comparison import compare
from .process import sides
from .sizes import Sizes
from .table import SIDES, Row


def measure_alone(folder: str, sizes: Sizes) -> Iterator[Row]:
    """One process, nobody else."""
    # mpmetrics takes longer for each child that there is, 30 to 90 ms in the second hundred: fewer of them are made.
    counts = {name: sizes.alone // (20 if name == "mpmetrics" else 1) for name in SIDES}
    with sides(folder, *SIDES) as running:
        times: dict[str, list[float]] = {name: [] for name in running}
        for number in range(-1, sizes.alone_rounds):
            for name, side in running.items():
                seconds = side.ask("create", prefix=f"round {number}", count=counts[name])
                if number >= 0:
                    times[name].append(seconds)
        # The family only: in memory a mostrecent gauge that was never set is there, at zero.
        same = ("memory", "mmap", "sqlmetrics")
        compare("made in one process", {name: running[name].ask("content", family="latency") for name in same})
    yield Row("new histogram child, alone", times, "us", target=0.4)


def measure_together(folder: str, sizes: Sizes) -> Iterator[Row]:
    """Many processes begin at the same moment, each round with a new store: per child, a process's median."""
    times: dict[str, list[float]] = {"mmap": [], "sqlmetrics": []}
    for _ in range(sizes.together_rounds):
        with sides(folder, *times) as running:
            for name, side in running.items():
                seconds = side.ask("gather", members=sizes.members, children=sizes.children)
                times[name].append(median(seconds))
            compare("children made at once", {name: side.ask("content") for name, side in running.items()})
    yield Row(f"new histogram child, {sizes.members} at once", times, "us", target=0.4)


def measure_counters(folder: str, sizes: Sizes) -> Iterator[Row]:
    """One process that makes some, and then many more; each round with a new store."""
    names = ("memory", "mmap", "sqlmetrics")
    some: dict[str, list[float]] = {name: [] for name in names}
    many: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(sizes.counter_rounds):
        with sides(folder, *names) as running:
            for name, side in running.items():
                first = side.ask("create", prefix="first", count=sizes.some, kind="counter")
                rest = side.ask("create", prefix="rest", count=sizes.many - sizes.some, kind="counter")
                some[name].append(first)
                many[name].append((sizes.some * first + (sizes.many - sizes.some) * rest) / sizes.many)
            compare("counters made", {name: side.ask("content", family="hits") for name, side in running.items()})
    yield Row(f"new counter child, {sizes.some:,} in one process", some, "us", target=1.0)
    yield Row(f"new counter child, {sizes.many:,} in one process", many, "us", target=1.0)
