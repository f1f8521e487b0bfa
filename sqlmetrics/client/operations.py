"""The methods of metrics that apps call for each request, without the calls and checks that a known child can spare.

Each handles the usual case and leaves anything else to `prometheus_client`'s own method: parents, exemplars, values
of another class, amounts that are neither `int` nor `float`, children that have lost their cells. Between the
comparison of the two bytes and the last store there is no call: see `values`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Summary, values
from prometheus_client.metrics import MetricWrapperBase, _validate_exemplar  # type: ignore[attr-defined]
from prometheus_client.samples import Exemplar

from ..cells import exact
from ..cells.shape import describe, family_of
from ..process import native
from ..values import SharedValue
from . import labelsets, limit, making, private, resets
from .buckets import SharedBuckets

_peer_counter_inc = Counter.inc
_peer_gauge_inc = Gauge.inc
_peer_gauge_dec = Gauge.dec
_peer_gauge_set = Gauge.set
_peer_summary_observe = Summary.observe
_peer_histogram_observe = Histogram.observe
_peer_histogram_init = Histogram._metric_init


def labels(self: Any, *labelvalues: object, **labelkwargs: object) -> Any:
    """Replaces `MetricWrapperBase.labels`: finds a known child without taking the metric's lock.

    It does so for exact `str`s only: an enum member that is a `str`, too, may be equal to one label value but print
    another one.
    """
    try:
        for value in labelvalues:
            if value.__class__ is not str:
                break
        else:
            if not labelkwargs:
                return self._metrics[labelvalues]
    except (KeyError, AttributeError):
        pass
    child = making.at_once(self, labelvalues, labelkwargs)
    return _labels(self, labelvalues, labelkwargs) if child is None else child


def _labels(self: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, object]) -> Any:
    if getattr(self, "_lock", None).__class__ is not native.RLock:
        make_reentrant(self)
    resets.notice_missing(self)
    try:
        child = _find_or_make(self, labelvalues, labelkwargs)
    except KeyError:  # a signal handler has removed the child right after it was made
        child = _find_or_make(self, labelvalues, labelkwargs)
    labelsets.note(self, child)
    if hasattr(self, "_superseded"):
        resets.keep_apart(child)
    return child


def _find_or_make(metric: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, object]) -> Any:
    rule = limit.rule_for(metric)
    if rule is None:
        return making.labels(metric, labelvalues, labelkwargs)
    with metric._lock:
        labelvalues, labelkwargs = limit.admitted(rule, metric, labelvalues, labelkwargs)
        return making.labels(metric, labelvalues, labelkwargs)


def make_reentrant(metric: Any) -> None:
    """Make the lock of a metric with label names reentrant.

    A signal handler or a garbage collection may make a child of a metric whose lock its thread has. If two threads
    have two different locks for a moment, and both make the same child, the two objects count in one cell.
    """
    if hasattr(metric, "_metrics"):
        labelsets.parents.add(metric)
        if metric._lock.__class__ is not native.RLock:
            metric._lock = native.RLock()


def counter_inc(self: Any, amount: Any = 1, exemplar: Any = None) -> None:
    """Replaces `Counter.inc`."""
    try:
        value = self._value
        if (
            value._gate == value._word
            and exemplar is None
            and (amount.__class__ is int or amount.__class__ is float)
            and amount >= 0
        ):
            value._cells[value._cell] += amount
            return
    except AttributeError:
        pass
    _peer_counter_inc(self, amount, exemplar)


def gauge_inc(self: Any, amount: Any = 1) -> None:
    """Replaces `Gauge.inc`."""
    try:
        value = self._value
        if (
            value._gate == value._word
            and (amount.__class__ is int or amount.__class__ is float)
            and not self._is_most_recent
        ):
            value._cells[value._cell] += amount
            return
    except AttributeError:
        pass
    _peer_gauge_inc(self, amount)


def gauge_dec(self: Any, amount: Any = 1) -> None:
    """Replaces `Gauge.dec`; does not call `gauge_inc`, because that call would take a third of the time."""
    try:
        value = self._value
        if (
            value._gate == value._word
            and (amount.__class__ is int or amount.__class__ is float)
            and not self._is_most_recent
        ):
            value._cells[value._cell] -= amount
            return
    except AttributeError:
        pass
    _peer_gauge_dec(self, amount)


def gauge_set(self: Any, value: Any) -> None:
    """Replaces `Gauge.set`."""
    try:
        target = self._value
        if value.__class__ is float or value.__class__ is int:
            now = 0.0
            if target._stamped:
                now = time.time()
                if type(now) is not float or now - now != 0.0:  # Inf and NaN are no times either
                    now = exact.seconds(now)
            if target._gate == target._word:
                target._cells[target._cell] = value
                if now:
                    # The time last: a reader reads it first, and so never has a new time with an old value.
                    target._cells[target._cell - 1] = now
                return
    except (AttributeError, ValueError):  # an integer beyond all floats
        pass
    _peer_gauge_set(self, value)


def summary_observe(self: Any, amount: Any) -> None:
    """Replaces `Summary.observe`."""
    try:
        count, total = self._count, self._sum
        if (
            count._gate == count._word
            and total._gate == total._word
            and (amount.__class__ is int or amount.__class__ is float)
        ):
            count._cells[count._cell] += 1
            total._cells[total._cell] += amount
            return
    except AttributeError:
        pass
    _peer_summary_observe(self, amount)


def histogram_observe(self: Any, amount: Any, exemplar: Any = None) -> None:
    """Replaces `Histogram.observe`; finds the bucket by bisection."""
    if exemplar:
        _observe_with_exemplar(self, amount, exemplar)
        return
    try:
        child = self._buckets
        if amount.__class__ is float or amount.__class__ is int:
            place = bisect_left(child.bounds, amount) + 1
            if child._gate == child._word and amount == amount:
                cells, cell = child._cells, child._cell
                cells[cell] += amount
                cells[cell + place] += 1
                return
    except AttributeError:
        pass
    _peer_histogram_observe(self, amount)


def _observe_with_exemplar(self: Any, amount: Any, exemplar: Any) -> None:
    if (amount.__class__ is float or amount.__class__ is int) and amount == amount:
        histogram_observe(self, amount)
        _validate_exemplar(exemplar)  # type: ignore[no-untyped-call]
        bucket = self._buckets[bisect_left(self._upper_bounds, amount)]
        bucket.set_exemplar(Exemplar(exemplar, amount, time.time()))
    else:
        _peer_histogram_observe(self, amount, exemplar)


def _telling_unit(peer_init: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a `_metric_init` that notes the family's unit for other processes, and treats private metrics apart."""

    def metric_init(self: Any) -> None:
        if private.is_private(self):
            private.give_values(self)
            return
        if self._is_parent():
            return  # the app resets all metrics; a parent's own value is never shown, in one process either
        if hasattr(self, "_value") or hasattr(self, "_sum"):
            resets.begin_anew(self)
        if self._unit:
            describe(family_of(self), unit=self._unit)
        peer_init(self)

    return metric_init


