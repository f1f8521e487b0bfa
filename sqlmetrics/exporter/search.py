"""Finds series by words or a pattern, with their values now, in total and by process."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from ..outside.look import Look
from ..outside.patterns import Pattern, PatternError, is_meant, pattern
from ..outside.values import Distribution, FamilyValues, Series, of_families, of_parts
from ..outside.words import label_text, number
from ..scrape.parts import Part
from .questions import RequestError

_FOUND = 50
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def found(look: Look, text: str) -> dict[str, Any]:
    """Return series by words or a pattern, and how many there are. Raises RequestError, and as `Look` does."""
    takes = _taker(text)
    families = of_families(look.families().families)
    meant = [(of, one) for of in families for one in of.series if takes(of.name, of.type, one.name, one.labels)]
    return {"series": [_series(of, one) for of, one in islice(meant, _FOUND)], "total": len(meant)}


def _series(of: FamilyValues, one: Series) -> dict[str, Any]:
    return {"family": of.name, "type": of.type, "name": one.name, "labels": one.labels, **_value(one)}


def of_processes(look: Look, family: str, name: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Return each process's part of a series. Raises as `Look` does."""
    names = [name, *(f"{name}_{end}" for end in ("bucket", "count", "sum"))]
    parts = [one for one in look.parts(names) if one.family.name == family and _is_of(one, labels)]
    shown = [one for of in of_parts(parts) for one in of.series]
    return [{"process": one.process, "alive": one.alive, **_value(one)} for one in shown]


def _value(one: Series) -> dict[str, Any]:
    """Return the value with all its digits, so as text: JavaScript's numbers have fewer."""
    of = one.distribution
    return {"value": number(one.value) if of is None else None, "distribution": None if of is None else summary(of)}


def summary(of: Distribution) -> dict[str, Any]:
    """Return a summary of a distribution."""
    quantiles = {name: of.quantile(q) for name, q in QUANTILES.items()} if of.buckets else {}
    return {"count": number(of.count), "sum": number(of.total), "mean": of.mean, **quantiles}


def _is_of(part: Part, labels: dict[str, str]) -> bool:
    """Whether a part belongs to the series with these labels, which may include the pid that a scrape shows."""
    is_bucket = part.line.name.endswith("_bucket")
    own = {key: value for key, value in part.line.labels.items() if not (is_bucket and key == "le")}
    if part.process is None:
        return own == labels
    return labels in (own, {**own, "process_pid" if "pid" in own else "pid": part.process.pid})


def _taker(text: str) -> Callable[[str, str, str, dict[str, str]], bool]:
    """Return a function that selects series by a pattern, as `show` has them, or by words in their text."""
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
