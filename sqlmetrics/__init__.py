"""prometheus_client for many processes: all workers' metrics in one SQLite store.

The import itself loads next to nothing. The first use of a name loads all that the package needs. It must be all,
because later a worker may have given up the right to read the package's files.

PYTEST_DONT_REWRITE: pytest warns of a package with a plugin that is imported before pytest begins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .names import (
        DamagedError,
        ForeignFileError,
        InstallError,
        JournalModeError,
        MultiProcessCollector,
        NoStoreError,
        PathError,
        SchemaError,
        SQLMetricsError,
        Store,
        StoreError,
        StoreInUseError,
        generate_latest,
        install,
        make_asgi_app,
        make_wsgi_app,
        mark_process_dead,
        private,
        publish,
        reset,
        start_http_server,
        uninstall,
        unpublish,
    )

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
_MODULES = ("errors", "values")
"""Public modules that are attributes of the package without an import of their own."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load the package for one of its names, or a public module of it (PEP 562)."""
        if name in _MODULES:
            return import_module(f".{name}", __name__)
        if name not in __all__:  # `from . import …` asks for modules that are not loaded yet, too
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        names = import_module(".names", __name__)
        globals().update((one, getattr(names, one)) for one in __all__)
        return globals()[name]

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *__all__, *_MODULES})
