"""Exemplars on their way from the memory of a process to its journal.

The first of a series in a flush interval goes to the journal at once, so that others see it and a SIGKILL does not
take it along. Those that follow wait in memory, only the newest of each series, for the next flush: a busy process
writes two records per series and flush interval, however often it observes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from prometheus_client.samples import Exemplar

from . import chores, exact
from .records import exemplar_record
from .shape import Key

LIFE = 600.0
"""Seconds for which an exemplar is shown: the trace that it names may be gone after longer."""
AT_ONCE = 64
"""How many waiting exemplars are written to the journal before other threads may have the lock."""
BACKLOG = 64 * 1024
"""If more bytes of a journal are not rows yet, exemplars wait: flushes may be held up for long, and new children need
the room that is left."""
SHARE = 8
"""But exemplars do not wait as long as all journals take less than one part in so many of their room."""

TYPES = ("counter", "histogram")
"""The types of families whose samples can have an exemplar."""
Series = tuple[Key, int]
"""A child, and the place of the sample in it."""


def takes(typ: str, name: str, variant: str) -> bool:
    """Whether a sample can have an exemplar; the encoders raise an error for any other that has one."""
    return variant != "" if typ == "histogram" else typ == "counter" and name.endswith("_total")


def is_current(exemplar: Exemplar, now: float) -> bool:
    """Whether an exemplar is to be shown. now: seconds since the epoch."""
    return abs(now - float(exemplar.timestamp or 0.0)) <= LIFE


class Exemplars:
    """The newest exemplar of each series of one writer, and which of them are to go to its journal."""

    def __init__(self) -> None:
        self.newest: dict[Series, Exemplar] = {}
        self._noted: dict[Series, bool] = {}
        """The series with an exemplar since the last round, and whether it is to be written in the next one."""
        self._last_round = float("-inf")

    def put(self, series: Series, exemplar: Exemplar) -> bool:
        """Keep an exemplar; True if it is the first of its series since the last round, and to be written at once.

        Raises what the conversion of its texts and its value raises.
        """
        exemplar = _by_value(exemplar)
        is_first = series not in self._noted  # so that a full journal is not tried at each observation
        if is_first:
            (shape, _), position = series
            if not takes(shape.type, *shape.samples[position]):
                return False
        self.newest[series] = exemplar
        self._noted[series] = not is_first
        return is_first

    def wait(self, series: Iterable[Series]) -> None:
        """Have the exemplars of these series written in the next round."""
        self._noted.update(dict.fromkeys(series, True))

    def take_round(self, pause: float) -> list[Series]:
        """Return the series whose newest exemplar is to be written now; none if less than `pause` s have passed."""
        now = chores.now()  # freezegun does not freeze it
        if not self._noted or now < self._last_round + pause:
            return []
        self._last_round = now
        noted, self._noted = self._noted, {}
        return [series for series, waits in noted.copy().items() if waits]

    def is_waiting(self) -> bool:
        """Whether some exemplars are to be written."""
        return True in self._noted.copy().values()

    def tell_again(self) -> None:
        """Have all exemplars written again, because the journal is a new one."""
        self.wait(self.newest.copy())
        self._last_round = float("-inf")

    def drop(self, is_gone: Callable[[Key], bool]) -> None:
        """Forget the exemplars of children that are gone."""
        for series in [one for one in self.newest.copy() if is_gone(one[0])]:
            self.newest.pop(series, None)
            self._noted.pop(series, None)


def record_of(series: Series, exemplar: Exemplar) -> str:
    """Return the record of an exemplar: all that a reader needs. NaN and Inf are written as Python's json does."""
    (shape, labelvalues), position = series
    return exemplar_record(shape, position) + json.dumps([labelvalues, *exemplar[:3]])[1:]


def _by_value(exemplar: Exemplar) -> Exemplar:
    """Return a copy with a timestamp, as the app may change the labels. It takes half the time of Exemplar(...)."""
    value, timestamp = exemplar.value, exemplar.timestamp
    labels = {exact.text(name): exact.text(one) for name, one in exemplar.labels.items()}
    value = value if type(value) is float else exact.number(value)
    timestamp = exact.now() if timestamp is None else exact.seconds(timestamp)
    return tuple.__new__(Exemplar, (labels, value, timestamp))
