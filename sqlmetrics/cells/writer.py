"""Keeps which child of a process is in which cells.

Children may be on the move: from cells files that were replaced, or from memory to a cells file that has room again.

A process may have very many children, and no operation waits until all of them have moved. So the move has a beginning,
which takes no longer for many, and then each child moves by itself: at its own next operation, or when the flusher
comes to it, which lets go of the lock under which children get their cells every few milliseconds.

Why nothing is lost or counted twice:

- The beginning sets the byte of the old arena that each operation compares, under the lock. An operation compares and
  adds in one go, so from then on the old cells do not change, and an operation on a child has to ask for its place.
- An operation or the flusher asks for it under the lock. Either a child's place is in an arena that is left: then its
  cells have all that was counted. Or it is the place of the copy, which is complete and announced before that.
- An operation of a signal handler in the middle of this, in the thread that has the lock, counts aside, see `Aside`.
- The files may change again before all children have moved. Then those that have moved leave their new cells again; the
  others still wait in their first cells.
- A fork need not wait: the flusher ends its slice and gives the rest up, and goes on at its next flush. The forked
  child owns none of these cells and has nothing to move.
- Old rows of a process wait in the table `orphan` until its new journal says that their values are back. That journal
  is held back until all children have moved, so a process that is killed before leaves these rows as they were. In a
  store that has none of its rows, each child is shown as soon as it has moved.
- If the room ends on the way, children that were to leave memory stay there, and those in other files go to memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from .arenas import Arena, Place, PrivateArena, SharedArena, private_place
from .cellsfile import CellsFile
from .exemplars import TYPES, Exemplars, Series, record_of
from .journal import TooLongError
from .shape import Key, remember, remember_new, siblings_of

_AT_ONCE = 200
"""How many removed children one operation forgets; it takes 1 or 2 ms. The flusher forgets the rest."""
_REMEMBERED = 100
"""How many of the files that a process has left it remembers. Only the last few may come back, with a process that has
them open."""


class Aside:
    """Cells for operations that interrupt another one of their thread, in a signal handler, say.

    They must not touch what the interrupted one is about to change. When it is done, their counts are added.
    """

    def __init__(self) -> None:
        self.arenas: list[PrivateArena] = []
        self.places: dict[Key, Place] = {}

    def bind(self, key: Key, now: Place | None) -> Place:
        """Return a child's place here. A gauge begins with its value at its place `now`, any other with 0."""
        if key not in self.places:
            place = private_place(self.arenas, key)
            if now is not None and key[0].type == "gauge":
                now.copy_to(place, key)
            self.places.setdefault(key, place)
        return self.places[key]


