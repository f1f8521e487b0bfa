"""Series and their values as commands show them: what is one child's comes together, and histograms have quantiles."""

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
"""Stands for the ended processes where the values of each process are shown."""


@dataclass(frozen=True)
class Distribution:
    """What a histogram or a summary says of one child. total: the sum of what was observed; count: how often.

    buckets: (upper bound, observations up to it), the bounds in rising order; none for a summary.
    """

    count: float
    total: float
    buckets: list[tuple[float, float]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The mean of what was observed, NaN if nothing was."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, q: float) -> float:
        """The value that a share `q` of the observations does not exceed, by PromQL's rule; NaN if it is not known.

        Within a bucket the observations are taken to be spread evenly. In the last one they are taken for its lower
        bound, and the lowest bucket begins at 0 if its bound is above that.
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
        """How many observations each bucket has by itself."""
        counts = [0.0, *(below for _, below in self.buckets)]
        return [max(one - before, 0.0) for before, one in pairwise(counts)]


@dataclass(frozen=True)
class Series:
    """One series of a family, all processes together, or one process's part of it.

    name: of the sample; of a histogram or a summary, the family's. process: a pid, or `ENDED`; None: all together.
    alive: whether that process lives. timestamp: when it set a mostrecent gauge, seconds since the epoch.
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
        """Of a counter the sum of its series; of histograms and summaries the count; of others there is none."""
        if self.type == "counter":
            return math.fsum(one.value or 0.0 for one in self.series)
        found = [one.distribution.count for one in self.series if one.distribution]
        return math.fsum(found) if found else None


class Sampled(NamedTuple):
    """A sample. process: whose it is; alive: whether that lives; timestamp: when it was set."""

    name: str
    labels: dict[str, str]
    value: float
    process: str | None = None
    alive: bool | None = None
    timestamp: float | None = None


def of_families(families: Iterable[Metric]) -> list[FamilyValues]:
    """The series of families as a scrape has them."""
    found = []
    for one in families:
        samples = [Sampled(each.name, each.labels, each.value) for each in one.samples]
        found.append(_family(one.name, one.type, one.documentation, one.unit, samples))
    return found


def of_parts(parts: Iterable[Part]) -> list[FamilyValues]:
    """The series of each process."""
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
    """The children of a histogram or a summary, each with its samples together."""
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
