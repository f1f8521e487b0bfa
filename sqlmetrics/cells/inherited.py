"""The gauges that processes forked from this one are to have, at zero, as in the mmap mode of `prometheus_client`."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from .shape import Key


class Inherited(dict[Key, None]):
    """Those of one value class, in the order in which they were made."""

    def __init__(self) -> None:
        super().__init__()
        _all[:] = [ref for ref in _all if ref() is not None]
        _all.append(weakref.ref(self))


_all: list[weakref.ref[Inherited]] = []


def inherited_of(family: str) -> list[Key]:
    """The gauges of a family that a process has, or will have as it inherits them."""
    found = [inherited for ref in list(_all) if (inherited := ref()) is not None]
    return [key for inherited in found for key in list(inherited) if key[0].family == family]


def forget_inherited(keys: Iterable[Key]) -> None:
    """Have processes that are forked from now on not have children that were removed."""
    keys = list(keys)
    for ref in list(_all):
        if (inherited := ref()) is not None:
            for key in keys:
                inherited.pop(key, None)
