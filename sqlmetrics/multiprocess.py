"""The names of `prometheus_client.multiprocess`, so that existing code changes its import line only.

Importing this module switches `prometheus_client` to the store, as `sqlmetrics.install` does, if the environment
names one. Nothing is opened or created by that: the first metric does.
"""

from __future__ import annotations

from . import config
from .client import patch
from .client.collector import MultiProcessCollector
from .store.notices import mark_process_dead

__all__ = ["MultiProcessCollector", "mark_process_dead"]

if config.is_named():
    patch.switch(config.settings().process_identifier)
