"""Private registries: a registry that the app makes for a request, a task or a push shows its own counts only.

The values of a private metric are in the memory of its process and never in the store. So it shows the same as without
a store, and leaves nothing behind. `Rule` decides which registries are private.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from types import FrameType
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Summary
from prometheus_client.metrics import MetricWrapperBase, _build_full_name
from prometheus_client.registry import CollectorRegistry
from prometheus_client.samples import Exemplar
from prometheus_client.values import MutexValue

from .. import config
from ..cells import exact
from ..process import native
from ..process.trouble import tell
from ..process.weak import members
from .loading import Stage, maker, place, stage

_MOST_FAMILIES = 10_000
"""The most family names that are remembered, for apps that make up new ones all the time."""
_LATER = 5.0
"""Seconds. A registry that is collected again after so long was not made for one request."""
_numbers = count(1)


class Home:
    """The registry that a private metric was made for.

    If the registry is gone and the app still uses the metric, the metric was not made for a request. From then on it
    counts in the store, like a metric that was made without a registry.
    """

    __slots__ = ("_registry", "_standing")

    def __init__(self, registry: CollectorRegistry, standing: Standing):
        self._registry = weakref.ref(registry)
        self._standing = standing

    def is_gone(self) -> bool:
        """Whether the registry does not exist any more, and was private only by the place where it was made."""
        return self._registry() is None and not self._standing.decided and rule.setting == "auto"


class PrivateValue(MutexValue):
    """A float in the memory of its process, with the methods of other values, safe in signal handlers.

    metric: the metric that has the value, in its attribute `name`; place: the index there, if that is a list.
    """

    def __init__(self, metric: Any, name: str, place: int | None = None) -> None:
        self._value = 0.0
        self._exemplar: Exemplar | None = None
        self._lock: Any = native.RLock()  # as a signal handler may come in the middle
        self._metric, self._name, self._place = weakref.ref(metric), name, place
        self._home: Home = metric._sqlmetrics_home

    def inc(self, amount: float) -> None:
        """Add `amount`."""
        amount = exact.number(amount)
        if self._home.is_gone() and (successor := self._successor()):
            successor.inc(amount)
        else:
            self._value += amount  # no call between the read and the store, and so no lock: see `values`

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value."""
        value = float(value)
        if self._home.is_gone() and (successor := self._successor()):
            successor.set(value, timestamp)
        else:
            self._value = value

    def get(self) -> float:
        """Return the value."""
        return self._value

    def _successor(self) -> Any:
        """Move the metric to the store, and return the value that replaces this one; None if none does."""
        metric = self._metric()
        if metric is None:
            return None
        for leave in leaving:
            leave(metric)
        found = metric.__dict__[self._name]
        found = found if self._place is None else found[self._place]
        return None if found is self else found


leaving: list[Callable[[Any], None]] = []
"""Functions to call with a metric that is not private any more because its registry is gone; see `sharing`."""


class PrivateNames(tuple[str, ...]):
    """The label names of a private metric. Its children are made with them, so they become private, too."""

    home: Home


@dataclass
class Standing:
    """What is known of one registry.

    at: where the app made it. decided: whether the app has called `private`, or has shown that it wants the registry
    shared. shown: when somebody first asked it for its metrics, on the monotonic clock; None: not yet. number: unique.
    """

    stage: Stage
    is_private: bool
    at: str = ""
    decided: bool = False
    shown: float | None = None
    made: float = field(default_factory=time.monotonic)
    thread: int = field(default_factory=native.get_ident)
    number: int = field(default_factory=lambda: next(_numbers))


