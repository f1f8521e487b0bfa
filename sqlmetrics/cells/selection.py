"""The children of a metric that a removal removes, in this process's memory and in rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from . import exact
from .shape import Key, joined, keys_of

removal_listeners: list[Callable[[list[Key]], None]] = []
"""Functions to call when this process or another one removes children; called inside `Part.binding`."""


class Selection(NamedTuple):
    """The children of a family whose labels have these values; whole: these are all of their labels."""

    family: str
    type: str
    labels: dict[str, str]
    whole: bool

    @classmethod
    def of(cls, metric: Any, labels: dict[str, str], *, whole: bool) -> Selection:
        """Select children of one of `prometheus_client`'s metrics."""
        texts = {exact.text(name): joined(exact.text(value)) for name, value in labels.items()}
        return cls(exact.name(metric._name), metric._type, texts, whole)

    def among(self, known: Iterable[Key]) -> list[Key]:
        """Return the selected keys, of those that are known."""
        if self.whole:
            return keys_of(self.family, self.type, self.labels)
        family = (self.family, self.type)
        return [
            (shape, values)
            for shape, values in known
            if (shape.family, shape.type) == family and self.has(dict(zip(shape.labelnames, values, strict=True)))
        ]

    def has(self, labels: dict[str, str]) -> bool:
        """Whether a child with these labels is selected."""
        return all(labels.get(name) == value for name, value in self.labels.items())