class Writer:
    """The places of the children of one process instance.

    places: of each child. private: arenas in memory, for children until the cells file has room for them.
    unfit: arenas in memory, for children whose records are too long for a journal. moving: children that are on the
    move, see above, and others that were. note_removed: called with the children that other processes have removed.
    """

    def __init__(self, identifier: str, note_removed: Callable[[list[Key]], None]):
        self.identifier = identifier
        self._note_removed = note_removed
        self.places: dict[Key, Place] = {}
        self.shared: SharedArena | None = None
        self.private: list[PrivateArena] = []
        self.unfit: list[PrivateArena] = []
        self.moving: list[Key] = []
        self._leaving: list[PrivateArena] = []  # arenas in memory that children are leaving
        self._wanted = 0  # how many cells the last child took in memory
        self.gone: dict[Key, None] = {}
        """Children that other processes have removed, and that are still to be forgotten, see `forget_gone`."""
        self.refused: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)  # (family, bytes) of records too long
        self.aside = Aside()
        self.exemplars = Exemplars()
        self.lapsed: dict[Key, None] = {}  # live gauges to be announced again
        self.has_moved = False
        self.is_full = False
        """Whether there was no room for one of the moving children."""
        self.is_announcing = False
        """Whether an operation has begun to announce `lapsed` ones, and the flusher is to go on."""
        self.lost: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)  # (store, instance) whose cells this one has lost

    def join(self, file: CellsFile, store: str) -> None:
        """Take a slot of the cells file of the store with that id. Raises OSError where there is no room."""
        lost = [lost for where, lost in self.lost if where == store]
        held_back = bool(lost and (self.moving or self.private))
        self.shared = SharedArena(file, self.identifier, store, lost, is_held_back=held_back)

    def arenas(self) -> list[Arena]:
        """Return all arenas that values may be bound to."""
        return [*([self.shared] if self.shared else []), *self.private, *self.unfit]

    def bind(self, key: Key, *, shared: bool) -> Place:
        """Return a child's place; a new one comes from the cells file if `shared`. Raises OSError for want of room.

        A child that is on the move takes its values along, see above.
        """
        if self.gone:
            self._forget_if_gone(key)
        place = self.places.get(key)
        if place is None or place.arena.is_left:
            place = self.places[key] = self._place(key, place, shared=shared)
            remember(key)
        return place

    def _place(self, key: Key, former: Place | None, *, shared: bool) -> Place:
        if not shared or self.shared is None:
            self._wanted = key[0].cells
            return private_place(self.private, key, former)
        try:
            return self.shared.place(key, former)
        except TooLongError as error:
            self.refused.append((key[0].family, error.length))
            return private_place(self.unfit, key, former)

    def place_new(self, key: Key, created: float | None) -> Place | None:
        """Place a child that is new to this process, in the usual case; None otherwise, then `bind` is needed.

        created: see `SharedArena.place`. Call it inside `binding`.
        """
        shared = self.shared
        if shared is None or shared.own[0] != shared.word[0]:
            return None
        if self.moving or self.private or self.unfit or self.lapsed or self.gone:
            return None
        if key in self.places or not remember_new(key):
            return None
        try:
            place = self.places[key] = shared.place(key, None, created)
        except OSError:
            return None
        return place

    def announce_lapsed(self, count: int) -> bool:
        """Announce so many live gauges again whose rows may have been deleted; True if there are more.

        Raises OSError where there is no room.
        """
        for key in list(islice(self.lapsed, count)):
            self.announce_again(key)
        self.is_announcing = bool(self.lapsed)
        return self.is_announcing

    def announce_again(self, key: Key) -> None:
        """Announce a `live*` gauge again. Raises OSError if there is no room."""
        place = self.places.get(key)
        if self.shared and key not in self.gone and place and place.arena is self.shared:
            self.shared.announce_again(key, place.cell)
        self.lapsed.pop(key, None)

    def bind_aside(self, key: Key) -> Place:
        """Return a child's place for an operation that interrupts another one: its own, or else one aside."""
        known = self.places.get(key)
        return known if known is not None and known.arena.is_active() else self.aside.bind(key, known)

    def merge(self, key: Key, aside: Place, new: Place) -> None:
        """Add what was counted aside to a child; a gauge takes over the value, which was set later."""
        is_gauge = key[0].type == "gauge"
        for offset in reversed(range(key[0].cells)):  # a timestamp is written after its value, which is behind it
            value = aside.arena.cells[aside.cell + offset]
            if is_gauge:
                new.arena.cells[new.cell + offset] = value
            else:
                new.arena.cells[new.cell + offset] += value

    def notice(self) -> None:
        """Find out what another process has done: removed series, or deleted the rows of the `live*` gauges."""
        if self.shared:
            lapsed = self.shared.answer()
            self.forget_removed()
            if lapsed:
                self.lapsed.update(self.shared.live)
            self.shared.resume()

    def forget_removed(self) -> None:
        """Forget children whose series other processes have removed, or the first of many; see `forget_gone`."""
        if self.shared and (removed := self.shared.removed()):
            self.gone.update(dict.fromkeys(removed))
            self.forget_gone()

    def forget_gone(self) -> bool:
        """Forget some of the children that are to be forgotten; True if there are more.

        If there are many, each is forgotten at its own next operation, or when the flusher comes to it. All values are
        bound again first, see `notice`.
        """
        self._forget_removed(list(islice(self.gone, _AT_ONCE)))
        return bool(self.gone)

    def _forget_removed(self, removed: list[Key]) -> None:
        # And those of another mode, or with other buckets: the rows may have another cell for them, or none.
        siblings = dict.fromkeys(sibling for key in removed for sibling in siblings_of(key))
        keys = list({**siblings, **dict.fromkeys(removed)})
        self._forget(keys)
        self._note_removed(keys)

    def _forget_if_gone(self, key: Key) -> None:
        removed = [one for one in (key, *siblings_of(key)) if one in self.gone]
        if removed:
            self._forget_removed(removed)

    def give_back(self, keys: Iterable[Key], *, are_unbound: bool = False) -> None:
        """Forget children, and what this process has counted in them. A child that is used again begins at zero.

        are_unbound: whether no value is bound to their cells any more.
        """
        if self._forget(keys) and self.shared and not are_unbound:
            self.shared.renew()

    def _forget(self, keys: Iterable[Key]) -> bool:
        """Forget children, and give back their cells; True if there are some in the cells file."""
        places = [(key, place) for key in keys if (place := self._pop(key))]
        told = {key for key, _ in places if key[0].type in TYPES}
        if told:
            self.exemplars.drop(told.__contains__)
        arenas = {place.arena for _, place in places}
        for arena in arenas:
            if isinstance(arena, PrivateArena) and arena.is_active():
                arena.renew()
        return self.shared in arenas

    def _pop(self, key: Key) -> Place | None:
        """Forget a child, and return its place."""
        place = self.places.pop(key, None)
        self.lapsed.pop(key, None)
        self.gone.pop(key, None)
        if self.shared and place is not None and place.arena is self.shared:
            self.shared.give_back(key, place.cell)
        return place

    # --- moving: see above --------------------------------------------------------------------------------

    def move_out(self, store: str) -> None:
        """Begin to move all children, with their values, out of a cells file that was replaced.

        store: the id of its store. The rows of this instance in that store are not to be counted a second time.
        """
        old = self.shared
        if old is None:
            return
        self.forget_removed()
        old.leave_behind()
        self._leave_shared(old)
        self.exemplars.tell_again()
        self.lost.append((store, old.instance))

    def start_anew(self) -> None:
        """Forget the cells of this process, which another process has settled; keep children in memory.

        What was held back from others was not settled, so it moves to other cells.
        """
        old = self.shared
        if old is not None:
            old.abandon()
            if old.journal.is_held_back:
                old.leave_behind()
            else:
                self.places = {key: place for key, place in self.places.items() if place.arena is not old}
                self.gone = {}
            self._leave_shared(old)
        self.exemplars.drop(lambda key: key not in self.places)
        self.exemplars.tell_again()

    def _leave_shared(self, old: SharedArena) -> None:
        if old.is_left:
            self.moving = list(self.places)
        self.has_moved = True
        self.shared, self.lapsed, self.is_announcing = None, {}, False

    def has_room(self) -> bool:
        """Whether the cells file would take one of the children that are in memory. Raises OSError if it would not."""
        if not self.private or self.shared is None:
            return False
        self.shared.take_back(self.shared.allocate(self._wanted), self._wanted)
        return True

    def leave_memory(self) -> None:
        """Begin to move the children that are in memory to the cells file."""
        for arena in self.private:
            arena.leave_behind()
        self._leaving, self.private = self._leaving + self.private, []
        self.moving, self.has_moved = list(self.places), True

    def stay_in_memory(self) -> None:
        """Keep the children in memory that have not left it yet: there is no room any more."""
        self.is_full = True
        for arena in self._leaving:
            arena.is_left = False
            arena.renew()
        self.private, self._leaving = self._leaving + self.private, []

    def next_moving(self) -> Key | None:
        """Return one of the children that have not moved yet; None if all have."""
        while self.moving:
            key = self.moving[-1]
            place = self.places.get(key)
            if place is None or not place.arena.is_left:
                self.moving.pop()
            elif key in self.gone:
                self._forget_if_gone(key)
            else:
                return key
        return None

    def end_move(self) -> bool:
        """If all children have moved, publish them; True if some have moved, and none is left in memory."""
        if self.shared is None or self.moving:
            return False
        self._leaving = []
        self.shared.publish()
        has_moved, self.has_moved = self.has_moved, False
        return has_moved and not self.private

    def tell(self, series: Series) -> bool:
        """Append the newest exemplar of a series to the journal; False while its child has no cells in the file.

        Raises OSError where there is no room.
        """
        exemplar = self.exemplars.newest.get(series)
        if exemplar is None:
            return True  # forgotten meanwhile, with what its child has counted
        place = self.places.get(series[0])
        if place is None or self.shared is None or place.arena is not self.shared:
            return place is not None and place.arena in self.unfit  # those are not written at all
        try:
            self.shared.journal.append(record_of(series, exemplar))
        except TooLongError as error:
            self.refused.append((series[0][0].family, error.length))
        return True