class Rule:
    """Decides which registries are private: those that are made while the app runs, unless the app says otherwise."""

    def __init__(self) -> None:
        self._begin("auto")

    def begin(self) -> None:
        """Begin again with the setting of the environment. Raises ValueError."""
        self._begin(config.registries())

    def _begin(self, setting: str) -> None:
        self.setting = setting
        self._brought: dict[str, tuple[int, int]] = {}
        self._told: set[str] = set()
        self._private: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()

    def judge(self, registry: CollectorRegistry, made_in: FrameType | None) -> None:
        """Decide whether a registry that is made in this frame is private, and note it."""
        at = stage(made_in)
        is_private = at is Stage.RUNNING if self.setting == "auto" else self.setting == "default"
        registry._sqlmetrics_standing = Standing(at, is_private, place(made_in))  # type: ignore[attr-defined]
        if is_private:
            self._private.add(registry)

    def undecided(self) -> list[tuple[CollectorRegistry, Standing]]:
        """Return the registries that are private by this rule alone."""
        found = [(one, standing_of(one)) for one in members(self._private) if self.setting == "auto"]
        return [(one, standing) for one, standing in found if standing and standing.is_private and not standing.decided]

    def is_first(self, standing: Standing, family: str) -> bool:
        """Whether no registry but this one has had a family of that name."""
        number, registries = self._brought.get(family, (standing.number, 1))
        return number == standing.number and registries == 1

    def brings(self, standing: Standing, family: str) -> bool:
        """Note that a registry has a family, and return whether it is the first that has it."""
        number, registries = self._brought.get(family, (standing.number, 0))
        if registries == 0 or number != standing.number:
            registries += 1
        if len(self._brought) >= _MOST_FAMILIES:
            self._brought.clear()
        self._brought[family] = (standing.number, registries)
        if registries > 2:
            self._tell(
                family,
                f"{family} is in a third registry of this process, made in {standing.at}. A private registry, made"
                " while the app runs, shows its own numbers only, and no other scrape has them; shared ones add up. For"
                " the sum of all processes, make one registry at a module's level, or use the default one",
            )
        return registries == 1

    def tell_asked(self, registry: CollectorRegistry) -> None:
        """Warn once if a registry that is asked is private, but was not made for one request: it shows too little."""
        standing = standing_of(registry)
        if standing is None or not standing.is_private:
            return
        if standing.shown is None:
            standing.shown = time.monotonic()
        self._tell_hidden(registry, standing, standing.shown)

    def tell_left_out(self) -> None:
        """Warn once about each such registry when a scrape of the whole store leaves it out."""
        for registry, standing in self.undecided():
            self._tell_hidden(registry, standing, standing.made)

    def _tell_hidden(self, registry: CollectorRegistry, standing: Standing, since: float) -> None:
        is_ruled = self.setting == "auto" and not standing.decided
        if is_ruled and time.monotonic() - since > _LATER and any(map(is_private, list(registry._collector_to_names))):
            self._tell(
                standing.at,
                f"the registry that was made in {standing.at} shows the metrics of this process only, and they are in"
                " no other scrape, as it was made while the app runs; make it at a module's level for the sum of all"
                " processes, or say sqlmetrics.private(registry) if it is right so",
            )

    def _tell(self, once: str, message: str) -> None:
        if once not in self._told and len(self._told) < _MOST_FAMILIES:
            self._told.add(once)
            tell(logging.WARNING, message)


rule = Rule()


def standing_of(registry: object) -> Standing | None:
    """Return what is known of a registry; None for the default one, and for those made before `install`."""
    return registry.__dict__.get("_sqlmetrics_standing") if isinstance(registry, CollectorRegistry) else None


def is_private(metric: Any) -> bool:
    """Whether a metric has its values in memory, and not in the store."""
    home = home_of(metric)
    return home is not None and not home.is_gone()


def home_of(metric: Any) -> Home | None:
    """Return the registry for which a metric was made private; None if it was not."""
    # Not from its `__dict__`: CPython would make one for each child then, and `inc()` would take a sixth longer.
    home = getattr(metric, "_sqlmetrics_home", None)
    return home if isinstance(home, Home) else None


def names_of(metric: Any, home: Home) -> PrivateNames:
    """Return the label names of a metric, of the class that makes its children private."""
    names = PrivateNames(metric._labelnames)
    names.home = home
    return names


def is_private_registry(registry: object) -> bool:
    """Whether the metrics that are made for a registry are private."""
    standing = standing_of(registry)
    return standing is not None and standing.is_private


_peer_init: Any = MetricWrapperBase.__init__
_full_name: Any = _build_full_name


def metric_init(
    self: Any,
    name: str,
    documentation: str,
    labelnames: Any = (),
    namespace: str = "",
    subsystem: str = "",
    unit: str = "",
    registry: Any = REGISTRY,
    _labelvalues: Any = None,
    **others: Any,
) -> None:
    """Replaces `MetricWrapperBase.__init__`: decides first whether the metric is private."""
    if _labelvalues:
        home = labelnames.home if isinstance(labelnames, PrivateNames) and not labelnames.home.is_gone() else None
    else:
        private = _is_made_for_private(self, registry, (name, namespace, subsystem, unit))
        home = Home(registry, registry._sqlmetrics_standing) if private else None
    if home:
        self._sqlmetrics_home = home
    _peer_init(self, name, documentation, labelnames, namespace, subsystem, unit, registry, _labelvalues, **others)
    if home:
        self._labelnames = names_of(self, home)


def _is_made_for_private(metric: Any, registry: Any, parts: tuple[str, str, str, str]) -> bool:
    standing = standing_of(registry)
    if standing is None:
        if registry is None:  # it may get one later, see `registry.register`
            metric._sqlmetrics_made = stage(maker(metric, sys._getframe(2)))
        return False
    family = _full_name(metric._type, *parts)
    is_first = rule.brings(standing, family)
    if standing.stage is Stage.SCRIPT and not is_first and rule.setting == "auto" and not standing.decided:
        standing.is_private = True  # the script makes such a registry again and again, in a loop
    return standing.is_private


def give_values(metric: Any) -> None:
    """Give a private metric its values, in memory, as `_metric_init` does for others."""
    if isinstance(metric, (Counter, Gauge)):
        metric._value = PrivateValue(metric, "_value")
    elif isinstance(metric, Summary):
        metric._count, metric._sum = PrivateValue(metric, "_count"), PrivateValue(metric, "_sum")
    else:
        metric._sum = PrivateValue(metric, "_sum")
        metric._buckets = [PrivateValue(metric, "_buckets", place) for place in range(len(metric._upper_bounds))]
    if not isinstance(metric, Gauge):
        metric._created = time.time()
