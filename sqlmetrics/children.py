"""Child objects that metrics hold for label sets which another process has removed."""

from __future__ import annotations

from typing import Any

from .operations import parents
from .part import Part
from .selection import forgotten
from .shape import Key, joined

_PATIENCE = 0.05
"""Seconds for a metric's lock; what cannot be dropped now is dropped after a later flush."""


def drop(part: Part) -> None:
    """Drop those that nobody has used since, with no lock of this package held."""
    keys = [forgotten.popleft() for _ in range(len(forgotten))]
    removed = {_child(*key): key for key in keys if not part.has_known(key)}
    for parent in _parents_of({key[0].family for key in removed.values()}):
        if parent._lock.acquire(timeout=_PATIENCE):
            try:
                _drop(parent, removed, part)
            finally:
                parent._lock.release()
        else:
            forgotten.extend(removed.values())


def _parents_of(families: set[str]) -> list[Any]:
    return [parent for parent in list(parents) if parent._name in families] if families else []


def _child(shape: Any, labelvalues: tuple[str, ...]) -> tuple[object, ...]:
    return shape.family, shape.type, shape.labelnames, labelvalues


def _drop(parent: Any, removed: dict[tuple[object, ...], Key], part: Part) -> None:
    names = tuple(sorted(parent._labelnames))
    for labelvalues in list(parent._metrics):
        labels = dict(zip(parent._labelnames, labelvalues, strict=True))
        key = removed.get((parent._name, parent._type, names, tuple(joined(labels[name]) for name in names)))
        if key is not None and not part.has_known(key):
            parent._metrics.pop(labelvalues, None)
