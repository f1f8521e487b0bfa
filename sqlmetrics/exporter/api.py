"""What the page asks for, as data: each question is a function, which `QUESTIONS` names."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from operator import itemgetter
from typing import Any

from .. import __version__
from ..commands.cardinality import cardinality
from ..commands.check import findings
from ..commands.patterns import Pattern, PatternError, is_meant, pattern
from ..commands.place import Place
from ..commands.screen import label_text, number
from ..commands.sights import Rates, Sight, distribution, rates, who_is
from ..commands.values import Distribution, of_families, of_parts
from ..errors import SQLMetricsError
from ..scrape.plan import FamilyId, Line
from .history import History
from .watched import Watched

Parameters = dict[str, str]
_WINDOW = 10.0
"""Seconds over which a rate is taken: a moment ago, and not of one look only."""
_BUSIEST = 8
_ENDED = 10
_PROCESSES = 60
_FOUND = 50
_GREEDIEST = 12
_COUNTING = ("counter", "histogram", "summary")
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class RequestError(SQLMetricsError, ValueError):
    """A question that makes no sense."""

    http_status = "400 Bad Request"


class Api:
    """Answers the page's questions about one store."""

    def __init__(self, store: Watched):
        self._store = store
        self.history = History(store)

    def ask(self, name: str, given: Parameters) -> Any:
        """The answer to a question, as plain data. Raises RequestError, and what `Look` does."""
        question = QUESTIONS.get(name)
        if question is None:
            raise RequestError(f"there is no {name!r}; there are {', '.join(QUESTIONS)}")
        return question(self, given)

    def now(self, _: Parameters) -> Any:
        """The processes, the families, and the busiest series with their rates over the last minutes."""
        kept = self.history.kept()
        last, before = kept[-1], _some_time_ago(kept)
        found = rates(before, last)
        is_first = before is last
        return {
            "store": self._store.place(),
            "version": __version__,
            "at": last.at,
            "since": kept[0].at,
            **_processes(found, is_first=is_first),
            "ended": _ended(kept),
            "families": [
                {"name": one.name, "type": one.type, "series": one.series, "rate": None if is_first else one.per_second}
                for one in found.families
            ],
            "series": last.numbers(),
            "busiest": [] if is_first else _busiest(kept, before, last),
        }

    def histogram(self, given: Parameters) -> Any:
        """What a histogram has observed between one look and the next, by bucket, and the quantiles of that."""
        family: FamilyId = (_wanted(given, "family"), "histogram")
        kept = [one for one in self.history.kept() if family in one.columns]
        if not kept:
            raise RequestError(f"there is no histogram {family[0]!r}")
        bounds = list(kept[-1].columns[family].of.buckets)
        steps = [(after.at, after.at - before.at, _observed(family, before, after)) for before, after in pairwise(kept)]
        column = kept[-1].columns[family]
        return {
            "bounds": bounds,
            "times": [at for at, _, _ in steps],
            "rates": [[n / seconds for n in _by_bound(of, bounds)] for _, seconds, of in steps],
            "quantiles": {name: [of.quantile(q) for _, _, of in steps] for name, q in _QUANTILES.items()},
            "ever": _told(distribution(column.of, column.values)),
        }

    def search(self, given: Parameters) -> Any:
        """Series by words or a pattern, with their values now."""
        takes = _taker(given.get("q", ""))
        found: list[dict[str, Any]] = []
        total = 0
        for family in of_families(self._store.look().families().families):
            for series in family.series:
                if takes(family.name, family.type, series.name, series.labels):
                    total += 1
                    if len(found) < _FOUND:
                        of = series.distribution
                        value = number(series.value) if of is None else None
                        found.append(
                            {"family": family.name, "type": family.type, "name": series.name, "labels": series.labels}
                            | {"value": value, "distribution": None if of is None else _told(of)}
                        )
        return {"series": found, "total": total}

    def series(self, given: Parameters) -> Any:
        """One series: what each process has of it, exactly, and its last minutes."""
        family, name = _wanted(given, "family"), _wanted(given, "name")
        labels = _labels(given.get("labels", "{}"))
        names = [name, *(f"{name}_{end}" for end in ("bucket", "count", "sum"))]
        parts = [
            one for one in self._store.look().parts(names) if one.family.name == family and _is_of(one.line, labels)
        ]
        return {
            "processes": [
                {
                    "process": one.process,
                    "alive": one.alive,
                    "value": None if one.distribution else number(one.value),
                    "distribution": one.distribution and _told(one.distribution),
                }
                for found in of_parts(parts)
                for one in found.series
            ],
            **_lately(self.history.kept(), family, (name, f"{name}_count"), labels),
        }

    def cardinality(self, _: Parameters) -> Any:
        """How many series the families have, and how many values their labels; the largest families."""
        found = cardinality(self._store.look())[0]
        return {
            "series": sum(one.series for one in found),
            "families": found[:_GREEDIEST],
            "others": max(len(found) - _GREEDIEST, 0),
        }

    def health(self, _: Parameters) -> Any:
        """What `sqlmetrics check` finds."""
        place: Place = self._store.place()
        return {"at": time.time(), "findings": findings(place)}


