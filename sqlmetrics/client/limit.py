"""The limit of label sets: when a metric has as many as it may have, new ones count in one series, `(other)`.

The child of that series is like any other. Nothing keeps the label sets beyond the limit, so neither the process nor
the store grows with them.
"""

from __future__ import annotations

from typing import Any

from ..store import installed as stores
from ..store.admission import OTHER, Admission
from .private import is_private


def rule_for(metric: Any) -> Admission | None:
    """Return what limits the label sets of a metric; None if nothing does.

    Nothing limits a private metric: it is not in the store, and lives no longer than the request it was made for.
    """
    store = stores.installed()
    if store is None or store.settings.max_series is None or not hasattr(metric, "_metrics") or is_private(metric):
        return None
    return store.rounds.admission


def admitted(
    rule: Admission, metric: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return the arguments of `labels()`, or those of the series `(other)`. Raises what their `str()` raises.

    Call it with the metric's lock held, and make the child before you release the lock. Arguments that
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
