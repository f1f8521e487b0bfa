"""Processes that live at the same time, forked from one parent as a web server's workers are."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from prometheus_client import Counter, Histogram

from .library import Metrics

Pipe: TypeAlias = "Connection[Any, Any]"
_fork = multiprocessing.get_context("fork")
IN_EACH_BUCKET = tuple(number / 256 for number in (1, 2, 4, 8, 16, 24, 32, 96, 160, 224, 512, 1024, 1536, 2048, 4096))
"""A number in each of the default buckets; sums of such numbers are exact, whatever the order."""


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

    def change_all(self) -> None:
        """Let each process observe something in each bucket of each of its children."""
        for pipe in self._pipes:
            pipe.send(None)
        for pipe in self._pipes:
            pipe.recv()


def make_children(metric: Counter | Histogram, prefix: str, count: int) -> float:
    """Make labelled children and return the seconds for each."""
    values = [f"/{prefix}/{number}" for number in range(count)]
    start = time.perf_counter()
    for value in values:
        metric.labels(value)
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
        if beat is None:
            _observe_everywhere(metrics.latency, children)
        else:
            metrics.beats.labels(beat).inc()
        pipe.send("counted")


def _observe_everywhere(histogram: Histogram, children: int) -> None:
    for place in range(children):
        child = histogram.labels(f"/page/{place}")
        for amount in IN_EACH_BUCKET:
            child.observe(amount)
