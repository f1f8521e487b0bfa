"""Which children a metric has had, so that those are missed that were taken out by hand; and which go by a removal.

``metric._metrics`` stays a plain dict, for `labels()` finds a child in it for each request. Beside it each metric has a
second one with all children that it has made; of more children there than in the first, some are gone.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

from ..cells import given
from ..cells.part import Part
from ..cells.selection import told_of_removals
from ..cells.shape import Key
from ..process import waits
from ..process.weak import members

parents: weakref.WeakSet[Any] = weakref.WeakSet()
"""Metrics with label names, whose locks are to be renewed after a fork."""
_removed: deque[Key] = deque()
told_of_removals.append(_removed.extend)
_AT_ONCE = 500
"""How many are dropped before new children may have the metric's lock again: a millisecond or two."""


def missing(metric: Any) -> list[Any]:
    """The children that are gone since the last time. Call it with the metric's lock held."""
    known, now = getattr(metric, "_known_children", None), metric._metrics
    if not isinstance(now, dict) or (known is not None and len(known) == len(now)):
        return []
    metric._known_children = dict(now)
    former = (known or {}).copy()  # a signal handler may make a child in the middle
    return [child for labelvalues, child in former.items() if now.get(labelvalues) is not child]


def is_missing_some(metric: Any) -> bool:
    """Whether there may be any, without a lock."""
    known = getattr(metric, "_known_children", None)
    return known is not None and isinstance(metric._metrics, dict) and len(known) != len(metric._metrics)


def note(metric: Any, child: Any) -> None:
    """Know a child, which may be new.

    Not if it has been removed since it was made: it would be taken for one that was taken out by hand.
    """
    known, labelvalues = getattr(metric, "_known_children", None), child._labelvalues
    if known is not None and known.get(labelvalues) is not child:
        with metric._lock:
            if metric._metrics.get(labelvalues) is child:
                metric._known_children[labelvalues] = child


def take_out(metric: Any, labelvalues: Any) -> None:
    """Take a child out that has been removed from the store, or is being removed. Call it with the lock held."""
    metric._metrics.pop(labelvalues, None)
    getattr(metric, "_known_children", {}).pop(labelvalues, None)


def drop_removed(part: Part) -> None:
    """Drop the child objects of removed label sets that nobody has used since.

    Call it with no lock of this package held.
    """
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
