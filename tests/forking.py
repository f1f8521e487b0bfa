"""Forks as the tests make them: from C, and with a look at how long they take and what the child finds."""

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
"""What is asked of a fork here; it takes a tenth of that on a machine that has nothing else to do."""
_libc = ctypes.PyDLL(None)


def c_fork() -> int:
    """fork(), called from C."""
    return int(_libc.fork())


def forked_from_c(**steps: object) -> Child:
    """A child that came by a fork from C and can do the steps given."""
    one = Child(fork=c_fork)
    if one.in_child:
        one.serve(**steps)  # type: ignore[arg-type]
    return one


def still_open(path: str) -> list[str]:
    """Which files of the store SQLite has open."""
    files = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(file) for file in files if os.path.lexists(file)]
    return [one for one in targets if one.startswith(path) and not one.endswith("-cells")]


def state_of_fork(path: str) -> list[object]:
    """What a child finds: what is open, and whether it can use SQLite itself."""
    found = still_open(path)
    store = stores.installed()
    assert store
    return [found, store.flush().name in ("DONE", "NOTHING_CHANGED", "BUSY"), bool(scrape(path))]


def timed_fork(path: str) -> float:
    """Fork, see that the child is in order, and return how long the parent was held up."""
    result: list[float] = []

    class Clock(fork.ForkAware):
        """Told before and after all others."""

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
    """Do it in another thread, and give what it returned, or raised."""
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
