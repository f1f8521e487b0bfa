"""Loads the package's names and all modules that it needs: later, a worker may have lost the right to read them."""

from .client.collector import MultiProcessCollector
from .client.exposition import generate_latest
from .client.patch import install, uninstall
from .client.sampling import publish, unpublish
from .client.sharing import private
from .errors import (
    DamagedError,
    ForeignFileError,
    InstallError,
    JournalModeError,
    NoStoreError,
    PathError,
    SchemaError,
    SQLMetricsError,
    StoreError,
    StoreInUseError,
)
from .process import real
from .store.notices import mark_process_dead, reset
from .store.store import Store
from .web import make_asgi_app, make_wsgi_app, start_http_server

__all__ = [
    "install",
    "uninstall",
    "Store",
    "MultiProcessCollector",
    "generate_latest",
    "make_wsgi_app",
    "make_asgi_app",
    "start_http_server",
    "publish",
    "unpublish",
    "private",
    "mark_process_dead",
    "reset",
    "SQLMetricsError",
    "PathError",
    "NoStoreError",
    "StoreError",
    "ForeignFileError",
    "SchemaError",
    "JournalModeError",
    "DamagedError",
    "InstallError",
    "StoreInUseError",
]

real.keep(__package__)
