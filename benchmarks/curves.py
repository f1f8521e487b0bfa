"""How a scrape grows: over processes that ever lived, over living processes, and over series; and the picture of it."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import NamedTuple

from .comparison import compare, expect
from .process import Side, sides
from .scrapes import SAMPLES
from .sizes import Sizes

SERIES_OF = ("mmap", "sqlmetrics")
LABELS = {"mmap": "prometheus_client, mmap mode", "sqlmetrics": "sqlmetrics"}


class Curve(NamedTuple):
    """One panel: numbers of something, and each side's seconds for them."""

    over: str
    numbers: list[int]
    seconds: dict[str, list[float]]


def measure(folder: str, sizes: Sizes) -> list[Curve]:
    """The three curves."""
    return [_over_lived(folder, sizes), _over_living(folder, sizes), _over_series(folder, sizes)]


def _over_lived(folder: str, sizes: Sizes) -> Curve:
    curve = Curve("processes that ever lived (4 alive, 340 samples each)", [], {side: [] for side in SERIES_OF})
    with sides(folder, *SERIES_OF) as running:
        for side in running.values():
            side.ask("gather", members=4, children=20)
        ended = 0
        for number in sizes.lived:
            for side in running.values():
                side.ask("wear_out", deaths=number - ended, children=20)
            ended = number
            _add(curve, number, running)
    return curve


def _over_living(folder: str, sizes: Sizes) -> Curve:
    curve = Curve("living processes (1,020 samples each)", [], {side: [] for side in SERIES_OF})
    for number in sizes.living:
        with sides(folder, *SERIES_OF) as running:
            for side in running.values():
                side.ask("gather", members=number, children=60)
            _add(curve, number, running)
    return curve


def _over_series(folder: str, sizes: Sizes) -> Curve:
    curve = Curve("series (of each of 4 processes)", [], {side: [] for side in SERIES_OF})
    for number in sizes.series:
        with sides(folder, *SERIES_OF) as running:
            for side in running.values():
                side.ask("gather", members=4, children=number // SAMPLES)
            _add(curve, number, running)
    return curve


def _add(curve: Curve, number: int, running: dict[str, Side]) -> None:
    curve.numbers.append(number)
    for name, side in running.items():
        times = []
        for again in range(-1, 3):
            counted = side.ask("count", member=0, new_series=False)
            seconds, shown = side.ask("scrape", way="own")
            expect(f"what {name} shows of something that was just counted", shown, counted)
            if again >= 0:
                times.append(seconds)
        curve.seconds[name].append(median(times))
    compare(f"{number} {curve.over}", {name: side.ask("content") for name, side in running.items()})


def draw(curves: list[Curve], path: Path) -> None:
    """Write the picture, an SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sqlmetrics"  # the same picture for the same numbers
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(13, 4), sharey=True)
    for panel, curve in zip(panels, curves, strict=True):
        for side, seconds in curve.seconds.items():
            panel.plot(curve.numbers, [1000 * one for one in seconds], marker="o", label=LABELS[side])
        panel.set(xscale="log", yscale="log", xlabel=curve.over)
        panel.grid(visible=True, which="major", alpha=0.3)
    panels[0].set_ylabel("one scrape, ms")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
