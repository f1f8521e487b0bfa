"""The names of `prometheus_client.multiprocess`, so that existing code need change only its import line.

If the environment names a store, importing this module switches `prometheus_client` to it, as `sqlmetrics.install`
does. The import opens and creates nothing; the first metric does.
"""

from __future__ import annotations

from . import config
from .client import patch
from .client.collector import MultiProcessCollector
from .store.notices import mark_process_dead

__all__ = ["MultiProcessCollector", "mark_process_dead"]

if config.is_named():
    patch.switch(config.settings().process_identifier)
