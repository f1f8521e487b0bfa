"""Finds the value objects of a metric, and whether they are values of the store.

An app may derive classes from `prometheus_client`'s, replace value objects or the value class, or reload its modules.
If a metric's values are not the store's, the store does not have them, and registries call the metric's own
`collect()`.

Nothing here reads a metric's ``__dict__``: CPython would make one then, and would find attributes more slowly in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary, metrics, values

from ..values import SharedValue
from .binder import Bound
from .buckets import Member, SharedBuckets
from .collector import function_of
from .private import is_private
from .sampling import Answering

_HOLDS = {
    "Counter": ("_value",),
    "Gauge": ("_value",),
    "Summary": ("_count", "_sum"),
    "Histogram": ("_sum", "_buckets"),
    "Info": (),
    "Enum": (),
}
"""Where each of `prometheus_client`'s metric classes keeps its value objects; Info and Enum have none."""
_REPLACED = (Counter, Gauge, Summary, Histogram, Info, Enum)
"""The classes that count in the store. A module that was reloaded since has other classes of these names."""
_SHARED = (SharedValue, Member, SharedBuckets, Answering)
_OWN_WAYS = ("collect", "_samples", "_child_samples", "_multi_samples")
"""Methods that decide what a metric yields. If a metric has its own version of one, registries ask the metric."""


def kind_of(cls: type) -> type | None:
    """Return the class of `prometheus_client` that a metric's class is, or is derived from; None if there is none.

    It compares names, because a reloaded module has a second class of each name.
    """
    return next((base for base in cls.__mro__ if base.__name__ in _HOLDS and base.__module__ == metrics.__name__), None)


def is_state(metric: Any) -> bool:
    """Whether a metric is an Info or an Enum, which have no value objects."""
    kind = kind_of(type(metric))
    return kind is not None and not _HOLDS[kind.__name__]


def values_of(metric: Any) -> dict[str, Any]:
    """Return the value objects of a metric, or of its child, by attribute; {} unless it has all that its class has."""
    kind = kind_of(type(metric))
    names = _HOLDS[kind.__name__] if kind else ()
    found = {name: getattr(metric, name, None) for name in names}
    is_whole = None not in found.values() and isinstance(found.get("_buckets", []), (list, SharedBuckets))
    return found if is_whole else {}


def flat(found: dict[str, Any]) -> list[Any]:
    """Return these value objects in a list, each bucket by itself."""
    return [value for item in found.values() for value in (item if isinstance(item, (list, SharedBuckets)) else [item])]


def is_shared_value(value: object) -> bool:
    """Whether a value object is one of the store's."""
    return isinstance(value, _SHARED)


def is_peers_value(value: object) -> bool:
    """Whether a value object is of a class of `prometheus_client`'s own, and not of the app's."""
    return type(value).__module__ == values.__name__


def is_shared(metric: object) -> bool:
    """Whether a collector is a metric whose samples are the store's."""
    kind: Any = kind_of(type(metric))
    if is_private(metric):
        return False
    if kind not in _REPLACED or not hasattr(metric, "_labelnames") or getattr(metric, "_type", None) != kind._type:
        return False
    ways = {way for way in _OWN_WAYS if function_of(getattr(metric, way)) is not getattr(kind, way)}
    if ways and not (ways == {"_child_samples"} and isinstance(getattr(metric, "_value", None), Answering)):
        return False
    return _holds_shared(metric, kind)


def _holds_shared(metric: Any, kind: Any) -> bool:
    if not metric._is_parent():
        return hasattr(metric, "_said") if is_state(metric) else _all_shared(flat(values_of(metric)))
    is_usual = is_switched() and type(metric)._metric_init is kind._metric_init
    return is_usual or all(_holds_shared(child, kind) for child in list(metric._metrics.values()))


def _all_shared(found: Iterable[Any]) -> bool:
    """Whether there is at least one value, and all are values of the store."""
    values = list(found)
    return bool(values) and all(map(is_shared_value, values))


def is_switched() -> bool:
    """Whether `prometheus_client` makes values of the store now."""
    kind = values.ValueClass
    return isinstance(kind, type) and issubclass(kind, SharedValue)


def bounds_of(metric: Any) -> list[Bound]:
    """Return the objects by which a metric, or its child, is bound to cells of the store."""
    found: list[Any] = [*values_of(metric).values(), getattr(metric, "_said", None)]
    found = [value.value if isinstance(value, Answering) else value for value in found]
    found = [value._child if isinstance(value, Member) else value for value in found]
    return list({id(value): value for value in found if isinstance(value, Bound)}.values())
