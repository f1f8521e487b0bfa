"""Makes `remove`, `remove_by_labels`, `clear` and `Counter.reset` of metrics act on all processes.

The checks and their messages are `prometheus_client`'s own. Its warnings that these methods do not reach other
processes are left out.
"""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from ..cells.selection import Selection
from ..store import installed as stores
from ..values import SharedValue
from .labelsets import take_out
from .operations import make_reentrant
from .private import is_private

_peer_reset = Counter.reset


def remove(self: Any, *labelvalues: Any) -> None:
    """Replaces `MetricWrapperBase.remove`."""
    _check_is_labelled(self)
    if len(labelvalues) != len(self._labelnames):
        raise ValueError(f"Incorrect label count (expected {len(self._labelnames)}, got {labelvalues})")
    values = tuple([str(value) for value in labelvalues])  # not map(), which takes a StopIteration for its end
    make_reentrant(self)
    with self._lock:
        take_out(self, values)
    _remove(self, dict(zip(self._labelnames, values, strict=True)), whole=True)


def remove_by_labels(self: Any, labels: dict[str, str]) -> None:
    """Replaces `MetricWrapperBase.remove_by_labels`."""
    _check_is_labelled(self)
    if not isinstance(labels, dict):
        raise TypeError("labels must be a dict of {label_name: label_value}")
    if not labels:
        return
    invalid = [name for name in labels if name not in self._labelnames]
    if invalid:
        raise ValueError(f"Unknown label names: {invalid}; expected {self._labelnames}")
    texts = {name: str(value) for name, value in labels.items()}
    wanted = {self._labelnames.index(name): text for name, text in texts.items()}
    make_reentrant(self)
    with self._lock:
        for values in list(self._metrics):
            if all(values[place] == value for place, value in wanted.items()):
                take_out(self, values)
    _remove(self, texts, whole=len(texts) == len(self._labelnames))


def clear(self: Any) -> None:
    """Replaces `MetricWrapperBase.clear`."""
    if not self._labelnames:
        return
    make_reentrant(self)
    with self._lock:
        self._metrics, self._known_children = {}, {}
    _remove(self, {}, whole=False)


def reset(self: Any) -> None:
    """Replaces `Counter.reset`: sets the series to zero, for all processes."""
    value = self._value
    if not isinstance(value, SharedValue):
        _peer_reset(self)
        return
    labels = dict(zip(self._labelnames, self._labelvalues, strict=True))
    # The value gets a new cell before the rows of the old ones are deleted, so scrapes always show the series.
    stores.default_store().rounds.remover.remove(Selection.of(self, labels, whole=True), begin_anew=value.get)
    self._created = time.time()


def _check_is_labelled(metric: Any) -> None:
    if not metric._labelnames:
        raise ValueError(f"No label names were set when constructing {metric}")


def _remove(metric: Any, labels: dict[str, str], *, whole: bool) -> None:
    if not is_private(metric):
        store, selection = stores.default_store(), Selection.of(metric, labels, whole=whole)
        store.rounds.admission.forget(selection)
        store.rounds.remover.remove(selection)


REPLACED: tuple[tuple[type, str, Any], ...] = (
    (MetricWrapperBase, "remove", remove),
    (MetricWrapperBase, "remove_by_labels", remove_by_labels),
    (MetricWrapperBase, "clear", clear),
    (Counter, "reset", reset),
)
"""(class, name, what it becomes)"""
