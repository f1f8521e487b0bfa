"""What a process tells the others beside its children: what comes up about families, and exemplars."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.samples import Exemplar

from . import exemplars
from .exemplars import Series
from .shape import Family, abouts

if TYPE_CHECKING:
    from .part import Part
    from .writer import Writer


_WAIT = 0.05
"""Seconds for another thread that binds. A metric is registered with no lock held that anybody would wait for."""


class Teller:
    """Writes to the journals of one process's writers."""

    def __init__(self, part: Part):
        self._part = part

    def describe(self, family: Family) -> None:
        """Tell others of what has come up about a family that they know; if that has to wait, the next flush does."""
        with self._part.binding(_WAIT) as outermost:
            if outermost:
                self._tell([family])

    def tell_families(self) -> None:
        """Tell others of what has come up about families that they know."""
        with self._part.binding() as outermost:
            if outermost:
                self._tell(list(abouts))

    def _tell(self, families: list[Family]) -> None:
        for writer in self._part.writers.copy().values():
            for family in families:
                if writer.shared is not None and writer.shared.has_told_less(family):
                    self._part.attempt("find room in the cells file", partial(writer.shared.describe, family))

    def keep_exemplar(self, identifier: str, series: Series, exemplar: Exemplar) -> None:
        """Keep an exemplar of a writer of that name, and tell the others at once if it is the first for a while.

        What cannot be told within a moment is told by the next flush.
        """
        writer = self._part.writers.get(identifier) or self._part.writer(identifier, False)
        if writer.exemplars.put(series, exemplar):
            with self._part.binding(exemplars.WAIT) as outermost:
                told = outermost and self._tell_at_once(self._part.writer(identifier, True), series)
            if not told:
                writer.exemplars.wait([series])

    @staticmethod
    def _tell_at_once(writer: Writer, series: Series) -> bool:
        if writer.shared is None or writer.shared.backlog() > exemplars.BACKLOG:
            return False
        with contextlib.suppress(OSError):  # no room; the children that find none say so
            return writer.tell(series)
        return False

    def newest_exemplar(self, identifier: str, series: Series) -> Exemplar | None:
        """The newest that this process has of a series."""
        writer = self._part.writers.get(identifier)
        return writer.exemplars.newest.get(series) if writer else None

    def tell_exemplars(self, pause: float) -> None:
        """Tell the others those that wait, unless that was done less than `pause` seconds ago."""
        for writer in self._part.writers.copy().values():
            waiting = writer.exemplars.take_round(pause)
            for start in range(0, len(waiting), exemplars.AT_ONCE):
                some = waiting[start : start + exemplars.AT_ONCE]
                with self._part.binding() as outermost:
                    left = self._tell_some(writer, some) if outermost else some
                writer.exemplars.wait(left)

    def _tell_some(self, writer: Writer, some: list[Series]) -> list[Series]:
        """Tell some, and return those that must wait."""
        shared = writer.shared
        if shared is None or not shared.is_mine() or not shared.has_room_to_spare():
            return some
        left = list(some)
        with contextlib.suppress(OSError):
            left = [series for series in some if not writer.tell(series)]
        return left
