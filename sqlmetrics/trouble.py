"""Trouble with the store while the app runs: logged once per cause, counted, and forgotten when it is over."""

from __future__ import annotations

import logging
from collections import Counter, deque

CAUSES = ("cells", "closed", "damaged", "flush", "notice", "removal", "replaced", "types")
"""What trouble there can be; see the page of errors in the documentation."""

log = logging.getLogger("sqlmetrics")


class Trouble:
    """Collects what went wrong. Reporting takes no lock and calls no log handler; the flusher does that."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._current: set[str] = set()
        self._unlogged: deque[tuple[int, str]] = deque()

    def report(self, cause: str, message: str) -> None:
        """Count a cause; the first time since it was last over, log its message at the next `write_log`."""
        self.counts[cause] += 1
        if cause not in self._current:
            self._current.add(cause)
            self._unlogged.append((logging.WARNING, message))

    def over(self, cause: str, message: str) -> None:
        """Say that a cause is gone, if it was there."""
        if cause in self._current:
            self._current.discard(cause)
            self._unlogged.append((logging.INFO, message))

    def write_log(self) -> None:
        """Hand what was reported to the logger; call it with no lock of this package held."""
        while self._unlogged:
            level, message = self._unlogged.popleft()
            log.log(level, message)
