"""Finds children that somebody has taken out of a metric by hand, and drops the objects of removed children.

``metric._metrics`` stays a plain dict, because `labels()` finds children in it at each request. Beside it, each metric
has a second dict with all children that it has made. If the second one is longer, some children are gone.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

from ..cells import exact
from ..cells.part import Part
from ..cells.selection import removal_listeners
from ..cells.shape import Key
from ..process import native, waits
from ..process.weak import members, taken_from

parents: weakref.WeakSet[Any] = weakref.WeakSet()
"""Metrics with label names; a fork renews their locks."""
_removed: deque[Key] = deque()
removal_listeners.append(_removed.extend)
_AT_ONCE = 500
"""How many children are dropped before others may have the metric's lock; it takes 1 or 2 ms."""


def missing(metric: Any) -> list[Any]:
    """Return the children that are gone since the last call. Call it with the metric's lock held."""
    known, now = getattr(metric, "_known_children", None), metric._metrics
    if not isinstance(now, dict) or (known is not None and len(known) == len(now)):
        return []
    metric._known_children = dict(now)
    former = (known or {}).copy()  # a signal handler may make a child in the middle
    return [child for labelvalues, child in former.items() if now.get(labelvalues) is not child]


def is_missing_some(metric: Any) -> bool:
    """Whether children may be gone; needs no lock."""
    known = getattr(metric, "_known_children", None)
    return known is not None and isinstance(metric._metrics, dict) and len(known) != len(metric._metrics)


def note(metric: Any, child: Any) -> None:
    """Add a child to the second dict if it is not there yet.

    But not a child that has been removed meanwhile: it would seem to have been taken out by hand.
    """
    known, labelvalues = getattr(metric, "_known_children", None), child._labelvalues
    if known is not None and known.get(labelvalues) is not child:
        with metric._lock:
            if metric._metrics.get(labelvalues) is child:
                metric._known_children[labelvalues] = child


def take_out(metric: Any, labelvalues: Any) -> None:
    """Take a child out of both dicts, as a part of its removal from the store. Call it with the metric's lock held."""
    metric._metrics.pop(labelvalues, None)
    getattr(metric, "_known_children", {}).pop(labelvalues, None)


def drop_removed(part: Part) -> None:
    """Drop the child objects of removed label sets that nobody has used since.

    Call it with no lock of this package held.
    """
    keys = iter(lambda: taken_from(_removed), None)
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
    with native.held(parent._lock, waits.METRIC) as is_held:
        for shape, values in keys if is_held else ():
            labels = dict(zip(shape.labelnames, values, strict=True))
            if not part.has_known((shape, values)):
                take_out(parent, tuple(labels.get(exact.text(name)) for name in parent._labelnames))
    return is_held
