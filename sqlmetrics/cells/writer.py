"""Which child of a process is in which cells."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ..client.binder import forget_inherited
from ..rows.exemplars import Kept, Series, record_of
from .arenas import PrivateArena, SharedArena
from .cellsfile import CellsFile
from .freed import Run
from .journal import TooLongError
from .selection import Selection, forgotten, told_of_removals
from .shape import LIVE_MODES, STATE_TYPES, Key, forget, forget_key, remember

Arena = SharedArena | PrivateArena
_REMEMBERED = 100
"""Files that a process has gone over from. Only the last few may come back, brought by a process that has them open."""


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


class Aside:
    """Where operations count that come in the middle of another one of their thread: in a signal handler, say.

    They must not touch what that one is about to change. When it is done, this is taken in.
    """

    def __init__(self) -> None:
        self.arenas: list[PrivateArena] = []
        self.places: dict[Key, Place] = {}

    def bind(self, key: Key, now: Place | None) -> Place:
        """Return a child's place here; a gauge goes on from what it shows where it is `now`, the others from 0."""
        if key not in self.places:
            place = private_place(self.arenas, key)
            if now is not None and key[0].type == "gauge":
                now.copy_to(place, key)
            self.places.setdefault(key, place)
        return self.places[key]


class Writer:
    """Where the children of one process instance are: in the cells file, or, for want of room, in memory."""

    def __init__(self, identifier: str):
        self.identifier = identifier
        self.shared: SharedArena | None = None
        self.private: list[PrivateArena] = []
        self.unfit: list[PrivateArena] = []  # of children whose records are too long for a journal: they stay here
        self.refused: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)  # (family, bytes) of such records
        self.known: dict[Key, Place] = {}
        self.aside = Aside()
        self.exemplars = Kept()
        self.lapsed: set[Key] = set()  # live gauges to be announced again
        self.lost: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)  # (store, instance) before it lost its cells

    def join(self, file: CellsFile, store: str) -> None:
        """Take a slot of the cells file of the store with that id. Raises OSError where there is no room."""
        self.shared = SharedArena(file, self.identifier, store, [lost for where, lost in self.lost if where == store])

    def arenas(self) -> list[SharedArena | PrivateArena]:
        """All that values may be bound to."""
        return [*([self.shared] if self.shared else []), *self.private, *self.unfit]

    def bind(self, key: Key, *, shared: bool) -> Place:
        """Return a child's place; a new one comes from the cells file if `shared`. Raises OSError for want of room."""
        place = self.known.get(key)
        if place is None:
            arena = self.shared if shared else None
            try:
                place = Place(arena, arena.place(key)) if arena else private_place(self.private, key)
            except TooLongError as error:
                place = self._refuse(key, error)
            remember(key)
            self.known[key] = place
        return place

    def _refuse(self, key: Key, error: TooLongError) -> Place:
        self.refused.append((key[0].family, error.length))
        return private_place(self.unfit, key)

    def announce_lapsed(self) -> None:
        """Announce the live gauges again whose rows may have been deleted. Raises OSError where there is no room."""
        while self.lapsed and self.shared:
            key = next(iter(self.lapsed))
            self.shared.announce_again(key, self.known[key].cell)
            self.lapsed.discard(key)

    def bind_aside(self, key: Key) -> Place:
        """Return a child's place for an operation in the middle of another one: where it is, or else aside."""
        known = self.known.get(key)
        return known if known is not None and known.arena.is_active() else self.aside.bind(key, known)

    def merge(self, key: Key, aside: Place, new: Place) -> None:
        """Take in what was counted aside; a gauge was set later than whatever was there."""
        is_gauge = key[0].type == "gauge"
        for offset in reversed(range(key[0].cells)):  # a timestamp is written after its value, which is behind it
            value = aside.arena.cells[aside.cell + offset]
            if is_gauge:
                new.arena.cells[new.cell + offset] = value
            else:
                new.arena.cells[new.cell + offset] += value

    def notice(self) -> None:
        """Find out what another process has done: it has removed series, or deleted the rows of the live gauges."""
        if self.shared:
            lapsed = self.shared.answer()
            self.forget_removed()
            if lapsed:
                placed = self._placed_in(SharedArena)
                self.lapsed.update(key for key, _ in placed if key[0].mode in LIVE_MODES)
            self.shared.resume()

    def forget_removed(self) -> None:
        """Forget the children whose series other processes have removed."""
        marked = self.shared.marked() if self.shared else set()
        if self.shared and marked:
            placed = self._placed_in(SharedArena)
            removed = {key[0].child(key[1]) for key, place in placed if place.cell + key[0].stamped in marked}
            # Also those of another mode, or other buckets, of which the rows know another cell or none.
            keys = [key for key in self.known if key[0].child(key[1]) in removed]
            self.shared.freed.leaving += self._forget(keys)
            forgotten.extend(keys)

    def detach(self, selection: Selection) -> list[Run]:
        """Forget children of this process that are selected, and return the cells that they had in the cells file."""
        keys = [key for key in selection.among(self.known) if key in self.known]
        runs = self._forget(keys)
        forgotten.extend(keys)
        if runs and self.shared:
            self.shared.renew()
        return runs

    def release(self, key: Key) -> None:
        """Forget a child of this process, for which another one has come."""
        place = self.known.pop(key, None)
        if place is not None and isinstance(place.arena, SharedArena):
            self.lapsed.discard(key)
            forget_key(key)
            forget_inherited([key])
            place.arena.freed.leaving.append(place.run(key))
            if key[0].type not in STATE_TYPES:  # a metric object may have it, too: it is to look for another place
                place.arena.renew()

    def give_up(self, keys: list[Key]) -> None:
        """Forget children of this process, and what it has counted of them; who uses one again begins at zero."""
        runs = self._forget([key for key in dict.fromkeys(keys) if key in self.known])
        if runs and self.shared:
            self.shared.freed.leaving += runs
            self.shared.renew()

    def cells_of(self, selection: Selection) -> Iterable[int]:
        """The cells in the cells file of those children of this process that are selected."""
        for key in selection.among(self.known):
            place = self.known.get(key)
            if place is not None and isinstance(place.arena, SharedArena):
                yield from range(place.cell, place.cell + key[0].cells)

    def _forget(self, keys: list[Key]) -> list[Run]:
        places = [(key, self.known.pop(key)) for key in keys]
        self.lapsed.difference_update(keys)
        forget(keys)
        forget_inherited(keys)
        self.exemplars.drop(keys)
        for tell in told_of_removals:
            tell(keys)
        for arena in {id(place.arena): place.arena for _, place in places}.values():
            if isinstance(arena, PrivateArena):
                arena.renew()
        return [place.run(key) for key, place in places if isinstance(place.arena, SharedArena)]

    def move_in(self) -> None:
        """Move the children that are in memory, with their values, to the cells file.

        Raises OSError where the room ends; what has not moved by then goes on in memory.
        """
        if self.shared is None:
            return
        for arena in self.private:
            arena.abandon()  # whoever uses a value meanwhile waits for its new place
        try:
            for key, place in self._placed_in(PrivateArena):
                if place.arena not in self.unfit:
                    self._move_in(key, place, self.shared)
        finally:
            left = {id(place.arena) for _, place in self._placed_in(PrivateArena)}
            self.private = [arena for arena in self.private if id(arena) in left]
            for arena in self.private:
                arena.renew()

    def _move_in(self, key: Key, place: Place, shared: SharedArena) -> None:
        new = Place(shared, shared.allocate(key[0].cells))
        place.copy_to(new, key)
        try:
            shared.announce_new(key, new.cell)
        except TooLongError as error:
            new = self._refuse(key, error)
            place.copy_to(new, key)
        self.known[key] = new

    def move_out(self, store: str) -> None:
        """Move all children, with their values, to memory: the cells file was replaced by another.

        store: the id of the store that it was of. Rows that it kept of this instance are not to be counted again.
        """
        old = self.shared
        if old is None:
            return
        self.forget_removed()
        old.leave_behind()
        for key, place in self._placed_in(SharedArena):
            new = private_place(self.private, key)
            place.copy_to(new, key)
            self.known[key] = new
        self.exemplars.tell_again()
        self.lost.append((store, old.instance))
        self.shared = None
        self.lapsed.clear()

    def start_anew(self) -> None:
        """Another process has settled this one: forget its cells, but not what is in memory only."""
        if self.shared is not None:
            self.shared.abandon()
        self.shared = None
        self.known = dict(self._placed_in(PrivateArena))
        self.exemplars = self.exemplars.only(self.known)
        self.lapsed.clear()

    def tell(self, series: Series) -> bool:
        """Append the newest exemplar of a series to the journal; False while its child has no cells in the file.

        Raises OSError where there is no room.
        """
        exemplar, place = self.exemplars.newest.get(series), self.known.get(series[0])
        if exemplar is None:
            return True  # forgotten meanwhile, with what its child has counted
        if place is not None and place.arena in self.unfit:
            return True  # it is nobody else's business
        if self.shared is None or place is None or place.arena is not self.shared:
            return False
        try:
            self.shared.journal.append(record_of(series, exemplar))
        except TooLongError as error:
            self.refused.append((series[0][0].family, error.length))
        return True

    def _placed_in(self, kind: type) -> list[tuple[Key, Place]]:
        return [(key, place) for key, place in self.known.items() if isinstance(place.arena, kind)]


def private_place(arenas: list[PrivateArena], key: Key) -> Place:
    """Take cells in the last of the arenas, or in a new one."""
    count = key[0].cells
    for arena in arenas[-1:]:
        if (cell := arena.place(count)) >= 0:
            return Place(arena, cell)
    arena = PrivateArena()
    arenas.append(arena)
    return Place(arena, arena.place(count))
