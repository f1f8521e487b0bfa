"""The newest exemplar of each series that a reader has met, in rows or in journals.

A reader keeps an exemplar until there is a newer one, or it is too old: one in a journal becomes a row anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import apsw
from prometheus_client.samples import Exemplar

from ..cells import exact
from ..cells.exemplars import is_current, takes
from ..cells.records import ExemplarRecord
from ..rows.exemplars import exemplar_of
from .plan import FamilyId, Gauge, Lines, Plan

SELECT_CHANGED = """
SELECT family.name, family.type, series.id, series.name, series.variant,
       exemplar.labels, exemplar.value, exemplar.timestamp
  FROM exemplar JOIN series ON series.id = exemplar.series JOIN family ON family.id = series.family
 WHERE exemplar.changed > ?
"""
NO_EXEMPLARS: Mapping[int, Exemplar] = MappingProxyType({})


class Newest:
    """The newest exemplars by family and position."""

    def __init__(self) -> None:
        self._known: dict[FamilyId, dict[int, Exemplar]] = {}
        self._read = 0

    def catch_up(self, connection: apsw.Connection, plan: Plan, changed: int) -> None:
        """Read the rows that have changed. changed: the counter in the table `store`."""
        if changed == self._read:
            return
        since = self._read if self._read < changed else 0
        rows: list[Any] = connection.execute(SELECT_CHANGED, (since,)).fetchall()
        for family, typ, series, name, variant, labels, value, timestamp in rows:
            if takes(typ, name, variant):
                self._add((family, typ), plan.place_of_row(series), exemplar_of(labels, value, timestamp))
        self._read = changed

    def note(self, plan: Plan, record: ExemplarRecord) -> None:
        """Take an exemplar from a journal, unless its series is gone."""
        family, typ, labels, name, variant = record.series()
        place = plan.known_place((family, typ), name, labels, variant)
        if place is not None and takes(typ, name, variant):
            self._add((family, typ), place, Exemplar(record.exemplar, record.value, record.timestamp))

    def _add(self, family: FamilyId, place: int | Gauge, exemplar: Exemplar) -> None:
        if not isinstance(place, int):
            return  # a counter that is shown for each process
        known = self._known.setdefault(family, {})
        if place not in known or known[place].timestamp <= exemplar.timestamp:  # type: ignore[operator]
            known[place] = exemplar

    def of(self, family: FamilyId, lines: Lines) -> Mapping[int, Exemplar]:
        """Return the exemplars of a family that are not too old, by the numbers of their lines."""
        known = self._known.get(family)
        if not known:
            return NO_EXEMPLARS
        now = exact.now()
        known = self._known[family] = {place: one for place, one in known.items() if is_current(one, now)}
        numbers = lines.numbers()
        return {numbers[place]: one for place, one in known.items()}


def among(exemplars: Mapping[int, Exemplar], chosen: Sequence[bool]) -> Mapping[int, Exemplar]:
    """Return the exemplars of the chosen lines, by their numbers among these."""
    if not exemplars:
        return exemplars
    numbers = list(accumulate(chosen, initial=0))
    return {numbers[number]: one for number, one in exemplars.items() if chosen[number]}
