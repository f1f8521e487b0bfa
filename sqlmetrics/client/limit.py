"""Where a metric has as many label sets as it may have, new ones count in one series, `(other)`.

Its child is a child like any other. A label set that gets it is kept nowhere, so neither the process nor the store
grows with those beyond the limit.
"""

from __future__ import annotations

from typing import Any

from ..store import installed as stores
from ..store.admission import OTHER, Admission
from .private import is_private


def rule_for(metric: Any) -> Admission | None:
    """What limits a metric; None if nothing does.

    A private metric has nothing to do with the store, and is there no longer than what it was made for.
    """
    store = stores.installed()
    if store is None or store.settings.max_series is None or not hasattr(metric, "_metrics") or is_private(metric):
        return None
    return store.rounds.admission


def admitted(
    rule: Admission, metric: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments of `labels()`, or those of the series for all beyond the limit. Raises what their `str()` raises.

    Call it with the lock of the metric held, and have the child made before it is released. Arguments that
    `prometheus_client` refuses stay as they are.
    """
    names = metric._labelnames
    if labelkwargs and not labelvalues and sorted(labelkwargs) == sorted(names):
        labelvalues, labelkwargs = tuple(labelkwargs[name] for name in names), {}
    if labelkwargs or len(labelvalues) != len(names):
        return labelvalues, labelkwargs
    values = tuple([str(value) for value in labelvalues])  # not map(), which takes a StopIteration for its end
    if values in metric._metrics or rule.admits(metric, values):
        return values, {}
    return (OTHER,) * len(values), {}
