"""Which stores this process uses: at most one installed, and one object for each path."""

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
    """The path of the store that is meant: the one named, else the installed one, else the environment's."""
    if path is None and _installed is not None:
        return _installed.path
    return config.resolve(path)


def meant(path: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """The path that is meant where code for `prometheus_client` gives one; None: that of the store in use.

    Such code hands over the folder of ``PROMETHEUS_MULTIPROC_DIR``, which it may have set itself. No mmap files are
    there, as the store took their place, and the store may be elsewhere (``SQLMETRICS_PATH`` goes first).
    """
    return None if path is not None and config.is_the_peers(path) else path


def existing_store(path: str | os.PathLike[str] | None = None) -> Store:
    """Return this process's object for a store that exists. Raises NoStoreError, PathError or StoreError."""
    where = find(path)
    if _installed is not None and where == _installed.path:
        return _installed
    if where not in _visited:
        _visited[where] = Store(where, config.settings(), create=False)
    return _visited[where]


def default_store() -> Store:
    """The installed store, else the one that the environment names, which is the installed one then.

    Raises PathError, StoreError.
    """
    return _installed or remember(config.resolve())


def installed() -> Store | None:
    """The installed store."""
    return _installed


def installed_at(path: str) -> Store | None:
    """The store at `path` if it is the installed one; it may have no files yet, for want of room."""
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
    """The families as `prometheus_client` has them. Raises as `scrape` does."""
    return scrape(reader, asked, lambda families, _: [shown.metric() for shown in families])


def remember(path: str, **given: object) -> Store:
    """Make the store at `path` the installed one. Raises InstallError if another is, or was given other settings."""
    global _installed
    _refuse_without_lock()
    if _installed is None:
        visited = _visited.pop(path, None)
        settings = config.settings(**given)
        config.make_folder(path, settings.gid())
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
