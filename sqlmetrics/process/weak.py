"""Weak sets that other threads and signal handlers add to."""

from __future__ import annotations

import weakref
from typing import TypeVar

T = TypeVar("T")


def members(things: weakref.WeakSet[T]) -> list[T]:
    """All that are in it now."""
    while True:
        try:
            return list(things)
        except RecursionError:  # it is a RuntimeError, too, and would come for ever
            raise
        except RuntimeError:  # another one came in the middle
            continue