def histogram_init(self: Any) -> None:
    """Replaces `Histogram._metric_init`; makes one object instead of one for each bucket."""
    kind = values.ValueClass
    buckets = None
    if isinstance(kind, type) and issubclass(kind, SharedValue) and kind._plain:
        buckets = SharedBuckets.of(self, kind._binder)
    if buckets is None:
        _peer_histogram_init(self)
    else:
        self._created = time.time()
        self._sum = buckets.total()
        self._buckets = buckets


REPLACED: tuple[tuple[type, str, Any], ...] = (
    (MetricWrapperBase, "__init__", private.metric_init),
    (MetricWrapperBase, "labels", labels),
    (Counter, "inc", counter_inc),
    (Gauge, "inc", gauge_inc),
    (Gauge, "dec", gauge_dec),
    (Gauge, "set", gauge_set),
    (Summary, "observe", summary_observe),
    (Histogram, "observe", histogram_observe),
    (Counter, "_metric_init", _telling_unit(Counter._metric_init)),
    (Gauge, "_metric_init", _telling_unit(Gauge._metric_init)),
    (Summary, "_metric_init", _telling_unit(Summary._metric_init)),
    (Histogram, "_metric_init", _telling_unit(histogram_init)),
)
"""(class, name, what it becomes)"""
making.metric_inits.update({kind: new for kind, name, new in REPLACED if name == "_metric_init"})
