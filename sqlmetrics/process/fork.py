"""Calls all objects of this package that have to act before or after a fork."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import native, waits


class GaveWayError(Exception):
    """Another thread waits to fork. The work that was under way is given up: try it again later."""


class ForkAware:
    """An object that has to act around a fork. Subclasses override the methods that they need."""

    is_last = False
    """Whether its `before_fork` comes after those of the others."""

    def before_fork(self) -> None:
        """Run in the parent right before the fork."""

    def hurry(self) -> None:
        """Make other threads end what they are doing; called now and then while a fork waits for one of them."""

    def after_fork_in_parent(self) -> None:
        """Run in the parent right after it."""

    def after_fork_in_child(self) -> None:
        """Run in the child, before anything else there; after a fork from C, before the first operation."""


_aware: list[weakref.ref[ForkAware]] = []
_prepared: list[ForkAware] = []
_forking = native.RLock()
_pid = os.getpid()
_SLICE_SECONDS = 0.002
_wanting: dict[int, None] = {}
"""The threads that wait to fork, or are forking."""


def is_wanted() -> bool:
    """Whether another thread waits to fork, or is forking."""
    return bool(_wanting) and _wanting.keys() != {native.get_ident()}


def give_way() -> None:
    """Raise GaveWayError if another thread waits to fork. Call it in loops that may take long."""
    if _wanting and is_wanted():
        raise GaveWayError("another thread forks")


def let_pass() -> None:
    """Wait until no other thread forks, but no longer than a second."""
    end = time.monotonic() + 1.0
    while is_wanted() and time.monotonic() < end:
        native.sleep(_SLICE_SECONDS)


def acquire(lock: Any, seconds: float = waits.FORK) -> bool:
    """Take a lock in `before_fork`; after a moment, hurry the thread that has it. False if time is up."""
    return wait_until(lambda wait: bool(lock.acquire(timeout=wait)), seconds)


def wait_until(is_done: Callable[[float], bool], seconds: float = waits.FORK) -> bool:
    """Wait for other threads in `before_fork`; after a moment, hurry them. False if time is up.

    is_done: waits for so many seconds itself, and returns whether the wait is over.
    """
    begun = time.monotonic()
    while not is_done(_SLICE_SECONDS):
        waited = time.monotonic() - begun
        if waited > seconds:
            return False
        if waited > waits.FORK_POLITE:
            for thing in _living():
                thing.hurry()
    return True


def register(thing: ForkAware) -> None:
    """Call the methods of `thing` around every fork, as long as it exists.

    Waits for a fork that another thread has begun: an object that comes too late for its hooks would be in the child
    as it is at some moment, perhaps with a lock that a thread holds which does not exist there.
    """
    with postponed():
        _aware[:] = [ref for ref in _aware if ref() is not None]
        _aware.append(weakref.ref(thing))


@contextmanager
def postponed() -> Iterator[None]:
    """Make forks of other threads wait until the block ends; first wait for a fork that has begun."""
    with native.held(_forking, waits.FORK_HOOKS):
        yield


def notice() -> None:
    """Run the hooks in the child of a fork from C, which has run none of Python's hooks."""
    if os.getpid() != _pid:
        _prepared[:] = _living()
        _in_child()


def _after_in_child() -> None:
    """Run the hooks in the child. uWSGI may call this without `_before`, or even without a fork."""
    if _prepared:
        _in_child()
    else:
        notice()


def _living() -> list[ForkAware]:
    return [thing for ref in _aware if (thing := ref()) is not None]


def _before() -> None:
    notice()
    _wanting[native.get_ident()] = None
    _forking.acquire()
    _prepared[:] = _living()
    for thing in sorted(_prepared, key=lambda one: one.is_last):
        thing.before_fork()


def _in_parent() -> None:
    while _prepared:
        _prepared.pop().after_fork_in_parent()
    _wanting.pop(native.get_ident(), None)
    _forking.release()


def _in_child() -> None:
    global _forking, _pid
    _pid = os.getpid()
    _forking = native.RLock()
    _wanting.clear()
    things = _living()  # also what a signal handler has registered since the hooks
    _prepared.clear()
    for thing in reversed(things):
        thing.after_fork_in_child()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_after_in_child)
