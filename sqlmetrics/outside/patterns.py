"""Patterns that select series by the name of a family or a sample, and by labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from prometheus_client.metrics_core import Metric

from ..errors import SQLMetricsError
from ..scrape.parts import Part

_PATTERN = re.compile(r"(?P<name>[^{}]*)(?:\{(?P<labels>.*)\})?", re.DOTALL)
_LABEL = re.compile(r"""\s*(?P<name>[^=,{}"]+?)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^,]*))\s*(?:,|$)""")


_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class PatternError(SQLMetricsError, ValueError):
    """A pattern that cannot be read."""


@dataclass(frozen=True)
class Pattern:
    """name: of a family or a sample; labels: their values. `*` stands for anything in both, unless `exact` is true."""

    name: str
    labels: dict[str, str]
    exact: bool = False

    def takes(self, names: Iterable[str], labels: dict[str, str]) -> bool:
        """Whether the pattern selects a series with any of these names and with these labels."""
        return any(self._fits(name, self.name) for name in names) and all(
            name in labels and self._fits(labels[name], wanted) for name, wanted in self.labels.items()
        )

    def _fits(self, text: str, wanted: str) -> bool:
        if self.exact:
            return text == wanted
        return fnmatchcase(text, wanted.replace("[", "[[]").replace("?", "[?]"))  # label values often have these two


def pattern(text: str) -> Pattern:
    """Parse ``requests_*{path=/api/*,method="GET"}``; no name means any name. Raises PatternError."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise PatternError(f"{text!r} is no pattern; write NAME, or NAME{{LABEL=VALUE,...}}; * stands for anything")
    return Pattern(found["name"].strip() or "*", _labels(text, found["labels"] or ""))


def _labels(text: str, inner: str) -> dict[str, str]:
    labels, at = dict[str, str](), 0
    while at < len(inner):
        found = _LABEL.match(inner, at)
        if found is None:
            raise PatternError(f"{text!r}: in the braces, expected LABEL=VALUE,LABEL=VALUE")
        quoted = found["quoted"]
        labels[found["name"]] = found["bare"].strip() if quoted is None else _ESCAPE.sub(_unescaped, quoted)
        at = found.end()
    return labels


def _unescaped(found: re.Match[str]) -> str:
    """Return the character that an escape stands for, as in the exposition."""
    return "\n" if found[1] == "n" else found[1]


def is_meant(patterns: list[Pattern], family: str, type_: str, sample: str, labels: dict[str, str]) -> bool:
    """Whether any of the patterns selects a sample; without patterns, all samples are selected.

    All samples of one child of a histogram or a summary are selected together.
    """
    together = type_ in ("histogram", "summary")
    names = [family, *(f"{family}_{one}" for one in ("bucket", "count", "sum"))] if together else [family, sample]
    return not patterns or any(one.takes(names, labels) for one in patterns)


def among_metrics(patterns: list[Pattern], metrics: Iterable[Metric]) -> list[Metric]:
    """Return the families with their selected samples; leave out families without any."""
    found = []
    for metric in metrics:
        samples = [one for one in metric.samples if is_meant(patterns, metric.name, metric.type, one.name, one.labels)]
        if samples or not patterns:
            shown = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            shown.samples = samples
            found.append(shown)
    return found


def among_parts(patterns: list[Pattern], parts: Iterable[Part]) -> list[Part]:
    """Return the selected parts."""
    return [one for one in parts if is_meant(patterns, *one.family[:2], *one.line)]
