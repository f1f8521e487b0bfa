"""The readers of this process, one for each store that it scrapes, as they keep the names of all series."""

from __future__ import annotations

from .. import config
from ..cells import ownership
from .reader import Reader

_readers: dict[str, Reader] = {}


def reader(path: str, settings: config.Settings) -> Reader:
    """Return the reader of the store at `path`; opens nothing yet."""
    if path not in _readers:
        if settings.gid() >= 0:
            ownership.share(path, settings.gid())
        _readers[path] = Reader(path)
    _readers[path].keep_dead = settings.keep_dead
    return _readers[path]


def forget(path: str) -> None:
    """Close the reader of a store, if there is one."""
    if gone := _readers.pop(path, None):
        gone.close()
