"""`Info` and `Enum` across processes: the last label set or state wins, whichever process set it.

The value of such a series is a time: when a process last set this label set or this state. The query of a scrape shows
the newest one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from prometheus_client import Enum, Info, values

from ..cells import exact, layout
from ..cells.shape import canonical_labels, family_of
from . import resets
from .binder import UNBOUND, Binder, Bound, hold
from .held import is_switched
from .private import home_of, is_private

_peer_info_init = Info._metric_init
_peer_info = Info.info
_peer_enum_metric_init = Enum._metric_init
_peer_enum_init = Enum.__init__
_peer_state = Enum.state


MOST_STATES = layout.BLOCK_CELLS - layout.FIRST_CELL
"""The most states of an Enum, because all cells of a child are in one block."""


class Said(Bound):
    """The cells of a child of an Info or an Enum, each with the time when this process last set one of its variants.

    variants: the label set of an Info as JSON, or the states of an Enum. Times are seconds since the epoch.
    """

    __slots__ = ("__weakref__", "_binder", "variants")

    def __init__(self, binder: Binder, variants: Sequence[str]):
        super().__init__()
        self._binder = binder
        self.variants = variants

    @classmethod
    def of(cls, metric: Any, binder: Binder, sample: str, variants: Sequence[str]) -> Said:
        """Return the cells of a child of an Info or an Enum. As long as all are 0, its first variant is set."""
        if len(variants) > MOST_STATES:
            raise ValueError(f"{metric._name} has {len(variants)} states; in a store it can have {MOST_STATES} at most")
        said = cls(binder, variants)
        labels = exact.labels(metric._labelnames, metric._labelvalues)
        binder.add_apart(
            said, family_of(metric), labels, tuple((sample, one) for one in variants), metric._documentation
        )
        return said

    def place_of(self, state: object) -> int:
        """Return the place of a state among the variants. Two states of a metric may have the same text."""
        return self.variants.index(exact.name(state))

    def newest(self) -> float:
        """Return when this process last set any variant; 0.0 if it never did."""
        if self._binder.identify is not os.getpid and self._binder.has_left(self._named):
            self._own = UNBOUND
        while self._own != self._word:
            self._binder.attach(self)
        return max(self._cells[self._cell : self._cell + len(self.variants)].tolist())

    def say(self, place: int, after: float = 0.0) -> None:
        """Set a variant now; its time is later than `after` and all earlier times, even if the clock stands still."""
        while True:
            last = max(self.newest(), after)
            now, cell = max(exact.now(), math.nextafter(last, math.inf)), self._cell
            if self._write(place, now, cell):
                return

    def _write(self, place: int, when: float, cell: int) -> bool:
        if self._own == self._word and self._cell == cell:
            self._cells[cell + place] = when  # no call since the comparison: see `values`
            return True
        return False


def _binder(metric: Any) -> Binder | None:
    return values.ValueClass._binder if is_switched() and not is_private(metric) else None


def _variant(info: dict[str, str]) -> str:
    labels = exact.labels(info.keys(), info.values())
    return canonical_labels(labels, labels.values())


def _said_of_info(metric: Any, binder: Binder, variant: str) -> Said:
    return Said.of(metric, binder, f"{exact.name(metric._name)}_info", [variant])


def _said_of_enum(metric: Any, binder: Binder) -> Said | None:
    """Return the cells of a child of an Enum; None if its states were an iterator that is used up."""
    variants = list(dict.fromkeys(map(exact.name, metric._states)))
    return Said.of(metric, binder, exact.name(metric._name), variants) if variants else None


def info_init(self: Any) -> None:
    """Replaces `Info._metric_init`."""
    _peer_info_init(self)  # type: ignore[no-untyped-call]
    if (binder := _binder(self)) and not self._is_parent():
        if hasattr(self, "_said"):
            resets.begin_anew(self)
        self._said = _said_of_info(self, binder, _variant({}))


def enum_metric_init(self: Any) -> None:
    """Replaces `Enum._metric_init`; a second call is a reset."""
    _peer_enum_metric_init(self)
    if (binder := _binder(self)) and hasattr(self, "_said"):
        resets.begin_anew(self)
        self._said = _said_of_enum(self, binder)


def enum_init(self: Any, *args: Any, **kwargs: Any) -> None:
    """Replaces `Enum.__init__`; the states are not known before its end."""
    _peer_enum_init(self, *args, **kwargs)
    if (binder := _binder(self)) and self._is_observable():
        self._said = _said_of_enum(self, binder)


def info(self: Any, val: dict[str, str]) -> None:
    """Replaces `Info.info`."""
    said = _said_by(self)
    variant = "" if said is None else _variant(val)  # first: what a `__str__` raises leaves nothing half done
    _peer_info(self, val)
    if said is None:
        return
    if said.variants == [variant]:
        said.say(0)
        _release_unless_current(self, said)
    else:
        new = _said_of_info(self, said._binder, variant)
        new.say(0, after=said.newest())
        self._said = new
        _release_unless_current(self, said, new)


def _release_unless_current(metric: Any, *spoken: Said) -> None:
    """Give back the cells of the label sets that an Info had before.

    Several threads may call `info()` at once. Each gives back all label sets but the current one, those of the other
    threads included. If another thread was still setting one of them, that one has got new cells: hence `hold`.
    """
    if spoken == (metric.__dict__.get("_said"),):
        return
    all_spoken = metric.__dict__.setdefault("_spoken", {})
    all_spoken.update(dict.fromkeys(spoken))
    for one in list(all_spoken):
        if one is not metric.__dict__.get("_said"):
            all_spoken.pop(one, None)
            hold(one)
            one._binder.give_back(one)


def _said_by(metric: Any) -> Said | None:
    """Return the cells of an Info or Enum, or None; they are new if it was private until its registry was gone."""
    if "_said" not in metric.__dict__ and home_of(metric) is not None and not is_private(metric):
        convert(metric)
    said: Said | None = metric.__dict__.get("_said")
    return said


def state(self: Any, state: str) -> None:
    """Replaces `Enum.state`."""
    _peer_state(self, state)
    said = _said_by(self)
    if said is not None:
        said.say(said.place_of(self._states[self._states.index(state)]))


def convert(metric: Any) -> bool:
    """Move an Info or Enum to the store, or back to memory, as it is for values that are made now.

    Returns whether anything has changed. The object itself keeps its last label set or state.
    """
    binder = _binder(metric)
    metric.__dict__.pop("_spoken", None)
    if binder is None:
        said = metric.__dict__.pop("_said", None)
        if said is not None and is_private(metric):
            said._binder.give_back(said)
        return said is not None
    if "_said" in metric.__dict__:
        return False
    kept = metric._value
    is_info = isinstance(metric, Info)
    said = _said_of_info(metric, binder, _variant(kept)) if is_info else _said_of_enum(metric, binder)
    metric.__dict__["_said"] = said
    if kept and said is not None:  # else nothing was set yet
        said.say(0 if is_info else said.place_of(metric._states[kept]))
    return True


REPLACED: tuple[tuple[type, str, Any], ...] = (
    (Info, "_metric_init", info_init),
    (Info, "info", info),
    (Enum, "_metric_init", enum_metric_init),
    (Enum, "__init__", enum_init),
    (Enum, "state", state),
)
"""(class, name, what it becomes)"""
