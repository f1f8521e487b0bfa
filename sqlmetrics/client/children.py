"""Child objects that metrics hold for label sets which another process has removed."""

from __future__ import annotations

from collections import deque
from typing import Any

from ..cells import given
from ..cells.part import Part
from ..cells.selection import told_of_removals
from ..cells.shape import Key
from ..process import waits
from ..process.weak import members
from .labelsets import parents, take_out

_removed: deque[Key] = deque()
told_of_removals.append(_removed.extend)
_AT_ONCE = 500
"""How many are dropped before new children may have the metric's lock again: a millisecond or two."""


def drop(part: Part) -> None:
    """Drop those that nobody has used since. Call it with no lock of this package held."""
    keys = [_removed.popleft() for _ in range(len(_removed))]
    removed: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        removed.setdefault((key[0].family, key[0].type), []).append(key)
    for parent in members(parents) if removed else ():
        of_parent = removed.get((parent._name, parent._type), [])
        for start in range(0, len(of_parent), _AT_ONCE):
            if not _drop(parent, of_parent[start : start + _AT_ONCE], part):
                _removed.extend(of_parent[start:])
                break


def _drop(parent: Any, keys: list[Key], part: Part) -> bool:
    if not parent._lock.acquire(timeout=waits.METRIC):
        return False
    try:
        for shape, values in keys:
            labels = dict(zip(shape.labelnames, values, strict=True))
            if not part.has_known((shape, values)):
                take_out(parent, tuple(labels.get(given.text(name)) for name in parent._labelnames))
    finally:
        parent._lock.release()
    return True
