"""Counts the series of each family, and the values of its labels, which are the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric

from .look import Look

SELECT_SAMPLES = "SELECT metric, count(*) FROM samples GROUP BY metric"
_ROW_BYTES = 40
"""The bytes of a sample's cell and its row, roughly."""


@dataclass(frozen=True)
class Label:
    """A label of a family. values: how many different ones it has. most: the value with the most series."""

    name: str
    values: int
    most: str
    most_series: int


@dataclass(frozen=True)
class FamilySize:
    """The size of a family. series: lines of a scrape, each bucket by itself; label_sets: children; bytes: roughly.

    samples: rows at the last flush; each process has its own. labels: the one with the most values first.
    """

    name: str
    type: str
    series: int
    label_sets: int
    samples: int
    bytes: int
    labels: list[Label]


def cardinality(look: Look) -> tuple[list[FamilySize], str]:
    """Return the size of each family, the largest first, and the remark of `Found`. Raises as `Look` does."""
    rows = {str(name): int(count) for name, count in look.rows(SELECT_SAMPLES)}
    read = look.families()
    found = [_size(one, rows) for one in read.families]
    return sorted(found, key=lambda one: (-one.series, one.name)), read.remark


def _size(metric: Metric, rows: dict[str, int]) -> FamilySize:
    sets = {_own(metric, one.name, one.labels) for one in metric.samples}
    samples = sum(rows.get(name, 0) for name in {one.name for one in metric.samples})
    texts = sum(len(one.name) + sum(len(k) + len(v) + 6 for k, v in one.labels.items()) for one in metric.samples)
    return FamilySize(
        name=metric.name,
        type=metric.type,
        series=len(metric.samples),
        label_sets=len(sets),
        samples=samples,
        bytes=texts + _ROW_BYTES * samples,
        labels=_labels(metric),
    )


def _own(metric: Metric, name: str, labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the labels that the app has set, so without a bucket's bound."""
    is_bucket = metric.type == "histogram" and name.endswith("_bucket")
    return tuple(sorted(one for one in labels.items() if not (is_bucket and one[0] == "le")))


def _labels(metric: Metric) -> list[Label]:
    counts: dict[str, Counter[str]] = {}
    for one in metric.samples:
        for label, value in _own(metric, one.name, one.labels):
            counts.setdefault(label, Counter())[value] += 1
    found = [Label(name, len(values), *values.most_common(1)[0]) for name, values in counts.items()]
    return sorted(found, key=lambda one: (-one.values, one.name))