QUESTIONS: dict[str, Callable[[Api, Parameters], Any]] = {
    "now": Api.now,
    "histogram": Api.histogram,
    "search": Api.search,
    "series": Api.series,
    "cardinality": Api.cardinality,
    "health": Api.health,
}


def _some_time_ago(kept: list[Sight]) -> Sight:
    """The one to compare the last with."""
    return next((one for one in reversed(kept) if one.at <= kept[-1].at - _WINDOW), kept[0])


def _processes(found: Rates, *, is_first: bool) -> dict[str, Any]:
    """Those that are not settled, the busiest first, a page of them; and what all that live do together."""
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


def _ended(kept: list[Sight]) -> list[dict[str, Any]]:
    """Who lived at some moment of these, and does not now, the last first; `at`: when that was seen."""
    seen = {who_is(one): sight.at for sight in kept for one in sight.processes if one.is_alive}
    living = {who_is(one) for one in kept[-1].processes if one.is_alive}
    gone = sorted(((at, who) for who, at in seen.items() if who not in living), reverse=True)
    return [{"pid": pid, "at": at} for at, (pid, _) in gone[:_ENDED]]


def _busiest(kept: list[Sight], before: Sight, last: Sight) -> list[dict[str, Any]]:
    """The series with the highest rates, and their points."""
    found: list[tuple[float, FamilyId, int]] = []
    for family, column in last.columns.items():
        if column.of.has_events:
            rises = column.since(before.columns.get(family))
            found += [(rises[n], family, n) for n in column.of.counting if rises[n] > 0]
    found.sort(key=itemgetter(0), reverse=True)
    return [_busy(kept, family, last.columns[family].of.lines[n]) for _, family, n in found[:_BUSIEST]]


def _busy(kept: list[Sight], family: FamilyId, line: Line) -> dict[str, Any]:
    return {"name": line.name, "labels": line.labels, "points": _per_second(_values(kept, family, line))}


def _per_second(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """How fast a value rose from one moment to the next."""
    steps = pairwise(found)
    return [(at, max(value - before, 0.0) / (at - since)) for (since, before), (at, value) in steps if at > since]


def _values(kept: list[Sight], family: FamilyId, line: Line) -> list[tuple[float, float]]:
    """(when, value) of a series, of the moments in which it was there."""
    found, of, at = [], None, -1
    for sight in kept:
        column = sight.columns.get(family)
        if column is None:
            continue
        if column.of is not of:
            of, at = column.of, column.of.lines.index(line) if line in column.of.lines else -1
        if at >= 0:
            found.append((sight.at, column.values[at]))
    return found


def _lately(kept: list[Sight], name: str, samples: tuple[str, ...], labels: dict[str, str]) -> dict[str, Any]:
    """The last minutes of a series: the values of a gauge, else how many events there were in a second."""
    for family, column in kept[-1].columns.items():
        line = next((one for one in column.of.lines if one.name in samples and one.labels == labels), None)
        if family[0] == name and line is not None:
            found, are_rates = _values(kept, family, line), family[1] in _COUNTING
            return {"points": _per_second(found) if are_rates else found, "are_rates": are_rates}
    return {"points": [], "are_rates": False}


def _observed(family: FamilyId, before: Sight, after: Sight) -> Distribution:
    column = after.columns[family]
    return distribution(column.of, column.since(before.columns[family]))


def _by_bound(of: Distribution, bounds: Sequence[float]) -> list[float]:
    found = dict(zip((bound for bound, _ in of.buckets), of.densities(), strict=True))
    return [found.get(bound, 0.0) for bound in bounds]


def _told(of: Distribution) -> dict[str, Any]:
    quantiles = {name: of.quantile(q) for name, q in _QUANTILES.items()} if of.buckets else {}
    return {"count": number(of.count), "sum": number(of.total), "mean": of.mean, **quantiles}


def _taker(text: str) -> Callable[[str, str, str, dict[str, str]], bool]:
    """Whether a series is meant: by a pattern as `show` has them, or by words that its text has."""
    if any(mark in text for mark in "*{"):
        try:
            patterns: list[Pattern] = [pattern(text)]
        except PatternError as error:
            raise RequestError(str(error)) from error
        return lambda family, type_, name, labels: is_meant(patterns, family, type_, name, labels)
    words = text.lower().split()

    def takes(family: str, _: str, name: str, labels: dict[str, str]) -> bool:
        whole = f"{family} {name}{label_text(labels)}".lower()
        return all(word in whole for word in words)

    return takes


def _is_of(line: Line, labels: dict[str, str]) -> bool:
    return {
        key: value for key, value in line.labels.items() if key != "le" or not line.name.endswith("_bucket")
    } == labels


def _labels(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RequestError('labels: wanted is a JSON object, such as {"path":"/"}')
    return {str(name): str(value) for name, value in found.items()}


def _wanted(given: Parameters, name: str) -> str:
    if not given.get(name):
        raise RequestError(f"{name}= is wanted")
    return given[name]
