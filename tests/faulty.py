"""System calls that fail: the n-th that this process makes by way of these functions, or all from the n-th on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

from sqlmetrics.process import native

POINTS: tuple[tuple[Any, str], ...] = (
    (fcntl, "lockf"),
    (fcntl, "fcntl"),
    (fcntl, "flock"),
    (os, "open"),
    (os, "stat"),
    (os, "fstat"),
    (os, "posix_fallocate"),
    (os, "pwrite"),
    (os, "ftruncate"),
    (os, "fsync"),
    (mmap, "mmap"),
    (native, "start_new_thread"),
)
ERRORS = ("ENOLCK", "EMFILE", "ENOMEM", "EAGAIN", "EINTR", "EIO", "EACCES", "ENOSPC", "ENFILE", "EPERM")


class Faults:
    """Has calls fail within `on`.

    calls: how many there were. failed: which of the functions failed, and how often.
    """

    def __init__(self, first: int, error: str, *, for_ever: bool, points: tuple[tuple[Any, str], ...] = POINTS):
        self._first, self._for_ever = first, for_ever
        self._number = getattr(errno, error)
        self._points = points
        self.calls = 0
        self.failed: dict[str, int] = {}

    def _failing(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._first or (self._for_ever and self.calls > self._first > 0):
                self.failed[name] = self.failed.get(name, 0) + 1
                if name == "start_new_thread":
                    raise RuntimeError("can't start new thread")
                raise OSError(self._number, os.strerror(self._number))
            return function(*args, **kwargs)

        return call

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Have them fail in this block, and in what is forked in it."""
        originals = [(where, name, getattr(where, name)) for where, name in self._points]
        for where, name, function in originals:
            setattr(where, name, self._failing(function, name))
        try:
            yield
        finally:
            for where, name, function in originals:
                setattr(where, name, function)
