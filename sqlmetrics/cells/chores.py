"""Chores: work that certain events cause, and that the first process that comes along does.

The header of the cells file counts them. A process counts an event with SQLite's write lock held, before the COMMIT
that makes it true. So wherever a process is killed, the next one does the chore, at worst for nothing.
"""

from __future__ import annotations

import time


class Chore:
    """One chore.

    counts: how many events there were, and which of them was the last for which the chore is done.
    due: when the chore may be done again, in seconds of CLOCK_MONOTONIC, the same in all processes of a boot.
    """

    def __init__(self, counts: memoryview[int], due: memoryview[float]):
        self._counts = counts
        self._due = due

    def ask(self) -> None:
        """Count an event; call it within a transaction that writes."""
        self._counts[0] = (self._counts[0] + 1) % 2**64

    def state(self) -> tuple[int, int]:
        """Return both counts. If they are equal, and the same later, nobody did the chore meanwhile."""
        return self._counts[0], self._counts[1]

    def is_done(self) -> bool:
        """Whether the chore is done for all events."""
        return self._counts[0] == self._counts[1]

    def is_due(self) -> bool:
        """Whether the chore is to be done, and may be done now."""
        return not self.is_done() and not now() < self._due[0] <= now() + 86_400

    def note_done(self, event: int) -> None:
        """Note that the chore is done for an event and all before it. If two do it at once, it may be done again."""
        self._counts[1] = event

    def rest(self, seconds: float) -> None:
        """Let the chore be done again after so many seconds at the earliest."""
        self._due[0] = now() + seconds


def now() -> float:
    """Return the seconds of CLOCK_MONOTONIC."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
