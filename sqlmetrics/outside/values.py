"""Series and their values as commands show them: one entry for each child, and quantiles for histograms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from prometheus_client.metrics_core import Metric

from ..scrape.parts import Part
from ..scrape.plan import Family, FamilyId

ENDED = "(ended)"
"""Stands for all ended processes in a list of values by process."""


@dataclass(frozen=True)
class Distribution:
    """The observations of one child of a histogram or a summary. count: how many; total: their sum.

    buckets: (upper bound, observations up to it), by rising bounds; none for a summary.
    """

    count: float
    total: float
    buckets: list[tuple[float, float]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The mean of the observations; NaN if there are none."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, q: float) -> float:
        """Return the value that a share `q` of the observations does not exceed, by PromQL's rule; NaN if unknown.

        It assumes that the observations of a bucket are spread evenly, and that those of the last bucket are at its
        lower bound. The lowest bucket begins at 0 if its bound is above 0.
        """
        if len(self.buckets) < 2 or not math.isinf(self.buckets[-1][0]) or not self.buckets[-1][1] > 0:
            return math.nan
        rank = q * self.buckets[-1][1]
        at = next(n for n, (_, below) in enumerate(self.buckets) if below >= rank)
        bound, below = self.buckets[at]
        if at == len(self.buckets) - 1:
            return self.buckets[-2][0]
        if at == 0 and bound <= 0:
            return bound
        lower, before = self.buckets[at - 1] if at else (0.0, 0.0)
        return lower + (bound - lower) * (rank - before) / (below - before)

    def densities(self) -> list[float]:
        """Return how many observations each bucket has by itself."""
        counts = [0.0, *(below for _, below in self.buckets)]
        return [max(one - before, 0.0) for before, one in pairwise(counts)]


@dataclass(frozen=True)
class Series:
    """One series of a family, of all processes together, or one process's part of it.

    name: the sample's; for histograms and summaries, the family's. process: a pid, or `ENDED`; None: all together.
    alive: whether that process is alive. timestamp: when it set a mostrecent gauge, in seconds since the epoch.
    """

    name: str
    labels: dict[str, str]
    value: float | None = None
    distribution: Distribution | None = None
    process: str | None = None
    alive: bool | None = None
    timestamp: float | None = None


@dataclass(frozen=True)
class FamilyValues:
    """A family and its series."""

    name: str
    type: str
    help: str
    unit: str
    series: list[Series]

    @property
    def total(self) -> float | None:
        """The sum of all series of a counter, or of all counts of histograms and summaries; None for other types."""
        if self.type == "counter":
            return math.fsum(one.value or 0.0 for one in self.series)
        found = [one.distribution.count for one in self.series if one.distribution]
        return math.fsum(found) if found else None


class Sampled(NamedTuple):
    """A sample. process: its process; alive: whether that is alive; timestamp: when it was set."""

    name: str
    labels: dict[str, str]
    value: float
    process: str | None = None
    alive: bool | None = None
    timestamp: float | None = None


def of_families(families: Iterable[Metric]) -> list[FamilyValues]:
    """Return the series of families from a scrape."""
    found = []
    for one in families:
        samples = [Sampled(each.name, each.labels, each.value) for each in one.samples]
        found.append(_family(one.name, one.type, one.documentation, one.unit, samples))
    return found


def of_parts(parts: Iterable[Part]) -> list[FamilyValues]:
    """Return the series of each process."""
    families: dict[FamilyId, tuple[Family, list[Sampled]]] = {}
    for part in parts:
        _, samples = families.setdefault(part.family[:2], (part.family, []))
        whose = (ENDED, False) if part.process is None else (part.process.pid, part.process.alive)
        samples.append(Sampled(*part.line, part.value, *whose, part.timestamp))
    return [_family(of.name, of.type, of.help, of.unit, samples) for of, samples in families.values()]


def _family(name: str, type_: str, help_: str, unit: str, samples: list[Sampled]) -> FamilyValues:
    if type_ not in ("histogram", "summary"):
        series = [Series(*one[:3], None, *one[3:]) for one in samples]
    else:
        series = list(_distributed(name, samples))
    return FamilyValues(name, type_, help_, unit, series)


def _distributed(name: str, samples: list[Sampled]) -> Iterable[Series]:
    """Yield one series for each child of a histogram or a summary."""
    children: dict[object, _Child] = {}
    for one in samples:
        is_bucket = one.name == f"{name}_bucket"
        own = {key: text for key, text in one.labels.items() if key != "le" or not is_bucket}
        key = (one.process, one.alive, tuple(sorted(own.items())))
        child = children.setdefault(key, _Child(own, one.process, one.alive))
        if is_bucket:
            child.buckets.append((float(one.labels["le"]), one.value))
        else:
            child.others[one.name.removeprefix(name)] = one.value
    for child in children.values():
        yield Series(name, child.labels, None, child.distribution(), child.process, child.alive)


@dataclass
class _Child:
    labels: dict[str, str]
    process: str | None
    alive: bool | None
    buckets: list[tuple[float, float]] = field(default_factory=list)
    others: dict[str, float] = field(default_factory=dict)

    def distribution(self) -> Distribution:
        buckets = sorted(self.buckets)
        count = self.others.get("_count", buckets[-1][1] if buckets else 0.0)
        return Distribution(count, self.others.get("_sum", math.nan), buckets)
