"""Reads weak sets and queues while other threads and signal handlers change them."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TypeVar

T = TypeVar("T")


def members(things: weakref.WeakSet[T]) -> list[T]:
    """Return all that are in a set now."""
    while True:
        try:
            return list(things)
        except RecursionError:  # it is a RuntimeError, too, but the next try would raise it again
            raise
        except RuntimeError:  # something was added meanwhile
            continue


def taken_from(things: deque[T]) -> T | None:
    """Take the first thing from a queue; None if there is none. Others may take the last one at any moment."""
    try:
        return things.popleft()
    except IndexError:
        return None
