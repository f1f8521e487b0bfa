"""The demo's judgement: what the scrapes and the shell say, against what the demo has done."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .crew import MEANINGS, Crew, Shown
from .shell import Rows

LABELS = {"/missing": "other"}
"""The `path` label of requests to pages that the app does not know."""


@dataclass(frozen=True)
class Check:
    """One number: what it is, what it has to be, and what was found."""

    what: str
    expected: Any
    found: Any

    @property
    def is_right(self) -> bool:
        """Whether they are equal."""
        return bool(self.expected == self.found)


class Scrape:
    """The text of a scrape, looked up by name and labels."""

    def __init__(self, text: str):
        self.values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, /, **labels: str) -> float | None:
        """One sample, None if it is not shown."""
        return self.values.get((name, tuple(sorted(labels.items()))))

    def total(self, name: str) -> float:
        """The sum over all labels of one sample name."""
        return sum(value for (found, _), value in self.values.items() if found == name)

    def gauge(self, mode: str) -> Shown:
        """The gauge of a mode: its value, or those of each pid."""
        name = f"demo_{mode}"
        if mode.endswith("all"):
            return {dict(labels)["pid"]: value for (found, labels), value in self.values.items() if found == name}
        return self.value(name)


def requests(answered: Counter[tuple[str, int]], scrape: Scrape) -> list[Check]:
    """Every answered request is counted, by path and status and in total, and no other."""
    checks = []
    for (path, status), number in sorted(answered.items()):
        counted = scrape.value("demo_requests_total", path=LABELS.get(path, path), status=str(status))
        checks.append(Check(f"requests counted for {path} {status}", number, counted))
    total = sum(answered.values())
    checks.append(Check("requests counted in all", total, scrape.total("demo_requests_total")))
    checks.append(Check("observations in the histogram", total, scrape.total("demo_latency_seconds_count")))
    return checks


def gauges(crew: Crew, scrape: Scrape, when: str) -> list[Check]:
    """The ten gauges show what their modes say."""
    return [Check(f"gauge of mode {mode} {when}", crew.expected(mode), scrape.gauge(mode)) for mode in MEANINGS]


def rows(crew: Crew, answered: Counter[tuple[str, int]], processes: Rows, samples: Rows, metrics: Rows) -> list[Check]:
    """The three views show the same as the scrapes."""
    states = dict.fromkeys(crew.living, "live") | dict.fromkeys(crew.ended, "dead")
    return [
        Check("rows of the view processes", states, {row["pid"]: row["state"] for row in processes}),
        Check("requests in the view samples", answered.total(), sum(row["requests"] for row in samples)),
        Check("requests in the view metrics", answered.total(), sum(row["value"] for row in metrics)),
    ]


def have_caught_up(metrics: Rows, scrape: Scrape) -> bool:
    """Whether the rows show all that the scrape did; before, some that are late may hide some that are too many."""
    shown = {tuple(sorted(json.loads(row["labels"]).items())): row["value"] for row in metrics}
    return shown == {labels: value for (name, labels), value in scrape.values.items() if name == "demo_requests_total"}


def files(folder: str) -> list[Check]:
    """At most four files, and none that `prometheus_client` would take for one of its own."""
    names = sorted(os.listdir(folder))
    return [
        Check("files beyond four in the store's folder", 0, max(len(names) - 4, 0)),
        Check("files that end in .db", [], [name for name in names if name.endswith(".db")]),
    ]
