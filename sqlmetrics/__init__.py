"""prometheus_client for many processes: all workers' metrics in one SQLite store."""

from .collector import MultiProcessCollector
from .errors import (
    CarrayError,
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
from .exposition import generate_latest
from .notices import mark_process_dead, reset
from .patch import install, uninstall
from .store import Store

__all__ = [
    "install",
    "uninstall",
    "Store",
    "MultiProcessCollector",
    "generate_latest",
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
    "CarrayError",
]
__version__ = "0.1.0"
