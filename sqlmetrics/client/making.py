"""New children of a metric, made from a mould: what all of them have in common is found out once.

`prometheus_client` constructs a child as it constructs a metric: it checks the names again, makes a value object for
each sample, and each of these finds out what it is. For a metric that gets very many children, that is most of what a
child costs. Here the first two children of a metric are made so, and the others as copies of what they would be.

Whatever is not as usual is left to `prometheus_client`: metric classes, value classes and constructors of the app's
own, private metrics, label values that are no exact `str`s, a child that another metric object of that name has, and a
process that has to look at its part of the store first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Summary, values
from prometheus_client.metrics import MetricWrapperBase

from ..cells import given
from ..cells.shape import Key, Shape, joined
from ..process import native
from ..values import SharedValue
from . import limit
from .binder import Binder, Bound
from .buckets import SharedBuckets
from .private import PrivateNames, metric_init

_peer_labels = MetricWrapperBase.labels
_KINDS: dict[Any, tuple[str, ...]] = {
    Counter: ("_value",),
    Gauge: ("_value",),
    Summary: ("_count", "_sum"),
    Histogram: ("_buckets",),
}
"""What a child has its values in, in the order of its cells."""
_LATER: dict[Any, tuple[str, ...]] = {
    Counter: ("_value", "_created"),
    Gauge: ("_value",),
    Summary: ("_count", "_sum", "_created"),
    Histogram: ("_created", "_sum", "_buckets"),
}
"""What `_metric_init` gives a child, in its order: CPython keeps objects of one class small that have one order."""
_INITS = {kind: kind.__dict__.get("__init__", metric_init) for kind in _KINDS}
_base: Any = MetricWrapperBase
metric_inits: dict[Any, Any] = {}
"""What `operations` has put in the place of `_metric_init`, by classes; anything else there is the app's."""
_PLAIN = 2
"""So many children of a metric are made in the usual way: for a few more, a mould is not worth it."""
_probes: dict[type, type] = {}


def at_once(metric: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, Any]) -> Any:
    """A child of a metric that has a mould, found or made; None if there is more to be seen to."""
    mould: Mould | None = getattr(metric, "_mould", None)
    if mould is None or mould.is_limited or not mould.fits(metric) or hasattr(metric, "_superseded"):
        return None
    texts = _texts(metric, labelvalues, labelkwargs)
    if texts is None:
        return None
    with metric._lock:
        child = metric._metrics.get(texts)
        if child is None and len(metric._metrics) == len(metric._known_children):  # else some were taken out by hand
            child = mould.make(metric, texts)
    return child


def labels(metric: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, Any]) -> Any:
    """`MetricWrapperBase.labels`, with the same errors. Call it with the metric's lock reentrant."""
    texts, child = _texts(metric, labelvalues, labelkwargs), None
    if texts is not None:
        with metric._lock:
            child = metric._metrics.get(texts)
            if child is None and (mould := _mould_of(metric)):
                child = mould.make(metric, texts)
    return _peer_labels(metric, *labelvalues, **labelkwargs) if child is None else child


def _texts(metric: Any, labelvalues: tuple[Any, ...], labelkwargs: dict[str, Any]) -> tuple[str, ...] | None:
    """The label values, None if they are not as usual."""
    names = metric._labelnames
    if labelkwargs:
        if labelvalues or len(labelkwargs) != len(names) or not names:
            return None
        labelvalues = tuple([labelkwargs.get(name) for name in names])
    if len(labelvalues) != len(names) or metric._labelvalues:
        return None
    for one in labelvalues:
        if one.__class__ is not str:
            return None
    return labelvalues


def _mould_of(metric: Any) -> Mould | None:
    """The mould of a metric, with its lock held; None if its next child is not made from one."""
    mould: Mould | None = getattr(metric, "_mould", None)
    if mould is not None and mould.fits(metric):
        return mould
    if len(metric._metrics) >= _PLAIN:
        mould = metric._mould = Mould.of(metric)
        return mould
    return None


