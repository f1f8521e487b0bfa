"""`prometheus_client`'s own collectors: what a process takes of the machine, published by each process.

On the default registry they would show the process that happens to answer a scrape, so that a counter of one process
is followed by that of another: to Prometheus, a restart each time.
"""

from __future__ import annotations

import math
import os
from typing import Any

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, REGISTRY

from .. import config
from .published import Publication
from .sampling import sampler

_BY_NAME: dict[str, tuple[Any, str]] = {
    "process": (PROCESS_COLLECTOR, "liveall"),
    "gc": (GC_COLLECTOR, "liveall"),
    "platform": (PLATFORM_COLLECTOR, "livemax"),
}
"""The collectors, and the modes that they are published in: all processes of an app have one Python."""
assert all(name in config.PUBLISHED for name in _BY_NAME)


_first_asked = 0.0


def publish_in_workers() -> None:
    """Have `install` publish all of them, unless the environment says which; not in this process, which is a master."""
    global _first_asked
    os.environ.setdefault(config.PUBLISH_VARIABLE, ",".join(config.PUBLISHED))
    _first_asked = math.inf


def publish_configured() -> None:
    """Publish those that the environment names; none that the app has taken out of the default registry.

    Raises ValueError.
    """
    for name in config.published():
        collector, mode = _BY_NAME[name]
        if collector in REGISTRY._collector_to_names and collector not in sampler.publications:
            sampler.publications[collector] = Publication(collector, mode, of_process=True, first_asked=_first_asked)
