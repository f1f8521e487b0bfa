"""The gauges that a forked process inherits, and which of them are there yet, and not removed since.

A process shows them at zero from its first operation on. Its parent's memory may be behind: it has not looked for the
marks since a removal, or is gone. Then the rows tell, which the flusher asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable

from .home import Home
from .shape import Key
from .writer import Writer

Seen = tuple[tuple[int, int], int]
"""The identity of a cells file, and how many removals there had been."""


class Inheritance:
    """What one process knows of the gauges that it has inherited, or leaves to those that it forks.

    waiting: gauges that it will have if they are in the rows. sure: those that it will have anyway, as soon as the
    flusher comes to them, and what says that they have not been removed meanwhile.
    """

    def __init__(self, home: Home, parent: Inheritance | None):
        self._home = home
        self._gauges: dict[object, dict[Key, None]] = parent._gauges if parent else {}
        """Those that this process has, or will have, and leaves, in the order in which they were made."""
        self._seen: Seen | None = parent._seen if parent else None
        self.waiting: list[tuple[Writer, Key]] = []
        self.sure: deque[tuple[Writer, Key, Container[Key]]] = deque()

    def gauges_of(self, value_class: object) -> dict[Key, None]:
        """Those of one value class, or of what stands for it, to be added to."""
        return self._gauges.get(value_class) or self._gauges.setdefault(value_class, {})

    def of_family(self, family: str) -> list[Key]:
        """Those of a family."""
        return [key for of_class in self._gauges.copy().values() for key in list(of_class) if key[0].family == family]

    def forget(self, keys: Iterable[Key]) -> None:
        """Have processes that are forked from now on not have these."""
        of_classes = list(self._gauges.values())
        for key in keys:
            for of_class in of_classes:
                of_class.pop(key, None)

    def now(self) -> Seen | None:
        """How many removals there have been."""
        return (self._home.file.identity, self._home.file.removals[0]) if self._home.is_open() else None

    def begin(self) -> None:
        """Know, in a process that has inherited nothing, that its memory is up to date."""
        self._seen = self._seen or self.now()

    def note(self, seen: Seen | None) -> None:
        """Know that this process has forgotten all that had been removed then."""
        if not self.waiting:
            self._seen = seen

    def note_own(self) -> None:
        """Know the removal that this process is carrying out, if it knows all before it; with the write lock held."""
        now = self.now()
        if now is not None and self._seen == (now[0], now[1] - 1):
            self._seen = now

    def are_up_to_date(self) -> bool:
        """Whether nothing has been removed that this process may not know of."""
        return self._seen is None or self._seen == self.now()