@dataclass(slots=True, eq=False)
class Mould:
    """What the children of a metric have in common.

    attributes: what they have, in order; None where each has its own. order: places of the label names when they are
    sorted; empty if they are. is_limited: whether new ones have to be admitted, see `limit`.
    """

    kind: Any
    value_class: Any
    labelnames: tuple[str, ...]
    documentation: str
    attributes: list[tuple[str, Any]]
    order: list[int]
    shape: Shape
    binder: Binder
    bounds: list[float]
    is_limited: bool

    @classmethod
    def of(cls, metric: Any) -> Mould | None:
        """The mould of a metric that has children already; None if they cannot be made so."""
        kind, value_class = type(metric), values.ValueClass
        if (
            kind not in _KINDS
            or not hasattr(metric, "_known_children")
            or isinstance(metric._labelnames, PrivateNames)
            or not _is_usual(kind, value_class)
        ):
            return None
        first = next(iter(metric._metrics.copy().values()))
        shape = _shape_of(first, kind)
        if shape is None:
            return None
        attributes = _attributes(metric, kind)
        own = ("_labelvalues", *_LATER[kind])
        if any(getattr(first, name) != value for name, value in attributes if name not in own):
            return None
        names = metric._labelnames
        order = [names.index(name) for name in shape.labelnames]
        order = [] if order == sorted(order) else order
        return cls(
            kind=kind,
            value_class=value_class,
            labelnames=names,
            documentation=metric._documentation,
            attributes=attributes,
            order=order,
            shape=shape,
            binder=value_class._binder,
            bounds=dict(attributes).get("_upper_bounds", []),
            is_limited=limit.rule_for(metric) is not None,
        )

    def fits(self, metric: Any) -> bool:
        """Whether the metric, its class and the value class are what they were, and its lock is reentrant."""
        return (
            values.ValueClass is self.value_class
            and metric._lock.__class__ is native.RLock
            and self.kind._metric_init is metric_inits[self.kind]
            and metric._labelnames is self.labelnames
            and metric._documentation is self.documentation
            and self.kind.__init__ is _INITS[self.kind]
            and _base.__init__ is metric_init
        )

    def make(self, metric: Any, texts: tuple[str, ...]) -> Any:
        """Make the child with these label values, with the metric's lock held; None if it is for the usual way."""
        shape = self.shape
        labelvalues = tuple([texts[place] for place in self.order]) if self.order else texts
        for text in labelvalues:
            if not text.isascii():
                labelvalues = tuple(map(joined, labelvalues))
                break
        created = None
        child = self.kind.__new__(self.kind)
        for name, value in self.attributes:
            setattr(child, name, value)
        child._labelvalues = texts
        if shape.type != "gauge":
            child._created = created = time.time()
            if type(created) is not float or created - created != 0.0:
                created = None  # of a clock that a test has replaced
        bounds = self._values(child)
        if not self.binder.add_new((shape, labelvalues), bounds, created):
            return None
        metric._metrics[texts] = child
        metric._known_children[texts] = child
        return child

    def _values(self, child: Any) -> list[Bound]:
        if self.kind is Histogram:
            buckets = child._buckets = SharedBuckets(self.binder, self.bounds)
            child._sum = buckets.total()
            return [buckets]
        found: list[Bound] = []
        stamped = self.shape.stamped
        for place, name in enumerate(_KINDS[self.kind]):
            value = self.value_class.__new__(self.value_class)
            value._batch, value._stamped, value._offset = None, stamped, 1 if stamped else place
            setattr(child, name, value)
            found.append(value)
        return found


def _is_usual(kind: Any, value_class: Any) -> bool:
    """Whether nothing but this package has a say in how a child of this kind is made."""
    return (
        isinstance(value_class, type)
        and issubclass(value_class, SharedValue)
        and value_class._plain
        and value_class.__init__ is SharedValue.__init__
        and value_class.__new__ is object.__new__
        and kind._metric_init is metric_inits[kind]
        and kind.__init__ is _INITS[kind]
        and _base.__init__ is metric_init
        and kind.__new__ is object.__new__
    )


def _shape_of(child: Any, kind: Any) -> Shape | None:
    """The shape of a child whose values are all in cells of its own."""
    found = [getattr(child, name) for name in _KINDS[kind]]
    if any(type(one) is not values.ValueClass and not isinstance(one, SharedBuckets) for one in found):
        return None
    keys: set[Key | None] = {one._key for one in found}
    key = keys.pop()
    if keys or key is None or (kind is not Histogram and len(key[0].samples) != len(found)):
        return None
    return key[0] if sorted(map(given.text, child._labelnames)) == list(key[0].labelnames) else None


def _give_places(probe: Any) -> None:
    for name in _LATER[type(probe).__base__]:
        setattr(probe, name, None)


def _attributes(metric: Any, kind: Any) -> list[tuple[str, Any]]:
    """What `prometheus_client` gives a child, in its order: that of one that is made so, but gets no values."""
    probe = _probes.get(kind)
    if probe is None:
        probe = _probes[kind] = type(kind.__name__, (kind,), {"_metric_init": _give_places})
    given_anyway = ("namespace", "subsystem", "unit")
    others = {name: value for name, value in (metric._kwargs or {}).items() if name not in given_anyway}
    made = probe(
        getattr(metric, "_original_name", metric._name),
        documentation=metric._documentation,
        labelnames=metric._labelnames,
        _labelvalues=("",) * len(metric._labelnames),
        **{name: getattr(metric, f"_{name}", "") for name in given_anyway},
        **others,
    )
    return list(vars(made).items())
