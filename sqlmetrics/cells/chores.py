"""What is to be done after certain events by whoever comes to it first: counted in the header of the cells file.

An event is counted with SQLite's write lock held, before the COMMIT that makes it true: so wherever a process is
killed, the next one finds that there is something to do, or does it once too often.
"""

from __future__ import annotations

import time


class Chore:
    """One of them.

    counts: how many events there were, and which of them was the last for which it is done.
    due: when it may be done again, in seconds of CLOCK_MONOTONIC, which is the same in all processes of a boot.
    """

    def __init__(self, counts: memoryview[int], due: memoryview[float]):
        self._counts = counts
        self._due = due

    def ask(self) -> None:
        """Count an event; call it within a transaction that writes."""
        self._counts[0] = (self._counts[0] + 1) % 2**64

    def state(self) -> tuple[int, int]:
        """Both counts. Where they are equal, and the same before and after something, nobody was at it meanwhile."""
        return self._counts[0], self._counts[1]

    def is_done(self) -> bool:
        """Whether nothing is to be done."""
        return self._counts[0] == self._counts[1]

    def is_due(self) -> bool:
        """Whether it is to be done, and now."""
        return not self.is_done() and not now() < self._due[0] <= now() + 86_400

    def note_done(self, event: int) -> None:
        """Note that it is done for an event and for all before it. Of two who do it at once, one may do it again."""
        self._counts[1] = event

    def rest(self, seconds: float) -> None:
        """Do it again after that time at the earliest."""
        self._due[0] = now() + seconds


def now() -> float:
    """Seconds of CLOCK_MONOTONIC."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
