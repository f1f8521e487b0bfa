"""What `install` and `uninstall` do with metrics that exist: their values go on in the store, or again in memory."""

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

from ..cells import given
from ..process.appcode import told
from ..process.trouble import tell
from . import info_enum, labelsets, resets, sampling
from .held import flat, is_peers_value, is_shared_value, is_state, values_of


class Taken(NamedTuple):
    """A metric that was taken over, and the value objects that it had before, by their attributes."""

    metric: Any
    before: dict[str, Any]


def to_store(taken: list[Taken]) -> None:
    """Give every metric values of the store, with what it has counted; adds to `taken` what that has changed.

    A metric of the app's own kind, or with values of a class of its own, stays as it is.
    """
    _take_over(taken, is_peers_value)
    if taken:
        tell(logging.INFO, f"took over {len(taken)} metrics that existed before the store was installed")


def to_memory(taken: list[Taken]) -> None:
    """Give every metric whose values are the store's values of its process's memory, with what it has counted."""
    _take_over(taken, is_shared_value)
    if taken:
        tell(logging.INFO, f"took over {len(taken)} metrics that existed before the store was uninstalled")


def undo(taken: list[Taken]) -> None:
    """Give metrics back what they had, and what was counted meanwhile."""
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
        except Exception as error:  # of a class of the app's own
            tell(logging.WARNING, f"{type(metric)}: stays as it is ({told(error)})", error)


def _all_metrics() -> Iterable[Any]:
    """Every metric object of this process, in a registry or not; a scan, as nothing else knows them all."""
    gc.collect()  # what nobody uses any more is not taken over
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
    """Every registry of this process."""
    return _instances(CollectorRegistry)


def know(known: weakref.WeakSet[Any], thing: Any) -> None:
    """Add something to a set, unless it is of a class of the app's own that cannot be in one."""
    try:
        known.add(thing)
    except Exception as error:  # its __hash__ or __eq__ raises
        tell(logging.DEBUG, f"{type(thing)}: cannot be in a set ({told(error)})")


def _instances(*classes: type) -> list[Any]:
    """All objects of these classes and of those derived from them.

    Asked for by what refers to a class, and not picked from ``gc.get_objects()``: that has tuples in it that another
    thread is building, which CPython cannot finish once somebody else has hold of them (SystemError).
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
    """Give a metric values of the kind that is made now, with what the old ones have; False if they are of it."""
    if is_state(metric):
        return info_enum.convert(metric)
    if not old or not all(map(is_foreign, flat(old))):
        return False
    twin = copy.copy(metric)
    twin._metric_init()
    new = values_of(twin)
    pairs = list(zip(flat(old), flat(new), strict=True))
    carry = _carry_gauge if isinstance(metric, Gauge) else _carry_sum
    if carry is _carry_sum:  # what other threads count meanwhile goes into the new values already
        metric.__dict__.update(new)
    for before, after in pairs:
        carry(before, after)
    metric.__dict__.update(new)
    sampling.adopt(metric)
    return True


def _carry_gauge(before: Any, after: Any) -> None:
    if amount := before.get():
        # Of what was in a mmap file the time is known; in memory there was none, and 0 would hide it in the scrapes.
        after.set(amount, getattr(before, "_timestamp", given.now()))


def _carry_sum(before: Any, after: Any) -> None:
    if amount := before.get():
        after.inc(amount)
    if exemplar := before.get_exemplar():
        after.set_exemplar(exemplar)
