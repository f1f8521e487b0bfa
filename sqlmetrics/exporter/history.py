"""The last minutes of a store, in memory only: a thread looks again and again, and takes little CPU and memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import apsw

from ..errors import SQLMetricsError
from ..outside.sights import Sight, Sights
from .watched import Watched

log = logging.getLogger("sqlmetrics")

_SPAN = 300.0
"""How many seconds are kept."""
_BYTES = 32 * 1024 * 1024
"""How much memory all looks may take, roughly; but the last two are always kept."""
_BUSY, _IDLE = 2.0, 10.0
"""Seconds between two looks while a page is open, and while none is."""
_FEWEST = 2
_SHORTEST = 0.1
_WATCHED = 15.0
"""A page that has asked for nothing for so many seconds is taken to be closed."""
_SHARE = 0.02
"""The share of the time that looks may take: if a large store makes them long, there are fewer."""


class History:
    """The states of a store in the last minutes. While nobody asks for them, it looks only every ten seconds."""

    def __init__(self, store: Watched, clock: Callable[[], float] = time.monotonic):
        self._store, self._clock = store, clock
        self._sights = Sights()
        self._kept: deque[Sight] = deque()
        self._cost = 0.0
        self._asked = self._taken = -_SPAN
        self._wake, self._taking = threading.Event(), threading.Lock()

    def start(self) -> None:
        """Begin to look, in a daemon thread."""
        threading.Thread(target=self._run, name="sqlmetrics-history", daemon=True).start()

    def kept(self) -> list[Sight]:
        """Return the states, the newest last; looks now if that one is old. Raises as `Look` does."""
        self._asked = self._clock()
        self._wake.set()
        self._take_if_due()
        return list(self._kept)

    def _take_if_due(self) -> None:
        """Look if the last look is old; one thread at a time, so that no two looks are of the same moment."""
        with self._taking:
            if not self._kept or self._clock() - self._taken >= self._pause():
                self.take()

    def take(self) -> None:
        """Look now. Raises as `Look` does."""
        begun = time.perf_counter()
        self._taken = self._clock()
        sight = self._sights.take(self._store.look())
        self._cost = time.perf_counter() - begun
        self._kept.append(sight)
        self._forget()

    def _forget(self) -> None:
        """Drop states that are old, or more than there is room for."""
        kept, size = self._kept, sum(one.bytes for one in self._kept)
        while len(kept) > _FEWEST and (size > _BYTES or kept[-1].at - kept[0].at > _SPAN):
            size -= kept.popleft().bytes

    def _pause(self) -> float:
        is_watched = self._clock() - self._asked < _WATCHED
        return max(_BUSY if is_watched else _IDLE, self._cost / _SHARE)

    def _run(self) -> None:
        while True:
            self._wake.wait(max(self._taken + self._pause() - self._clock(), _SHORTEST))
            self._wake.clear()
            try:
                self._take_if_due()
            except (SQLMetricsError, apsw.Error, OSError):
                self._kept.clear()  # the next question gets the reason
                time.sleep(_BUSY)
            except Exception:
                log.exception("the history of the page could not be brought up to date")
                time.sleep(_IDLE)
