"""What a scrape costs: of many living processes, after many have ended, and of as many series as there may be."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator

from .comparison import compare, expect
from .process import Side, sides
from .sizes import Sizes
from .table import Row

SETTLING = 5.0
"""Seconds after which the processes no longer do what a start brings about."""
FLUSHED = 1.5
"""Seconds after which what has changed is in rows: few of the scrapes that come each 15 s meet the writing of it."""
SAMPLES = 17
"""Of a histogram's child in a scrape; 16 cells."""
PID = r'"pid": "\d+"'
WAYS = {"own": "sqlmetrics.generate_latest()", "generate_latest": "prometheus_client.generate_latest(registry)"}


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """Of 16 processes, with all that the sides are used with."""
    crowd = f"{sizes.members} x {sizes.children * SAMPLES:,} samples"
    with sides(folder, "mmap", "sqlmetrics") as running:
        for side in running.values():
            side.ask("gather", members=sizes.members, children=sizes.children)
        time.sleep(SETTLING)
        yield Row(f"scrape, {crowd}, own function", rounds(running, sizes, "own"), "ms", target=1 / 20)
        changed = rounds(running, sizes, "own", change_all=True)
        yield Row(f"scrape, {crowd}, every sample changed", changed, "ms", target=1 / 15)
        of_peer = rounds(running, sizes, "generate_latest")
        yield Row(f"scrape, {crowd}, generate_latest", of_peer, "ms", target=1 / 6)
        yield Row("scrape, a series is new each time", rounds(running, sizes, "own", new_series=True), "ms")
        yield Row("the first scrape of a process", _first(running, sizes), "ms", target=0.3)
        compare("the scrapes of all processes", {name: side.ask("content") for name, side in running.items()})


def _first(running: dict[str, Side], sizes: Sizes) -> dict[str, list[float]]:
    """Seconds of the first scrape of processes that have just started."""
    times: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(sizes.slow_rounds + 1):
        for name, side in running.items():
            fresh = side.another()
            times[name].append(fresh.ask("scrape", way="own")[0])
            fresh.close()
    return times


def measure_gauges(folder: str, sizes: Sizes) -> Iterator[Row]:
    """Of 16 processes with gauges of mode `all`, each series of which is a line for each process."""
    with sides(folder, "mmap", "sqlmetrics") as running:
        for side in running.values():
            side.ask("gather", members=sizes.members, children=1, gauges=sizes.gauges)
        time.sleep(SETTLING)
        times = rounds(running, sizes, "own")
        yield Row(f"scrape, {sizes.members} x {sizes.gauges:,} gauges of mode all", times, "ms", target=0.25)
        compare("the gauges of all processes", {name: _without_pids(side) for name, side in running.items()})


def _without_pids(side: Side) -> Counter[str]:
    """How often a side shows each line without its pid, for the sides have processes of their own."""
    return Counter(f"{re.sub(PID, '', line)} {value}" for line, value in side.ask("content").items())


def measure_after_deaths(folder: str, sizes: Sizes) -> Iterator[Row]:
    """The same crowd beside processes that come and go; each observes a tenth of the children, and ends.

    Beside it another crowd, in whose store nobody has ended.
    """
    with sides(folder, "mmap", "sqlmetrics") as worn, sides(folder, "sqlmetrics") as fresh:
        running = {**worn, "none dead": fresh["sqlmetrics"]}
        for side in running.values():
            side.ask("gather", members=sizes.members, children=sizes.children)
        time.sleep(SETTLING)
        for side in worn.values():
            side.ask("wear_out", deaths=sizes.worn_out, children=sizes.children // 10)
        time.sleep(SETTLING)
        times = rounds(running, sizes, "own", few=("mmap",))
        compare("after the deaths", {name: side.ask("content") for name, side in worn.items()})
    none_dead = times.pop("none dead")
    yield Row(f"the first crowd, {sizes.worn_out:,} dead workers", times, "ms", target=1 / 1000)
    both = {"sqlmetrics": times["sqlmetrics"], "none dead": none_dead}
    yield Row("the same, compared with none dead", both, "ms", to="none dead", target=1.2)


def measure_large(folder: str, sizes: Sizes) -> Iterator[Row]:
    """As many processes and series as are promised to work well."""
    crowd = f"{sizes.many_members} x {sizes.many_children * SAMPLES:,}"
    with sides(folder, "mmap", "sqlmetrics") as running:
        for side in running.values():
            side.ask("gather", members=sizes.many_members, children=sizes.many_children)
        time.sleep(2 * SETTLING)
        times = rounds(running, sizes, "own", few=("mmap", "sqlmetrics"))
        yield Row(f"scrape, {crowd} samples", times, "ms", target=1 / 15)
        peaks = {}
        for name, side in running.items():
            fresh = side.another()
            peaks[name] = [fresh.ask("peak")]
            fresh.close()
        yield Row("memory of a process that scrapes it", peaks, "MiB", target=0.3)
        compare("the scrapes of very many", {name: side.ask("content") for name, side in running.items()})


def rounds(
    running: dict[str, Side],
    sizes: Sizes,
    way: str,
    *,
    new_series: bool = False,
    change_all: bool = False,
    few: tuple[str, ...] = (),
) -> dict[str, list[float]]:
    """Seconds of each side's scrapes; before each of them a process counts something, which it must show.

    change_all: have each process change each of its samples before. few: sides whose scrapes take long; their figures
        are repeated, so that all have as many.
    """
    times: dict[str, list[float]] = {name: [] for name in running}
    for number in range(-1, sizes.scrape_rounds):
        for name, side in running.items():
            if change_all:
                side.ask("change_all")
                time.sleep(FLUSHED)
            counted = side.ask("count", member=number % 4, new_series=new_series)
            if name in few and number >= sizes.slow_rounds:
                times[name].append(times[name][number % sizes.slow_rounds])
                continue
            seconds, shown = side.ask("scrape", way=way)
            expect(f"what {name} shows of something that was just counted", shown, counted)
            if number >= 0:  # the first one warms up
                times[name].append(seconds)
    return times
