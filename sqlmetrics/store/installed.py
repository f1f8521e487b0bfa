"""The stores that this process uses: at most one is installed, and there is one object for each path."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TypeVar

from prometheus_client.metrics_core import Metric

from .. import config
from ..errors import InstallError
from ..process import fork, under_uwsgi
from ..scrape import readers
from ..scrape.reader import Finish, Reader
from ..scrape.wanted import Wanted
from .store import Store

T = TypeVar("T")
_installed: Store | None = None
_visited: dict[str, Store] = {}


def find(path: str | os.PathLike[str] | None = None) -> str:
    """Return the path of a store: the path that is named, else the installed store's, else the environment's."""
    if path is None and _installed is not None:
        return _installed.path
    return config.resolve(path)


def meant(path: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Return the path that code for `prometheus_client` means; None: that of the store in use.

    Such code may pass the folder of ``PROMETHEUS_MULTIPROC_DIR``, which it may have set itself. There are no mmap files
    in it, and the store may be elsewhere (``SQLMETRICS_PATH`` goes first). So that folder means the store in use.
    """
    return None if path is not None and config.is_the_peers(path) else path


def existing_store(path: str | os.PathLike[str] | None) -> Store:
    """Return this process's object for a store that exists. Raises NoStoreError, PathError or StoreError."""
    where = find(path)
    if _installed is not None and where == _installed.path:
        return _installed
    if where not in _visited:
        _visited[where] = Store(where, config.settings(), create=False)
    return _visited[where]


def default_store() -> Store:
    """Return the installed store; if there is none, install the one that the environment names.

    Raises PathError, StoreError.
    """
    return _installed or remember(config.resolve())


def installed() -> Store | None:
    """Return the installed store, or None."""
    return _installed


def installed_at(path: str) -> Store | None:
    """Return the store at `path` if it is the installed one. It may have no files yet, for want of room."""
    return _installed if _installed is not None and _installed.path == path else None


def is_installed(path: str) -> bool:
    """Whether the store at `path` is the installed one."""
    return installed_at(path) is not None


def reader(path: str | os.PathLike[str] | None = None) -> Reader:
    """Return this process's reader of a store; opens nothing yet."""
    where = find(path)
    store = installed_at(where)
    return readers.reader(where, store.settings if store else config.settings())


def scrape(reader: Reader, asked: Wanted, finish: Finish[T]) -> T:
    """Scrape a store, the installed one or another; see `Reader.scrape`."""
    store = installed_at(reader.path)
    return store.scrape(reader, asked, finish) if store else reader.scrape(asked, finish)


def metrics(reader: Reader, asked: Wanted) -> list[Metric]:
    """Return the families as metrics of `prometheus_client`. Raises as `scrape` does."""
    return scrape(reader, asked, lambda families, _: [shown.metric() for shown in families])


def remember(path: str, **given: object) -> Store:
    """Make the store at `path` the installed one. Raises InstallError if another one is, or has other settings."""
    global _installed
    _refuse_without_lock()
    if _installed is None:
        visited = _visited.pop(path, None)
        settings = config.settings(**given)
        _installed = Store(path, settings)
        if visited is not None:
            visited.leave()
        under_uwsgi.call(after_fork=fork.notice, after_request=_take_turn)
    elif path != _installed.path:
        raise _other(_installed.path, path)
    else:
        wanted = config.checked(replace(_installed.settings, **given))  # type: ignore[arg-type]
        if wanted != _installed.settings:
            raise _other(_installed.settings, wanted)
    return _installed


def _refuse_without_lock() -> None:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise InstallError(
            "this Python runs without its interpreter lock, which is what makes increments exact among threads;"
            " have it run with the lock (PYTHON_GIL=1, or -X gil=1), or use a build that has it"
        )


def _take_turn() -> None:
    if _installed is not None:
        _installed.flusher.take_turn()


def _other(found: object, wanted: object) -> InstallError:
    return InstallError(
        f"sqlmetrics is installed with {found}, and install() was called again with {wanted};"
        " a process has one store: drop one of the calls, or call uninstall() in between"
    )


def forget() -> Store | None:
    """Make no store the installed one, and return the one that was."""
    global _installed
    store, _installed = _installed, None
    if store is not None:
        readers.forget(store.path)
    return store
