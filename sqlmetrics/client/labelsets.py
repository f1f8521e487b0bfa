"""Which children a metric has had, so that those are missed that were taken out by hand.

``metric._metrics`` stays a plain dict, for `labels()` finds a child in it for each request. Beside it each metric has a
second one with all children that it has made; of more children there than in the first, some are gone.
"""

from __future__ import annotations

import weakref
from typing import Any

parents: weakref.WeakSet[Any] = weakref.WeakSet()
"""Metrics with label names, whose locks are to be renewed after a fork."""


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
