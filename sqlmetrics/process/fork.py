"""What happens around a fork, to everything of this package that lives in a process."""

from __future__ import annotations

import os
import weakref

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


def register(thing: ForkAware) -> None:
    """Call the three methods of `thing` around every fork, as long as it exists."""
    _aware[:] = [ref for ref in _aware if ref() is not None]
    _aware.append(weakref.ref(thing))


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
    while _prepared:
        _prepared.pop().after_fork_in_child()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_after_in_child)
