"""Processes that live at the same time, forked from one parent as a web server's workers are."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from prometheus_client import Histogram

from .library import Metrics

Pipe: TypeAlias = "Connection[Any, Any]"
_fork = multiprocessing.get_context("fork")


class Crowd:
    """Forked processes that make the same children, all starting at once, and count when they are told to.

    children: of a histogram; gauges: series of a gauge of mode `all`.
    """

    def __init__(self, metrics: Metrics, members: int, children: int, gauges: int):
        barrier, self._open = os.pipe()
        self._pipes: list[Pipe] = []
        self._beats: dict[int, int] = {}
        self._newest = 0
        for number in range(members):
            here, there = _fork.Pipe()
            arguments = (there, [*self._pipes, here], (barrier, self._open), metrics, number, children, gauges)
            _fork.Process(target=_member, args=arguments, daemon=True).start()
            there.close()
            self._pipes.append(here)
        for pipe in self._pipes:
            pipe.recv()

    def start(self) -> list[float]:
        """Let all begin in the same moment; returns each one's seconds per child."""
        os.close(self._open)
        seconds = [pipe.recv() for pipe in self._pipes]
        for pipe in self._pipes:
            pipe.recv()
        return seconds

    def count(self, member: int, new_series: bool) -> tuple[str, int]:
        """Let a process count once; returns the label and the value that a scrape must show from now on."""
        if new_series:
            self._newest += 1
        self._pipes[member].send(str(self._newest))
        self._pipes[member].recv()
        self._beats[self._newest] = self._beats.get(self._newest, 0) + 1
        return str(self._newest), self._beats[self._newest]


def make_children(histogram: Histogram, prefix: str, count: int) -> float:
    """Make labelled children and return the seconds for each."""
    values = [f"/{prefix}/{number}" for number in range(count)]
    start = time.perf_counter()
    for value in values:
        histogram.labels(value)
    return (time.perf_counter() - start) / count


def _member(
    pipe: Pipe,
    others: list[Pipe],
    barrier: tuple[int, int],
    metrics: Metrics,
    number: int,
    children: int,
    gauges: int,
) -> None:
    for other in others:
        other.close()  # or this process would not notice the end of its parent
    os.close(barrier[1])
    pipe.send("ready")
    os.read(barrier[0], 1)  # ends when nobody can write to it any more
    pipe.send(make_children(metrics.latency, "page", children))
    for place in range(children):
        # Sums of such numbers are exact, whatever the order.
        metrics.latency.labels(f"/page/{place}").observe((number * 37 + place) % 200 / 16)
    for place in range(gauges):
        metrics.levels.labels(str(place)).set(number + place)
    pipe.send("made")
    while True:
        try:
            beat = pipe.recv()
        except EOFError:
            return
        metrics.beats.labels(beat).inc()
        pipe.send("counted")
