"""The gauges that a forked process inherits from its parent.

The process shows them at zero from its first operation on, unless they were removed. Its parent's memory may not tell,
because the parent may not have looked for marks since the removal. Then the flusher asks the rows.
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
    """The gauges that one process has inherited, and leaves to processes that it forks.

    waiting: gauges that this process will have if they are in the rows. sure: gauges that it will have anyway, as soon
    as the flusher comes to them; each with a container that has it unless it is removed meanwhile.
    """

    def __init__(self, home: Home, parent: Inheritance | None):
        self._home = home
        self._gauges: dict[object, dict[Key, None]] = parent._gauges if parent else {}
        """By value class: the gauges that this process has or will have, in the order in which they were made."""
        self._seen: Seen | None = parent._seen if parent else None
        self.waiting: list[tuple[Writer, Key]] = []
        self.sure: deque[tuple[Writer, Key, Container[Key]]] = deque()

    def gauges_of(self, value_class: object) -> dict[Key, None]:
        """Return the gauges of one value class, or of an object that stands for it; the caller may add to them."""
        return self._gauges.get(value_class) or self._gauges.setdefault(value_class, {})

    def of_family(self, family: str) -> list[Key]:
        """Return the gauges of a family."""
        return [key for of_class in self._gauges.copy().values() for key in list(of_class) if key[0].family == family]

    def forget(self, keys: Iterable[Key]) -> None:
        """Forget gauges: processes that are forked from now on do not inherit them."""
        of_classes = list(self._gauges.values())
        for key in keys:
            for of_class in of_classes:
                of_class.pop(key, None)

    def now(self) -> Seen | None:
        """Return the cells file and its number of removals; None if there is no store."""
        return (self._home.file.identity, self._home.file.removals[0]) if self._home.is_open() else None

    def begin(self) -> None:
        """Note that the memory of a process that has inherited nothing is up to date."""
        self._seen = self._seen or self.now()

    def note(self, seen: Seen | None) -> None:
        """Note that this process has forgotten all that was removed up to that number."""
        if not self.waiting:
            self._seen = seen

    def note_own(self) -> None:
        """Note the removal of this process itself, if it knows all earlier ones. Call it with the write lock held."""
        now = self.now()
        if now is not None and self._seen == (now[0], now[1] - 1):
            self._seen = now

    def are_up_to_date(self) -> bool:
        """Whether this process knows of all removals."""
        return self._seen is None or self._seen == self.now()
