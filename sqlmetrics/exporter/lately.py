"""Data about the last minutes: rates of processes and series, and observations of histograms from look to look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from operator import itemgetter
from typing import Any

from ..outside.sights import COUNTING, Rates, Sight, distribution, who_is
from ..outside.values import Distribution
from ..scrape.plan import FamilyId, Line

Points = list[tuple[float, float]]
"""(seconds since the epoch, value)."""
_WINDOW = 10.0
"""Seconds over which a rate is taken: recent, but over more than one look."""
_BUSIEST = 8
_ENDED = 10
_PROCESSES = 60


def some_time_ago(kept: list[Sight]) -> Sight:
    """Return the state to compare the last one with."""
    return next((one for one in reversed(kept) if one.at <= kept[-1].at - _WINDOW), kept[0])


def processes(found: Rates, *, is_first: bool) -> dict[str, Any]:
    """Return a page of the processes that are not settled, the busiest first, and the sums of those alive."""
    unsettled = [one for one in found.processes if one.process.state != "remembered"]
    alive = [one for one in unsettled if one.process.is_alive]
    unsettled.sort(key=lambda one: (not one.process.is_alive, -(one.per_second or 0.0), one.process.pid))
    return {
        "alive": len(alive),
        "rate": None if is_first else math.fsum(one.per_second or 0.0 for one in alive),
        "cpu": None if is_first else math.fsum(one.cpu or 0.0 for one in alive),
        "rss_bytes": sum(one.process.rss_bytes or 0 for one in alive),
        "processes": [
            {**asdict(one.process), "cpu": one.cpu, "rate": None if is_first else one.per_second}
            for one in unsettled[:_PROCESSES]
        ],
        "more_processes": max(len(unsettled) - _PROCESSES, 0),
    }


def ended(kept: list[Sight]) -> list[dict[str, Any]]:
    """Return the processes that were alive at some moment and are not now, the last first; `at`: last seen alive."""
    seen = {who_is(one): sight.at for sight in kept for one in sight.processes if one.is_alive}
    living = {who_is(one) for one in kept[-1].processes if one.is_alive}
    gone = sorted(((at, who) for who, at in seen.items() if who not in living), reverse=True)
    return [{"pid": pid, "at": at} for at, (pid, _) in gone[:_ENDED]]


def busiest(kept: list[Sight]) -> list[dict[str, Any]]:
    """Return the series with the highest rates, with the rates of the last minutes."""
    last, before = kept[-1], some_time_ago(kept)
    found: list[tuple[float, FamilyId, int]] = []
    for family, column in last.columns.items():
        if column.of.has_events:
            rises = column.since(before.columns.get(family))
            found += [(rises[n], family, n) for n in column.of.counting if rises[n] > 0]
    found.sort(key=itemgetter(0), reverse=True)
    lines = [(family, last.columns[family].of.lines[n]) for _, family, n in found[:_BUSIEST]]
    return [
        {"name": line.name, "labels": line.labels, "points": per_second(list(_values(kept, family, line)))}
        for family, line in lines
    ]


def per_second(found: Points) -> Points:
    """Return how fast a value rose from one moment to the next."""
    steps = pairwise(found)
    return [(at, max(value - before, 0.0) / (at - since)) for (since, before), (at, value) in steps if at > since]


def series(kept: list[Sight], name: str, samples: Sequence[str], labels: dict[str, str]) -> dict[str, Any]:
    """Return the last minutes of a series of a family: its events per second, or its values.

    samples: the names that its sample may have.
    """
    for family in kept[-1].columns:
        if family[0] == name:
            lines = kept[-1].columns[family].of.lines
            line = next((one for one in lines if one.name in samples and one.labels == labels), None)
            if line is not None:
                found, are_rates = list(_values(kept, family, line)), family[1] in COUNTING
                return {"points": per_second(found) if are_rates else found, "are_rates": are_rates}
    return {"points": [], "are_rates": False}


def _values(kept: list[Sight], family: FamilyId, line: Line) -> Iterator[tuple[float, float]]:
    """Yield (time, value) of a series for each moment that has it."""
    place: tuple[object, int | None] = None, None
    for sight in kept:
        column = sight.columns.get(family)
        if column is not None:
            if column.of is not place[0]:
                place = column.of, column.of.lines.index(line) if line in column.of.lines else None
            if place[1] is not None:
                yield sight.at, column.values[place[1]]


def observed(kept: list[Sight], family: FamilyId) -> list[tuple[float, float, Distribution]]:
    """Return (time, seconds, distribution) of a histogram's observations from one moment to the next."""
    steps = []
    for before, after in pairwise(kept):
        column = after.columns[family]
        spread = distribution(column.of, column.since(before.columns[family]))
        steps.append((after.at, after.at - before.at, spread))
    return steps
