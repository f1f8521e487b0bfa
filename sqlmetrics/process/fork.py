"""What happens around a fork, to everything of this package that lives in a process."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from . import native


class ForkAware:
    """Something that has to act around a fork. Subclasses override what they need."""

    def before_fork(self) -> None:
        """Run in the parent right before the fork."""

    def after_fork_in_parent(self) -> None:
        """Run in the parent right after it."""

    def after_fork_in_child(self) -> None:
        """Run in the child first of all; after a fork from C, before the first operation that notices."""


_aware: list[weakref.ref[ForkAware]] = []
_prepared: list[ForkAware] = []
_forking = native.RLock()
_pid = os.getpid()
_PATIENCE = 2.0
"""Seconds. The fork may be waiting for a lock of this very thread, if this is a signal handler."""


def register(thing: ForkAware) -> None:
    """Call the three methods of `thing` around every fork, as long as it exists.

    Waits for a fork that another thread has begun: what comes too late for its hooks would be in the child as it was
    at some moment, with a lock that a thread holds which is not there.
    """
    with postponed():
        _aware[:] = [ref for ref in _aware if ref() is not None]
        _aware.append(weakref.ref(thing))


@contextmanager
def postponed() -> Iterator[None]:
    """Have the forks of other threads wait until the block is done; first wait for one that has begun."""
    forking = _forking
    waited = forking.acquire(timeout=_PATIENCE)
    try:
        yield
    finally:
        if waited:
            forking.release()


def notice() -> None:
    """In the child of a fork from C, which ran none of Python's hooks, do what they would have done."""
    if os.getpid() != _pid:
        _prepared[:] = _living()
        _in_child()


def _after_in_child() -> None:
    """The hook; uWSGI may call it where no fork was announced, or where there was none at all."""
    if _prepared:
        _in_child()
    else:
        notice()


def _living() -> list[ForkAware]:
    return [thing for ref in _aware if (thing := ref()) is not None]


def _before() -> None:
    notice()
    _forking.acquire()
    _prepared[:] = _living()
    for thing in _prepared:
        thing.before_fork()


def _in_parent() -> None:
    while _prepared:
        _prepared.pop().after_fork_in_parent()
    _forking.release()


def _in_child() -> None:
    global _forking, _pid
    _pid = os.getpid()
    _forking = native.RLock()
    things = _living()  # also what a signal handler has registered since the hooks
    _prepared.clear()
    for thing in reversed(things):
        thing.after_fork_in_child()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_after_in_child)
