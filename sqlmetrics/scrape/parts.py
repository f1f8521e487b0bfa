"""The part that each process has of a scrape's values: rows of the query's relations, before they are grouped."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from ..cells.shape import STATE_TYPES
from . import query
from .plan import Family, FamilyId, Gauge, Line, Lines, Plan
from .tables import Living


class Part(NamedTuple):
    """A sample of one process, or of all ended processes together.

    process: None for what ended processes left; its id is 0 if it has ended and is remembered for its `all` gauges.
    value: buckets are cumulative, as in a scrape; of an Info or an Enum, 1 for what the process set last. timestamp:
    when the process set a mostrecent gauge, or this label set or state; seconds since the epoch.
    """

    family: Family
    line: Line
    process: Living | None
    value: float
    timestamp: float | None = None


def of_sums(plan: Plan, found: query.Parts, asked: Container[FamilyId], living: Mapping[int, Living]) -> Iterator[Part]:
    """Yield the parts of counters, summaries and histograms; but not of children that a process has never counted."""
    totals: dict[int | None, list[float]] = defaultdict(lambda: [0.0] * plan.length)
    for number, value, instance in zip(found.series.split(), found.values, found.of, strict=True):
        totals[instance][plan.position_of_row(int(number))] += value
    for instance, values in totals.items():
        process = None if instance is None else living.get(instance)
        for family, source in plan.sums.items():
            if family in asked:
                for line, value in _counted(source, source.values(values)):
                    yield Part(plan.families[family], line, process, value)


def _counted(source: Lines, values: list[float]) -> Iterator[tuple[Line, float]]:
    """Yield the lines and values of the children that have counted anything."""
    texts = zip(source.texts, zip(source.lines, values, strict=True), strict=True)
    for _, child in groupby(texts, key=itemgetter(0)):
        lines = [line for _, line in child]
        if any(value != 0.0 for _, value in lines):
            yield from lines


def of_gauges(plan: Plan, found: query.Parts, living: Iterable[Living]) -> Iterator[Part]:
    """Yield the parts of gauges, Infos and Enums; those of dead processes only if the mode counts them."""
    known = {(one.pid, one.started): one for one in living}
    rows = zip(found.series.split(), found.values, found.of, found.stamps, strict=True)
    said: dict[tuple[FamilyId, str, Living | None], list[tuple[float, Gauge]]] = defaultdict(list)
    for number, value, (pid, started), stamp in rows:
        gauge = plan.gauge_of_row(int(number))
        process = None if pid is None else known.get((pid, started), Living(0, pid, started, False))
        if gauge.family[1] in STATE_TYPES:
            said[gauge.family, gauge.child, process].append((value, gauge))
        else:
            at = None if math.isnan(stamp) else stamp
            yield Part(plan.families[gauge.family], gauge.line(None), process, value, at)
    for (family, _, process), variants in said.items():
        last = max(when for when, _ in variants)  # the value is the time when the process set the label set or state
        for when, gauge in variants:
            yield Part(plan.families[family], gauge.line(None), process, float(when == last), when)
