"""`Info` and `Enum` across processes: whoever spoke last is heard; see `states` for what a scrape makes of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from prometheus_client import Enum, Info, values

from ..cells import given, layout
from ..cells.shape import canonical_labels, family_of
from ..values import SharedValue
from . import resets
from .binder import UNBOUND, Binder, Bound, hold
from .private import home_of, is_private

_peer_info_init = Info._metric_init
_peer_info = Info.info
_peer_enum_metric_init = Enum._metric_init
_peer_enum_init = Enum.__init__
_peer_state = Enum.state


MOST_STATES = layout.BLOCK_CELLS - layout.FIRST_CELL
"""A child's cells are in one block."""


class Said(Bound):
    """The cells of a child: when this process last said each of its variants, in seconds since the epoch."""

    __slots__ = ("__weakref__", "_binder", "variants")

    def __init__(self, binder: Binder, variants: Sequence[str]):
        super().__init__()
        self._binder = binder
        self.variants = variants

    @classmethod
    def of(cls, metric: Any, binder: Binder, sample: str, variants: Sequence[str]) -> Said:
        """Those of a child of an Info or an Enum; as long as all are 0, the first is what it says."""
        if len(variants) > MOST_STATES:
            raise ValueError(f"{metric._name} has {len(variants)} states; in a store it can have {MOST_STATES} at most")
        said = cls(binder, variants)
        labels = given.labels(metric._labelnames, metric._labelvalues)
        binder.add_apart(
            said, family_of(metric), labels, tuple((sample, one) for one in variants), metric._documentation
        )
        return said

    def place_of(self, state: object) -> int:
        """The place of a state, one of the metric's own objects, of which two may have the same text."""
        return self.variants.index(given.name(state))

    def newest(self) -> float:
        """When this process last said anything; 0.0: never."""
        if self._binder.identify is not os.getpid and self._binder.has_left(self._named):
            self._own = UNBOUND
        while self._own != self._word:
            self._binder.attach(self)
        return max(self._cells[self._cell : self._cell + len(self.variants)].tolist())

    def say(self, place: int, after: float = 0.0) -> None:
        """Say a variant, now; but later than `after` and than what was said before, also if the clock stands still."""
        while True:
            last = max(self.newest(), after)
            now, cell = max(given.now(), math.nextafter(last, math.inf)), self._cell
            if self._write(place, now, cell):
                return

    def _write(self, place: int, when: float, cell: int) -> bool:
        if self._own == self._word and self._cell == cell:
            self._cells[cell + place] = when  # no call since the comparison: see `values`
            return True
        return False


def _binder(metric: Any) -> Binder | None:
    kind = values.ValueClass
    if is_private(metric):
        return None
    return kind._binder if isinstance(kind, type) and issubclass(kind, SharedValue) else None


def _variant(info: dict[str, str]) -> str:
    labels = given.labels(info.keys(), info.values())
    return canonical_labels(labels, labels.values())


def _said_of_info(metric: Any, binder: Binder, variant: str) -> Said:
    return Said.of(metric, binder, f"{given.name(metric._name)}_info", [variant])


def _said_of_enum(metric: Any, binder: Binder) -> Said | None:
    """Those of a child of an Enum; None of states that could be gone through only once."""
    variants = list(dict.fromkeys(map(given.name, metric._states)))
    return Said.of(metric, binder, given.name(metric._name), variants) if variants else None


def info_init(self: Any) -> None:
    """`Info._metric_init`."""
    _peer_info_init(self)  # type: ignore[no-untyped-call]
    if (binder := _binder(self)) and not self._is_parent():
        if hasattr(self, "_said"):
            resets.begin_anew(self)
        self._said = _said_of_info(self, binder, _variant({}))


def enum_metric_init(self: Any) -> None:
    """`Enum._metric_init`; called again it is a reset."""
    _peer_enum_metric_init(self)
    if (binder := _binder(self)) and hasattr(self, "_said"):
        resets.begin_anew(self)
        self._said = _said_of_enum(self, binder)


def enum_init(self: Any, *args: Any, **kwargs: Any) -> None:
    """`Enum.__init__`; only at its end are the states known."""
    _peer_enum_init(self, *args, **kwargs)
    if (binder := _binder(self)) and self._is_observable():
        self._said = _said_of_enum(self, binder)


def info(self: Any, val: dict[str, str]) -> None:
    """`Info.info`."""
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
    """Give back the cells of what an Info said before.

    Several threads may speak at once: each leaves one word current, and the words of all others are seen to by
    whoever finds them here. A word that was given back while a thread was saying it has cells again: hence `hold`.
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
    """What a metric says to all, also if it was private until its registry was gone."""
    if "_said" not in metric.__dict__ and home_of(metric) is not None and not is_private(metric):
        convert(metric)
    said: Said | None = metric.__dict__.get("_said")
    return said


def state(self: Any, state: str) -> None:
    """`Enum.state`."""
    _peer_state(self, state)
    said = _said_by(self)
    if said is not None:
        said.say(said.place_of(self._states[self._states.index(state)]))


def convert(metric: Any) -> bool:
    """Have an Info or Enum speak to all, or again in its own process only, as the values of metrics do now.

    Returns whether that is another than it did before. What it said last it knows by itself.
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
    if kept and said is not None:  # else it is what it began with
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
