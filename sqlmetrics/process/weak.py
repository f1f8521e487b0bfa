"""Reads weak sets while other threads and signal handlers add to them."""

from __future__ import annotations

import weakref
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
