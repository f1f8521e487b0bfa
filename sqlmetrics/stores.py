"""Which stores this process uses: at most one installed, and one object for each path."""

from __future__ import annotations

import os

from . import config
from .errors import InstallError
from .query import Reader
from .store import Store

_stores: dict[str, Store] = {}
_readers: dict[str, Reader] = {}
_installed: Store | None = None


def find(path: str | os.PathLike[str] | None = None) -> str:
    """The path of the store that is meant: the one named, else the installed one, else the environment's."""
    if path is None and _installed is not None:
        return _installed.path
    return config.resolve(path)


def open_store(path: str, settings: config.Settings, *, create: bool = True) -> Store:
    """Return this process's object for a store, the same for the same path."""
    if path not in _stores:
        _stores[path] = Store(path, settings, create=create)
    return _stores[path]


def existing_store(path: str | os.PathLike[str] | None = None) -> Store:
    """Return this process's object for a store that exists. Raises NoStoreError, PathError or StoreError."""
    return open_store(find(path), config.settings(), create=False)


def default_store() -> Store:
    """The installed store, else the one that the environment names, made if need be. Raises PathError."""
    return _installed or open_store(config.resolve(), config.settings())


def reader(path: str | os.PathLike[str] | None = None) -> Reader:
    """Return this process's reader of a store; opens nothing yet."""
    where = find(path)
    if where not in _readers:
        _readers[where] = Reader(where)
    return _readers[where]


def remember(path: str, settings: config.Settings) -> Store:
    """Make the store at `path` the installed one. Raises InstallError if another is."""
    global _installed
    if _installed is not None and (path != _installed.path or settings != _installed.settings):
        found, wanted = (_installed.path, path) if path != _installed.path else (_installed.settings, settings)
        raise InstallError(
            f"sqlmetrics is installed with {found}, and install() was called again with {wanted};"
            " a process has one store: drop one of the calls, or call uninstall() in between"
        )
    _installed = open_store(path, settings)
    return _installed


def forget() -> Store | None:
    """Make no store the installed one, and return the one that was."""
    global _installed
    store, _installed = _installed, None
    if store is not None:
        del _stores[store.path]
    return store
