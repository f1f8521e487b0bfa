"""Publishes `prometheus_client`'s own collectors (process, GC, platform) in each process.

Unpublished, they show the process that happens to answer a scrape, so one process's counter follows another's.
Prometheus takes each of these changes for a restart.
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
"""The collectors and their modes. All processes of an app have the same Python, so `livemax` shows it once."""
assert all(name in config.PUBLISHED for name in _BY_NAME)


_first_asked = 0.0


def publish_in_workers() -> None:
    """Make `install` publish all of them in workers, unless the environment names some; but not in this process."""
    global _first_asked
    os.environ.setdefault(config.PUBLISH_VARIABLE, ",".join(config.PUBLISHED))
    _first_asked = math.inf


def publish_configured() -> None:
    """Publish those that the environment names and the default registry still has. Raises ValueError."""
    for name in config.published():
        collector, mode = _BY_NAME[name]
        if collector in REGISTRY._collector_to_names and collector not in sampler.publications:
            sampler.publications[collector] = Publication(collector, mode, of_process=True, first_asked=_first_asked)
