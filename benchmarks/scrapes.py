"""What a scrape of many living processes costs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .comparison import compare, expect
from .process import Side, sides
from .sizes import Sizes
from .table import Row

SETTLING = 5.0
"""Seconds after which the processes no longer do what a start brings about."""


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """Before each scrape a process counts something, which the scrape must show."""
    crowd = f"{sizes.members} processes x {sizes.children * 17:,}"
    with sides(folder, "mmap", "sqlmetrics") as running:
        for side in running.values():
            side.ask("gather", members=sizes.members, children=sizes.children)
        times = _rounds(running, sizes, "generate_latest", new_series=False)
        yield Row("generate_latest, just started", times, "ms", to_mmap=1 / 6)
        time.sleep(SETTLING)
        for way in ("generate_latest", "collector"):
            yield Row(f"{way}, {crowd}", _rounds(running, sizes, way, new_series=False), "ms", to_mmap=1 / 6)
        yield Row("generate_latest, a series is new", _rounds(running, sizes, "generate_latest", new_series=True), "ms")
        compare("the scrapes of all processes", {name: side.ask("content") for name, side in running.items()})


def _rounds(running: dict[str, Side], sizes: Sizes, way: str, new_series: bool) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in running}
    for number in range(-1, sizes.scrape_rounds):
        for name, side in running.items():
            counted = side.ask("count", member=number % sizes.members, new_series=new_series)
            seconds, shown = side.ask("scrape", way=way)
            expect(f"what {name} shows of something that was just counted", shown, counted)
            if number >= 0:  # the first one warms up
                times[name].append(seconds)
    return times
