"""Children on the move: from cells files that were replaced, or from memory to a cells file that has room again.

A process may have very many children, and no operation waits until all of them have moved. So the move has a beginning,
which takes no longer for many, and then each child moves by itself: at its own next operation, or when the flusher
comes to it, which lets go of the lock under which children get their cells every few milliseconds.

Why nothing is lost or counted twice:

- The beginning sets the byte of the old arena that each operation compares, under the lock. An operation compares and
  adds in one go, so from then on the old cells do not change, and an operation on a child has to ask for its place.
- Whoever asks, an operation or the flusher, does so under the lock. A child is either in `Writer.moving`, and then its
  old cells have all that was counted, or it is where they were copied to. The copy is complete, and announced, before
  the child is known there, and it is known there before it is taken out of `Writer.moving`.
- An operation of a signal handler in the middle of this, in the thread that has the lock, counts aside, see `Aside`.
- The files may change again before all have moved. Then those that have moved leave again, from where they are; the
  others still wait in the cells that they never left. So `Writer.moving` is a list.
- A fork need not wait: the flusher ends its slice and gives the rest up, and goes on at its next flush. The forked
  child owns none of these cells and has nothing to move.
- Old rows of a process wait in the table `orphan` until its new journal says that their values are back. That journal
  is held back until all children have moved, so a process that is killed before leaves these rows as they were. In a
  store that has none of its rows, each child is shown as soon as it has moved.
- Where the room ends on the way, what was to leave memory stays there, and what was in other files goes to memory.
"""

from __future__ import annotations

from typing import NamedTuple

from .arenas import PrivateArena, SharedArena
from .freed import Run
from .shape import Key

Arena = SharedArena | PrivateArena


class Place(NamedTuple):
    """Where a child's cells are."""

    arena: Arena
    cell: int

    def run(self, key: Key) -> Run:
        """All of the child's cells."""
        return self.cell, key[0].cells

    def copy_to(self, new: Place, key: Key) -> None:
        """Copy the values of a child to cells that nobody uses yet."""
        count = key[0].cells
        new.arena.cells[new.cell : new.cell + count] = self.arena.cells[self.cell : self.cell + count]


class Moving:
    """Children that have to leave their cells. arenas: in memory, where they may stay if there is no room."""

    def __init__(self, places: dict[Key, Place], arenas: list[PrivateArena] | None = None):
        self.places = places
        self.arenas = arenas or []
        self._todo = list(places)

    def next(self) -> Key | None:
        """One that has not moved yet; None if all have."""
        while self._todo:
            if self._todo[-1] in self.places:
                return self._todo[-1]
            self._todo.pop()
        return None
