"""Which of the gauges that a forked process inherits are there yet, and not removed since.

A process shows them at zero from its first operation on. Its parent's memory may be behind: it has not looked for the
marks since a removal, or is gone. Then the rows tell, which the flusher asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import TYPE_CHECKING

import apsw

from ..client.binder import forget_inherited
from ..rows import settle
from . import marks
from .selection import Selection
from .shape import Key

if TYPE_CHECKING:
    from ..store import Store
    from .writer import Writer

Seen = tuple[tuple[int, int], int]
"""The identity of a cells file, and how many removals there had been."""


class Heirs:
    """What one process knows of the gauges that it has inherited, or leaves to those that it forks.

    waiting: gauges that it will have if they are in the rows. sure: those that it will have anyway, as soon as the
    flusher comes to them, and what says that they have not been removed meanwhile.
    """

    def __init__(self, store: Store, parent: Heirs | None):
        self._store = store
        self._seen: Seen | None = parent._seen if parent else None
        self.waiting: list[tuple[Writer, Key]] = []
        self.sure: deque[tuple[Writer, Key, Container[Key]]] = deque()

    def place_one(self) -> bool:
        """Give this process one of the gauges that it is sure to have; False if there is none. Inside `binding`."""
        if not self.sure:
            return False
        writer, key, inherited = self.sure.popleft()
        part = self._store.part
        if key in inherited and part.writers.get(writer.identifier) is writer:
            part.place(writer, key, True)
        return True

    def now(self) -> Seen | None:
        """How many removals there have been."""
        return (self._store.file.identity, self._store.file.removals[0]) if self._store.is_open() else None

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


def bring(connection: apsw.Connection, store: Store) -> None:
    """Give a process those of the gauges that it waits for which are in rows. Raises apsw.Error."""
    heirs = store.part.heirs
    waiting = list(heirs.waiting)
    if not waiting:
        return
    with settle.settling(connection, store.file):
        marks.catch_up(connection, store.file)
        gone = {key for _, key in waiting if not _is_in_rows(connection, key)}
    with store.part.binding():
        forget_inherited(key for key in gone if not store.part.has_known(key))
        heirs.sure.extend((writer, key, {key}) for writer, key in waiting if key not in gone)
        del heirs.waiting[: len(waiting)]
    store.part.in_slices(heirs.place_one)


def _is_in_rows(connection: apsw.Connection, key: Key) -> bool:
    shape, values = key
    labels = dict(zip(shape.labelnames, values, strict=True))
    return bool(Selection(shape.family, shape.type, labels, whole=True).series(connection))
