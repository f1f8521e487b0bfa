"""One object for a child of a histogram: its sum and its buckets have cells in a row, so 16 objects are not needed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from ..cells import exact
from ..cells.shape import Samples, upper_bound
from ..values import Compatible
from .binder import Binder, Bound


class SharedBuckets(Bound, Sequence["Member"]):
    """The buckets of one child, as `prometheus_client` keeps them in ``_buckets``.

    The cell before the first bucket's has the sum. bounds: the upper bounds, ascending, the last one infinite.
    """

    __slots__ = ("_binder", "bounds")

    def __init__(self, binder: Binder, bounds: list[float]):
        super().__init__()
        self._binder = binder
        self.bounds = bounds

    @classmethod
    def of(cls, metric: Any, binder: Binder) -> SharedBuckets | None:
        """Return the buckets of a histogram's child; None if one object cannot have them all.

        That is the case if another object of this process has some of the samples already, and if bisection cannot
        search the bounds: one is NaN, or two are equal.
        """
        buckets, name = cls(binder, metric._upper_bounds), exact.name(metric._name)
        samples = _samples(name, tuple(metric._upper_bounds))
        labels = exact.labels(metric._labelnames, metric._labelvalues)
        is_whole = samples and binder.add_whole(
            buckets, (name, "histogram", ""), labels, samples, metric._documentation
        )
        return buckets if is_whole else None

    def total(self) -> Member:
        """Return the value that is the sum of all observations."""
        return Member(self, 0)

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [Member(self, 1 + one) for one in range(len(self.bounds))[place]]
        return Member(self, 1 + range(len(self.bounds))[place])


@functools.lru_cache(1000)
def _samples(name: str, bounds: tuple[float, ...]) -> Samples:
    """Return the samples of a child; () if its bounds are not strictly ascending."""
    if not all(below < above for below, above in pairwise(bounds)):
        return ()
    texts = [upper_bound(floatToGoString(bound)) for bound in bounds]  # type: ignore[no-untyped-call]
    return ((f"{name}_sum", ""), *((f"{name}_bucket", text) for text in texts))


class Member(Compatible):
    """One value of a histogram's child, with the methods of `SharedValue`."""

    _multiprocess = True
    __slots__ = ("_child", "_offset")

    def __init__(self, child: SharedBuckets, offset: int):
        self._child = child
        self._offset = offset

    def inc(self, amount: float) -> None:
        """Add `amount`."""
        amount, child, offset = exact.number(amount), self._child, self._offset
        while child._own != child._word:
            child._binder.attach(child)
        child._cells[child._cell + offset] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002 - the contract
        """Set the value."""
        value, child, offset = float(value), self._child, self._offset
        while child._own != child._word:
            child._binder.attach(child)
        child._cells[child._cell + offset] = value

    def get(self) -> float:
        """Return this process's own value."""
        child, offset = self._child, self._offset
        while child._own != child._word:
            child._binder.attach(child)
        return child._cells[child._cell + offset]

    def set_exemplar(self, exemplar: Exemplar) -> None:
        """Keep an exemplar, and show it to the other processes."""
        self._child._binder.set_exemplar(self._child, self._offset, exemplar)

    def get_exemplar(self) -> Exemplar | None:
        """Return this process's own newest exemplar."""
        return self._child._binder.get_exemplar(self._child, self._offset)
