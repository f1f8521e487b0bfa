"""Makes registries private or shared after they were made; their metrics keep their values.

A shared registry shows all processes. A registry that is private only by the place where it was made becomes shared
when it turns out to live as long as its process: when the app serves it, when the process forks, or when it gets a
collector of a store.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from prometheus_client import REGISTRY, exposition, multiprocess
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import CollectorRegistry

from ..process import native
from . import sampling, takeover
from .collector import MultiProcessCollector
from .held import is_switched, values_of
from .loading import Stage
from .private import Home, Standing, home_of, is_private, is_private_registry, leaving, names_of, rule, standing_of

_COLLECTORS = (MultiProcessCollector, multiprocess.MultiProcessCollector)
_lock = native.RLock()
_peer_make_wsgi_app = exposition.make_wsgi_app


def private(registry: CollectorRegistry) -> CollectorRegistry:
    """Make a registry show the metrics of this process only, as without a store. Nothing of them gets into the store.

    Call it before you make the registry's metrics, because their earlier counts stay in the store. A second call
    changes nothing. You may call it before `install`.

    registry: any but the default one, which shows all processes.
    Returns the registry: ``registry = sqlmetrics.private(CollectorRegistry())``.
    Raises TypeError for anything but a `CollectorRegistry`, ValueError for the default one.
    """
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(f"a prometheus_client.CollectorRegistry can be private; {registry!r} is none")
    if registry is REGISTRY:
        raise ValueError("the default registry shows all processes; make a CollectorRegistry() for what is private")
    standing = standing_of(registry) or Standing(Stage.RUNNING, is_private=True)
    standing.decided = standing.is_private = True
    registry._sqlmetrics_standing = standing  # type: ignore[attr-defined]
    _make_private(registry)
    return registry


def _make_private(registry: CollectorRegistry) -> None:
    """Make the metrics of a registry private, except those that the default registry has, too."""
    for metric in list(registry._collector_to_names) if is_switched() else ():
        if metric not in REGISTRY._collector_to_names:
            _change(metric, Home(registry, registry._sqlmetrics_standing))  # type: ignore[attr-defined]


def settle_existing(registry: CollectorRegistry) -> None:
    """Make a registry from before `install` private if the app has said so, or else if the environment does."""
    has_collector = any(map(is_of_store, list(registry._collector_to_names)))
    if rule.setting == "default" and not (registry is REGISTRY or has_collector or standing_of(registry)):
        registry._sqlmetrics_standing = Standing(Stage.LOADING, is_private=True)  # type: ignore[attr-defined]
    if is_private_registry(registry):
        _make_private(registry)


def share(registry: Any) -> None:
    """Make a registry show all processes from now on, unless the app has called `private` for it."""
    standing = standing_of(registry)
    if standing is None or (standing.is_private and standing.decided):
        return
    standing.is_private, standing.decided = False, True
    for metric in list(registry._collector_to_names):
        _change(metric, None)


def take(registry: Any, metric: Any) -> None:
    """Make a metric private that was made without a registry, while the app runs, and is now in a private one."""
    made_at = getattr(metric, "_sqlmetrics_made", None)  # not by its `__dict__`, see `held`
    if made_at is Stage.RUNNING and is_private_registry(registry):
        _change(metric, Home(registry, registry._sqlmetrics_standing))


def is_of_store(collector: object) -> bool:
    """Whether a collector yields all of a store."""
    return isinstance(collector, _COLLECTORS)


def _change(metric: Any, home: Home | None) -> None:
    if not isinstance(metric, MetricWrapperBase):
        return
    children: dict[Any, Any] = getattr(metric, "_metrics", {})
    for one in (metric, *children.copy().values()):
        if (home_of(one) is None) != (home is None):
            one._sqlmetrics_home = home
            one._labelnames = names_of(one, home) if home else tuple(one._labelnames)
            if not one._is_parent():
                _renew_values(one)


def _renew_values(metric: Any) -> None:
    """Move the values of a metric to the store or to memory, where they belong now."""
    sampling.sampler.gauges.discard(metric)
    takeover.convert(metric, values_of(metric), lambda _: True)


def _leave(metric: Any) -> None:
    with _lock:
        if is_switched():
            _change(metric, None)


leaving.append(_leave)


def make_wsgi_app(registry: Any = REGISTRY, *args: Any, **kwargs: Any) -> Any:
    """Replaces `exposition.make_wsgi_app`: a registry that a server serves becomes shared."""
    if rule.setting == "auto" and sys._getframe(1).f_code is exposition.start_wsgi_server.__code__:
        share(registry)
    return _peer_make_wsgi_app(registry, *args, **kwargs)


def share_before_fork() -> None:
    """Make registries that exist when the process forks shared with its children.

    But not those of other threads than this one and the main one, which most likely belong to a request. And not those
    with a family name that an earlier registry had, because the two would be added up.
    """
    for registry, standing in rule.undecided() if is_switched() else ():
        metrics: list[Any] = list(registry._collector_to_names)
        names = [metric._name for metric in metrics if is_private(metric)]
        lives_here = standing.thread in (native.get_ident(), threading.main_thread().ident)
        if lives_here and all(rule.is_first(standing, name) for name in names):
            share(registry)


os.register_at_fork(before=share_before_fork)  # before the hooks that this package has registered already
