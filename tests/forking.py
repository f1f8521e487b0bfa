"""Forks for tests: from C, and measured: how long they take, and what the child finds."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from helpers import Child, in_child, scrape

from sqlmetrics.process import fork
from sqlmetrics.store import installed as stores

SECONDS = 1.5
"""The longest that a fork may take here; on an idle machine it takes a tenth of that."""
_libc = ctypes.PyDLL(None)


def c_fork() -> int:
    """Call fork() from C, without Python's hooks."""
    return int(_libc.fork())


def forked_from_c(**steps: object) -> Child:
    """Fork a child from C that can run these steps."""
    one = Child(fork=c_fork)
    if one.in_child:
        one.serve(**steps)  # type: ignore[arg-type]
    return one


def still_open(path: str) -> list[str]:
    """Return the files of the store that SQLite has open."""
    files = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(file) for file in files if os.path.lexists(file)]
    return [one for one in targets if one.startswith(path) and not one.endswith("-cells")]


def state_of_fork(path: str) -> list[object]:
    """Return what a child finds: files that are open, whether it can flush, and whether it can scrape."""
    found = still_open(path)
    store = stores.installed()
    assert store
    return [found, store.flush().name in ("DONE", "NOTHING_CHANGED", "BUSY"), bool(scrape(path))]


def timed_fork(path: str) -> float:
    """Fork, check that the child is in order, and return how many seconds the hooks took before the fork."""
    result: list[float] = []

    class Clock(fork.ForkAware):
        """Notes the time after all other hooks."""

        is_last = True

        def before_fork(self) -> None:
            result.append(time.monotonic())

    clock = Clock()
    fork.register(clock)
    begun = time.monotonic()
    assert in_child(lambda: state_of_fork(path)) == [[], True, True]
    return result[0] - begun


@contextmanager
def in_a_thread(action: Callable[[], object]) -> Iterator[list[object]]:
    """Run an action in another thread; yields a list that gets its result, or what it raised."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(action())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield found
    thread.join(60)
    assert not thread.is_alive()
