"""Moves the values of existing metrics to the store, for `install`, or back to memory, for `uninstall`."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from prometheus_client import Gauge
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import CollectorRegistry

from ..cells import exact
from ..process.appcode import safe_repr
from ..process.trouble import tell
from . import info_enum, labelsets, resets, sampling
from .held import flat, is_peers_value, is_shared_value, is_state, values_of


class Taken(NamedTuple):
    """A metric that was taken over, and the value objects that it had before, by attribute."""

    metric: Any
    before: dict[str, Any]


def to_store(taken: list[Taken]) -> None:
    """Move the values of every metric to the store, and add each changed metric to `taken`.

    A metric with value objects of a class of the app's own stays as it is.
    """
    _take_over(taken, is_peers_value)
    if taken:
        tell(logging.INFO, f"took over {len(taken)} metrics that existed before the store was installed")


def to_memory(taken: list[Taken]) -> None:
    """Move the values of every metric that is in the store to memory, and add each changed metric to `taken`."""
    _take_over(taken, is_shared_value)
    if taken:
        tell(logging.INFO, f"took over {len(taken)} metrics that existed before the store was uninstalled")


def undo(taken: list[Taken]) -> None:
    """Give metrics their old value objects back, with what was counted meanwhile."""
    for metric, before in reversed(taken):
        if is_state(metric):
            info_enum.convert(metric)
            continue
        now = flat(values_of(metric))
        metric.__dict__.update(before)
        sampling.sampler.gauges.discard(metric)
        sampling.adopt(metric)
        for old, new in zip(flat(before), now, strict=True):
            if not isinstance(metric, Gauge) and (amount := new.get() - old.get()):
                old.inc(amount)
            if is_shared_value(new):
                getattr(new, "value", new).set(0.0)


def _take_over(taken: list[Taken], is_foreign: Callable[[Any], bool]) -> None:
    for metric in _all_metrics():
        try:
            before = values_of(metric)
            if convert(metric, before, is_foreign):
                taken.append(Taken(metric, before))
        except Exception as error:  # its class is the app's own
            tell(logging.WARNING, f"{type(metric)}: stays as it is ({safe_repr(error)})", error)


def _all_metrics() -> Iterable[Any]:
    """Yield every metric object of this process, in a registry or not. Only a scan of the memory finds them all."""
    gc.collect()  # so that metrics without a user are not taken over
    for thing in _instances(MetricWrapperBase, CollectorRegistry):
        if isinstance(thing, CollectorRegistry):
            know(resets.registries, thing)
        elif not {"_name", "_labelnames", "_labelvalues"} <= vars(thing).keys():
            continue  # its constructor has failed
        elif thing._labelnames and not thing._labelvalues:
            if "_metrics" in vars(thing):
                know(labelsets.parents, thing)
        else:
            yield thing


def existing_registries() -> list[CollectorRegistry]:
    """Return every registry of this process."""
    return _instances(CollectorRegistry)


def know(known: weakref.WeakSet[Any], thing: Any) -> None:
    """Add an object to a set, unless its class (the app's own) does not allow that."""
    try:
        known.add(thing)
    except Exception as error:  # its __hash__ or __eq__ raises
        tell(logging.DEBUG, f"{type(thing)}: cannot be in a set ({safe_repr(error)})")


def _instances(*classes: type) -> list[Any]:
    """Return all objects of these classes and of those derived from them.

    They are found among the objects that refer to their class, and not in ``gc.get_objects()``: that has tuples in it
    that another thread is building, and CPython cannot finish a tuple that others refer to (SystemError).
    """
    wanted = {one for cls in classes for one in _family_of(cls)}
    # By type(): isinstance() would ask proxies such as Flask's for their __class__.
    return [thing for thing in gc.get_referrers(*wanted) if type(thing) in wanted]


def _family_of(cls: type) -> Iterable[type]:
    derived: list[type] = cls.__subclasses__()
    yield cls
    for one in derived:
        yield from _family_of(one)


def convert(metric: Any, old: dict[str, Any], is_foreign: Callable[[Any], bool]) -> bool:
    """Give a metric values of the current value class, with the old ones' amounts; False if that is not to be done."""
    if is_state(metric):
        return info_enum.convert(metric)
    if not old or not all(map(is_foreign, flat(old))):
        return False
    twin = copy.copy(metric)
    twin._metric_init()
    new = values_of(twin)
    pairs = list(zip(flat(old), flat(new), strict=True))
    carry = _carry_gauge if isinstance(metric, Gauge) else _carry_sum
    if carry is _carry_sum:  # first, so that other threads count in the new values already
        metric.__dict__.update(new)
    for before, after in pairs:
        carry(before, after)
    metric.__dict__.update(new)
    sampling.adopt(metric)
    return True


def _carry_gauge(before: Any, after: Any) -> None:
    if amount := before.get():
        # A value from a mmap file has its time. One from memory has none, and 0 would hide it in scrapes.
        after.set(amount, getattr(before, "_timestamp", exact.now()))


def _carry_sum(before: Any, after: Any) -> None:
    if amount := before.get():
        after.inc(amount)
    if exemplar := before.get_exemplar():
        after.set_exemplar(exemplar)
