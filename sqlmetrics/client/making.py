"""Makes new children of a metric from a template, which has what all of them have in common.

`prometheus_client` constructs a child as it constructs a metric: it checks the names again, and makes a value object
for each sample. For a metric with very many children, that is most of what a child costs. So `prometheus_client` makes
the first two children of a metric, and the template makes the others, equal to what `prometheus_client` would make.

Unusual cases are left to `prometheus_client`: metric classes, value classes and constructors of the app; private
metrics; label values of another class than `str`; a child that another metric object of that name has; and a process
that has to check its part of the store first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Summary, values
from prometheus_client.metrics import MetricWrapperBase

from ..cells import exact
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
"""By class: the attributes that hold a child's values, in the order of its cells."""
_LATER: dict[Any, tuple[str, ...]] = {
    Counter: ("_value", "_created"),
    Gauge: ("_value",),
    Summary: ("_count", "_sum", "_created"),
    Histogram: ("_created", "_sum", "_buckets"),
}
"""By class: the attributes that `_metric_init` sets, in its order. With one order, CPython keeps the objects small."""
_INITS = {kind: kind.__dict__.get("__init__", metric_init) for kind in _KINDS}
_base: Any = MetricWrapperBase
metric_inits: dict[Any, Any] = {}
"""By class: the `_metric_init` that `operations` has put there. If a class has another one, that is the app's."""
_PLAIN = 2
"""How many children `prometheus_client` makes; for so few, a template is not worth its cost."""
_probes: dict[type, type] = {}


def at_once(metric: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, Any]) -> Any:
    """Return a child of a metric that has a template; make it if it is new. None for an unusual case."""
    template: Template | None = getattr(metric, "_template", None)
    if template is None or template.is_limited or not template.fits(metric) or hasattr(metric, "_superseded"):
        return None
    texts = _texts(metric, labelvalues, labelkwargs)
    if texts is None:
        return None
    with metric._lock:
        child = metric._metrics.get(texts)
        if child is None and len(metric._metrics) == len(metric._known_children):  # else some were taken out by hand
            child = template.make(metric, texts)
    return child


def labels(metric: Any, labelvalues: tuple[object, ...], labelkwargs: dict[str, Any]) -> Any:
    """Do what `MetricWrapperBase.labels` does, with the same errors. The metric's lock must be reentrant."""
    texts, child = _texts(metric, labelvalues, labelkwargs), None
    if texts is not None:
        with metric._lock:
            child = metric._metrics.get(texts)
            if child is None and (template := _template_of(metric)):
                child = template.make(metric, texts)
    return _peer_labels(metric, *labelvalues, **labelkwargs) if child is None else child


def _texts(metric: Any, labelvalues: tuple[Any, ...], labelkwargs: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the label values in the order of the names; None for unusual arguments."""
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


def _template_of(metric: Any) -> Template | None:
    """Return the template of a metric; None if it has none. Call it with the metric's lock held."""
    template: Template | None = getattr(metric, "_template", None)
    if template is not None and template.fits(metric):
        return template
    if len(metric._metrics) >= _PLAIN:
        template = metric._template = Template.of(metric)
        return template
    return None


@dataclass(slots=True, eq=False)
class Template:
    """What the children of a metric have in common.

    attributes: names and values, in order; where each child has its own value, it replaces the one here. order: the
    places of the label names in sorted order; empty if they are sorted. is_limited: whether `limit` applies.
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
    def of(cls, metric: Any) -> Template | None:
        """Return the template of a metric that has children already; None for an unusual metric."""
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
        """Whether the metric, its class and the value class are unchanged, and the metric's lock is reentrant."""
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
        """Make the child with these label values; None if `prometheus_client` must. The metric's lock must be held."""
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
                created = None  # a test has replaced the clock
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
    """Whether only `prometheus_client` and this package decide how a child of this class is made."""
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
    """Return the shape of a child; None unless all its values are in cells that it shares with no other object."""
    found = [getattr(child, name) for name in _KINDS[kind]]
    if any(type(one) is not values.ValueClass and not isinstance(one, SharedBuckets) for one in found):
        return None
    keys: set[Key | None] = {one._key for one in found}
    key = keys.pop()
    if keys or key is None or (kind is not Histogram and len(key[0].samples) != len(found)):
        return None
    return key[0] if sorted(map(exact.text, child._labelnames)) == list(key[0].labelnames) else None


def _give_places(probe: Any) -> None:
    for name in _LATER[type(probe).__base__]:
        setattr(probe, name, None)


def _attributes(metric: Any, kind: Any) -> list[tuple[str, Any]]:
    """Return the attributes that `prometheus_client` gives a child, in order; a child without values tells."""
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
