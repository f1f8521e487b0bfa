"""`sqlmetrics cardinality`: which family and which label have how many series, and what to paste against it."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric

from . import options, screen
from .look import Look

SELECT_SAMPLES = "SELECT metric, count(*) FROM samples GROUP BY metric"
_MANY = 100
"""Values of a label from which on it is worth a thought."""
_ROW_BYTES = 40
"""About, of a sample's cell and its row."""


@dataclass(frozen=True)
class Label:
    """A label of a family. values: how many different ones; most: the value with the most series, and how many."""

    name: str
    values: int
    most: str
    most_series: int


@dataclass(frozen=True)
class FamilySize:
    """How large a family is. series: as a scrape shows them, buckets one by one; label_sets: children; bytes: about.

    samples: rows, which each process has of its own, at the last flush. labels: the one with most values first.
    """

    name: str
    type: str
    series: int
    label_sets: int
    samples: int
    bytes: int
    labels: list[Label]


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Counts series by family and by label, and names the label with the most values. Changes nothing."
    )
    parser.epilog = "Exit status: 0; 2 if the store cannot be read."
    options.add_path(parser)
    options.add_json(parser)
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many families and labels (default 10)")


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    look = Look(options.place_of(arguments))
    found, remark = cardinality(look)
    if remark:
        screen.complain(remark)
    if arguments.json:
        screen.say_json({"store": look.place, "series": sum(one.series for one in found), "families": found})
    else:
        screen.say(f"store  {look.place}")
        _print(found, max(arguments.top, 1))
    return 0


def cardinality(look: Look) -> tuple[list[FamilySize], str]:
    """The size of each family, the largest first, and what `Found` remarks. Raises as `Look` does."""
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
    """The labels without a bucket's bound, which no app gives."""
    is_bucket = metric.type == "histogram" and name.endswith("_bucket")
    return tuple(sorted(one for one in labels.items() if not (is_bucket and one[0] == "le")))


def _labels(metric: Metric) -> list[Label]:
    counts: dict[str, Counter[str]] = {}
    for one in metric.samples:
        for label, value in _own(metric, one.name, one.labels):
            counts.setdefault(label, Counter())[value] += 1
    found = [Label(name, len(values), *values.most_common(1)[0]) for name, values in counts.items()]
    return sorted(found, key=lambda one: (-one.values, one.name))


def _print(found: list[FamilySize], top: int) -> None:
    series, sets = sum(one.series for one in found), sum(one.label_sets for one in found)
    about = screen.size(sum(one.bytes for one in found))
    screen.say(f"{series:,} series of {sets:,} label sets in {len(found)} families, about {about}")
    screen.say()
    rows = [
        [one.name, one.type, str(one.series), str(one.label_sets), _greediest(one), screen.size(one.bytes)]
        for one in found[:top]
    ]
    screen.table(["<FAMILY", "<TYPE", "SERIES", "LABEL SETS", "<GREEDIEST LABEL", "ABOUT"], rows)
    labels = sorted(((one, label) for one in found for label in one.labels), key=lambda pair: -pair[1].values)[:top]
    if labels:
        screen.say()
        screen.table(
            ["<LABEL", "<FAMILY", "VALUES", "<VALUE WITH MOST SERIES", "SERIES"],
            [[of.name, one.name, str(of.values), screen.printable(of.most), str(of.most_series)] for one, of in labels],
        )
    _advise([(one, label) for one, label in labels if label.values > _MANY])


def _greediest(one: FamilySize) -> str:
    return f"{one.labels[0].name} ({one.labels[0].values} values)" if one.labels else "-"


def _advise(many: Iterable[tuple[FamilySize, Label]]) -> None:
    """What to paste."""
    for family in {one.name: one for one, _ in many}.values():
        label = family.labels[0]
        screen.say()
        screen.say(f"{family.name} has {label.values} values of {label.name}. Give the label fewer, or set a limit:")
        screen.say(f"  SQLMETRICS_MAX_SERIES={_MANY * 10}")
        screen.say("What is there goes by one of these (counters begin at 0 again):")
        screen.say(f"  sqlmetrics remove {shlex.quote(family.name)} {shlex.quote(f'{label.name}={label.most}')}")
        screen.say(f"  sqlmetrics remove {shlex.quote(family.name)}")
