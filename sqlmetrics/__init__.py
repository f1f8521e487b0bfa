"""prometheus_client for many processes: all workers' metrics in one SQLite store."""

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
from .notices import mark_process_dead, reset
from .process import real
from .scrape.collector import MultiProcessCollector
from .scrape.exposition import generate_latest
from .scrape.web import make_asgi_app, make_wsgi_app, start_http_server
from .store import Store

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
real.keep(__name__)
__version__ = "0.1.0"
