"""Which children of a metric a removal is about, in this process's memory and in rows."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import apsw

from . import given
from .shape import Key, canonical_labels, joined, keys_of

_OF_FAMILY = """
SELECT series.id, series.labels
  FROM series JOIN family ON family.id = series.family
 WHERE family.name = ? AND family.type = ?
"""
_OF_CHILD = _OF_FAMILY + " AND series.labels = ?"

forgotten: deque[Key] = deque()
"""What was removed from this process, and may be held by metric objects that nobody uses any more; see `children`."""
told_of_removals: list[Callable[[list[Key]], None]] = []
"""Who else wants to know of it, at once; see `sampling`."""


class Selection(NamedTuple):
    """The children of a family whose labels have these values; whole: these are all of their labels."""

    family: str
    type: str
    labels: dict[str, str]
    whole: bool

    @classmethod
    def of(cls, metric: Any, labels: dict[str, str], *, whole: bool) -> Selection:
        """Children of a metric object of `prometheus_client`."""
        texts = {given.text(name): joined(given.text(value)) for name, value in labels.items()}
        return cls(given.name(metric._name), metric._type, texts, whole)

    def among(self, known: Iterable[Key]) -> list[Key]:
        """The keys that are meant, of those that are known."""
        if self.whole:
            return keys_of(self.family, self.type, self.labels)
        family = (self.family, self.type)
        return [
            (shape, values)
            for shape, values in known
            if (shape.family, shape.type) == family and self._has(dict(zip(shape.labelnames, values, strict=True)))
        ]

    def series(self, connection: apsw.Connection) -> list[int]:
        """The ids of the series that are meant."""
        if self.whole:
            labels = canonical_labels(self.labels.keys(), self.labels.values())
            rows: Any = connection.execute(_OF_CHILD, (self.family, self.type, labels)).fetchall()
            return [number for number, _ in rows]
        rows = connection.execute(_OF_FAMILY, (self.family, self.type)).fetchall()
        return [number for number, labels in rows if not self.labels or self._has(json.loads(labels))]

    def _has(self, labels: dict[str, str]) -> bool:
        return all(labels.get(name) == value for name, value in self.labels.items())
