"""A process's own part of a store: its writers, and the lock under which its children get their cells.

An operation on a child that has its cells needs none of this.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from prometheus_client.samples import Exemplar

from ..process import fork, native, waits
from . import exemplars
from .arenas import LONGEST_HELP, Place, SharedArena
from .exemplars import Series
from .home import Home
from .inheritance import Inheritance
from .journal import LONGEST
from .selection import Selection, removal_listeners
from .shape import Family, Key, forget, metadata
from .writer import Aside, Writer

T = TypeVar("T")
_SLICE_SECONDS = 0.003
_BREAK_SECONDS = 0.0003
_AT_ONCE = 100
"""How many children one operation announces again; it takes 0.5 ms. The flusher announces the rest."""


def take_break() -> None:
    """Let other threads have the lock: without a pause, this thread would take it again before any that waits.

    Raises GaveWayError if another thread waits to fork.
    """
    fork.give_way()
    native.sleep(_BREAK_SECONDS)


class Part:
    """The writers of one process, by their names.

    lock: under which children get their cells, see `binding`. depth: how often the thread that has the lock is inside
    `binding`. has_aside: whether something was counted aside meanwhile.
    """

    def __init__(self, home: Home, parent: Part | None = None):
        self._home = home
        # A forked process frees no objects of its parent: that would copy the memory pages of all children.
        self._parent = parent
        if parent is not None:
            parent._parent = None
        self.lock = native.RLock()
        self.depth = 0
        self.has_aside = False
        self._is_held = False  # by a fork
        self.writers: dict[str, Writer] = {}
        self.inheritance: Inheritance = Inheritance(home, parent.inheritance if parent else None)

    @contextlib.contextmanager
    def binding(self, seconds: float = -1) -> Iterator[bool | None]:
        """Hold the lock under which children get their cells; wait so many seconds for other threads, or for ever.

        Yields True; but False if this thread holds the lock already, and this is a signal handler or a garbage
        collection in the middle. Then children that are on the move count aside (see `Aside`), until the outermost
        block ends. Yields None if others held the lock all the time.

        It is a generator, and no class: a generator is closed, and the lock released, even if the stack has no room
        for one more call, such as that of `__exit__`.
        """
        if not self.lock.acquire(timeout=seconds):
            yield None
            return
        self.depth += 1
        try:
            yield self.depth == 1
        finally:
            self.depth -= 1
            try:
                while self.has_aside and self.depth == 0:
                    self._take_in()
            finally:  # even after a RecursionError, or an error of a signal handler
                self.lock.release()

    def is_held_here(self) -> bool:
        """Whether this thread is inside `binding`."""
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return]

    def writer(self, identifier: str, outermost: bool) -> Writer:
        """Return this process's writer of that name, ready to give out cells. Call it inside `binding`."""
        writer = self.writers.get(identifier)
        if writer is None:
            writer = self.writers.setdefault(identifier, Writer(identifier, self._note_removed))
        if outermost:
            self._refresh(writer)
        return writer

    def _refresh(self, writer: Writer) -> None:
        if self._home.is_open():
            self.attempt("open the cells file again", self._home.file.stay_open)
        shared = writer.shared
        if shared is not None and not shared.is_active():
            self._check(writer, shared)
        if writer.lapsed:
            self.attempt("find room in the cells file", lambda: writer.announce_lapsed(_AT_ONCE))
        if writer.shared is None:
            self.attempt("claim a part of the cells file", lambda: writer.join(self._home.file, self._home.id))
            self.inheritance.begin()
        for arena in (*writer.private, *writer.unfit):
            arena.resume()

    @staticmethod
    def _check(writer: Writer, shared: SharedArena) -> None:
        if not shared.is_mine():
            writer.start_anew()
        elif shared.is_noticed():
            writer.notice()
        else:
            shared.resume()

    def place(self, writer: Writer, key: Key, outermost: bool) -> Place:
        """Return the place of a child, in memory if the cells file has no room. Call it inside `binding`."""
        if not outermost:
            self.has_aside = True
            return writer.bind_aside(key)
        found = self.attempt("find room in the cells file", lambda: writer.bind(key, shared=True))
        if key in writer.lapsed:  # an operation on it must show at once
            self.attempt("find room in the cells file", lambda: writer.announce_again(key))
        self._tell_of_long(writer, key)
        return found or writer.bind(key, shared=False)

    def _tell_of_long(self, writer: Writer, key: Key | None = None) -> None:
        """Report records that were too long, and a help text that was shortened."""
        while writer.refused:
            name, length = writer.refused.popleft()
            message = f"a record of {length:,} bytes of {name} is too long for others to see (the most is {LONGEST:,})"
            hint = "what it counts stays in this process's memory; shorten its label values"
            self._home.report("too_long", f"{message}: {hint}", about=name)
        if key is not None and (length := len(metadata[key[0].family, key[0].type, key[0].mode].help)) > LONGEST_HELP:
            message = f"the help text of {key[0].family} has {length:,} characters; others see {LONGEST_HELP:,} of them"
            self._home.report("too_long", message, about=f"help of {key[0].family}")

    def _take_in(self) -> None:
        """Add what was counted aside to the children. Call it with the lock held."""
        self.depth = 1
        self.has_aside = False
        try:
            for writer in self.writers.copy().values():
                aside, writer.aside = writer.aside, Aside()
                for arena in aside.arenas:
                    arena.abandon()
                for key, place in aside.places.copy().items():
                    writer.merge(key, place, self.place(writer, key, True))
        finally:
            self.depth = 0

    def attempt(self, what: str, action: Callable[[], T]) -> T | None:
        """Run an action for which there may be no room; then report that, and return None."""
        try:
            result = action()
        except OSError as error:
            self._home.report("cells", f"cannot {what} ({error}); counting in memory until it can")
            return None
        return result

    def arenas(self) -> list[SharedArena]:
        """Return the parts of the cells file that this process writes to."""
        with self.binding():
            return [writer.shared for writer in self.writers.copy().values() if writer.shared]

    def children_of(self, family: str) -> list[Key]:
        """Return the children of a family that this process has, or will have because it inherits them."""
        with self.binding():
            known = [key for writer in self.writers.copy().values() for key in writer.places.copy()]
        return [key for key in [*known, *self.inheritance.of_family(family)] if key[0].family == family]

    def remove(self, selection: Selection) -> bool:
        """Forget children that are to be removed from all processes; see `rows.removal`.

        False in the middle of an operation of this thread that places children: nothing is done then.
        """
        keys = selection.among(() if selection.whole else self.children_of(selection.family))
        with self.binding() as outermost:
            if outermost:
                self.give_back(keys)
                for tell in removal_listeners:
                    tell(keys)
        return bool(outermost)

    def give_back(self, keys: list[Key], *, are_unbound: bool = False) -> None:
        """Forget children, and what this process has counted in them. A child that is used again begins at zero.

        The next flush or removal deletes their rows. Call it inside the outermost `binding`.
        are_unbound: whether no value is bound to their cells any more.
        """
        self._forget(keys)
        for writer in self.writers.copy().values():
            writer.give_back(keys, are_unbound=are_unbound)

    def _forget(self, keys: list[Key]) -> None:
        forget(keys)
        self.inheritance.forget(keys)

    def _note_removed(self, keys: list[Key]) -> None:
        """Forget what other processes have removed."""
        self._forget(keys)
        for tell in removal_listeners:
            tell(keys)

    def has_given_back(self) -> bool:
        """Whether there may be rows of children that this process has given back."""
        return any(arena.leaving for arena in self.arenas()) or self._is_forgetting()

    def _is_forgetting(self) -> bool:
        return any(writer.gone for writer in self.writers.copy().values())

    def look_for_marks(self) -> None:
        """Forget what other processes have removed, even if they died before they could notify this one."""
        seen = self.inheritance.now()
        with self.binding() as outermost:
            for writer in self.writers.copy().values() if outermost else ():
                if writer.shared and writer.shared.removed() and writer.shared.is_mine():
                    writer.notice()
        for writer in self.writers.copy().values():
            if writer.gone:
                with contextlib.suppress(fork.GaveWayError):  # the next flush goes on
                    self.in_slices(writer.forget_gone)
                    self._renew(writer)
        with self.binding() as outermost:
            if outermost and not self._is_forgetting():
                self.inheritance.note(seen)

    def _renew(self, writer: Writer) -> None:
        """Have all values bound again: a signal handler in the middle may have been bound to cells of a gone child."""
        with self.binding() as outermost:
            if outermost and writer.shared and writer.shared.is_active():
                writer.shared.renew()

    def zero_unread(self) -> None:
        """Overwrite cells of removed children that no scrape can take for what they were any more."""
        if any(arena.has_unread() for arena in self.arenas()):
            with self.binding() as outermost:
                for arena in self.arenas() if outermost else ():
                    if arena.is_mine():
                        arena.zero_unread()

    def has_known(self, key: Key) -> bool:
        """Whether a child has cells in this process."""
        return any(key in writer.places for writer in self.writers.copy().values())

    def in_slices(self, step: Callable[[], bool]) -> None:
        """Take steps inside `binding` until one returns False; let others have the lock every few milliseconds.

        Does nothing if this thread is inside `binding` already. Raises GaveWayError if another thread waits to fork.
        """
        more = True
        while more:
            with self.binding() as outermost:
                end = time.perf_counter() + _SLICE_SECONDS
                while more := bool(outermost) and step():
                    if time.perf_counter() > end:
                        break
            if more:
                take_break()

    def is_moving(self) -> bool:
        """Whether children are on the move, see `writer`."""
        return any(writer.moving for writer in self.writers.copy().values())

    def move_in(self) -> None:
        """Move children (see `writer`), announce them again, or place inherited ones: whatever they wait for.

        Raises GaveWayError if another thread waits to fork.
        """
        for writer in self.writers.copy().values():
            if self._begin_to_move(writer):
                self.in_slices(partial(self._move_one, writer))
            self._end_move(writer)
            if writer.is_announcing:
                self.in_slices(partial(self._announce_one, writer))
            self._tell_of_long(writer)
        self.in_slices(self.place_inherited)

    def _begin_to_move(self, writer: Writer) -> bool:
        with self.binding() as outermost:
            if not outermost or not (writer.private or writer.moving):
                return False
            writer.is_full = False
            self.attempt("find room in the cells file", partial(self._open_way, writer))
            return bool(writer.moving)

    def _open_way(self, writer: Writer) -> None:
        if writer.shared is None:
            writer.join(self._home.file, self._home.id)
        if writer.has_room():
            writer.leave_memory()

    def _move_one(self, writer: Writer) -> bool:
        key = writer.next_moving()
        if key is None:
            return False
        if writer.is_full:
            writer.bind(key, shared=False)
        elif self.place(writer, key, True).arena in writer.private:
            writer.stay_in_memory()
        return True

    def _end_move(self, writer: Writer) -> None:
        with self.binding() as outermost:
            has_room = bool(outermost) and writer.end_move()
        if has_room:
            self._home.over("cells", "the cells file has room again, nothing was lost")

    def _announce_one(self, writer: Writer) -> bool:
        return bool(self.attempt("find room in the cells file", lambda: writer.announce_lapsed(1)))

    def place_inherited(self) -> bool:
        """Place one of the gauges in `Inheritance.sure`; False if there is none. Call it inside `binding`."""
        if not self.inheritance.sure:
            return False
        writer, key, inherited = self.inheritance.sure.popleft()
        if key in inherited and self.writers.get(writer.identifier) is writer:
            self.place(writer, key, True)
        return True

    def go_over(self, store_id: str, settled: set[int], enter: Callable[[], None]) -> None:
        """Move the values of this process to other files.

        store_id: the id of the store so far. settled: the instances of this process whose values are in the rows
        already. enter: begins to use the files; called with the lock held.
        """
        with self.binding():
            enter()
            for writer in self.writers.copy().values():
                if writer.shared and writer.shared.instance in settled:
                    writer.start_anew()
                else:
                    writer.move_out(store_id)
        with contextlib.suppress(fork.GaveWayError):  # the next flush goes on
            self.move_in()

    def leave(self) -> None:
        """Give up all slots and cells, as if this process had ended."""
        with self.binding():
            for writer in self.writers.copy().values():
                for arena in writer.arenas():
                    arena.abandon()
            self.writers = {}
            if self._home.is_open():
                self._home.file.let_go_spare()

    # --- families and exemplars in the journal ------------------------------------------------------------

    def describe(self, family: Family) -> None:
        """Announce the news of a family that others know already; if others have the lock, the next flush does."""
        with self.binding(waits.NEW_CHILD) as outermost:
            if outermost:
                self._tell([family])

    def tell_families(self) -> None:
        """Announce the news of all families that others know already."""
        with self.binding() as outermost:
            if outermost:
                self._tell(list(metadata))

    def _tell(self, families: list[Family]) -> None:
        for writer in self.writers.copy().values():
            for family in families:
                if writer.shared is not None and writer.shared.has_told_less(family):
                    self.attempt("find room in the cells file", partial(writer.shared.describe, family))

    def keep_exemplar(self, identifier: str, series: Series, exemplar: Exemplar) -> None:
        """Keep an exemplar, and write it to the journal at once if it is the first of its series for a while.

        If that is not possible within a moment, the next flush does it. identifier: the writer's name.
        """
        writer = self.writers.get(identifier) or self.writer(identifier, False)
        if writer.exemplars.put(series, exemplar):
            left = [series]
            with self.binding(waits.EXEMPLAR) as outermost:
                shared = self.writer(identifier, True).shared if outermost else None
                if shared is not None and shared.backlog() <= exemplars.BACKLOG:
                    left = _tell(writer, left)
            writer.exemplars.wait(left)

    def newest_exemplar(self, identifier: str, series: Series) -> Exemplar | None:
        """Return the newest exemplar that this process has of a series, or None."""
        writer = self.writers.get(identifier)
        return writer.exemplars.newest.get(series) if writer else None

    def tell_exemplars(self, pause: float) -> None:
        """Write waiting exemplars to the journal, unless that was done less than `pause` seconds ago."""
        for writer in self.writers.copy().values():
            waiting = writer.exemplars.take_round(pause)
            for start in range(0, len(waiting), exemplars.AT_ONCE):
                left = waiting[start : start + exemplars.AT_ONCE]
                with self.binding() as outermost:
                    shared = writer.shared if outermost else None
                    if shared is not None and shared.is_mine() and shared.has_room_to_spare():
                        left = _tell(writer, left)
                writer.exemplars.wait(left)

    # --- forks --------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait until no other thread is placing a child."""
        self._is_held = fork.acquire(self.lock)

    def after_fork_in_parent(self, *, suspended: bool) -> bool:
        """Go on after a fork. Returns whether there is anything to flush.

        suspended: whether the flusher was stopped. Then each value is bound again at its next operation, which starts
        the flusher.
        """
        news = False
        for writer in self.writers.copy().values() if suspended else ():
            shared = writer.shared
            news = news or bool(shared and (shared.has_news() or shared.changed_blocks()))
            news = news or writer.exemplars.is_waiting() or bool(writer.private or writer.moving)
            for arena in writer.arenas():
                arena.own[0] = 0
        if self._is_held:
            self._is_held = False
            self.lock.release()
        return news


def _tell(writer: Writer, some: list[Series]) -> list[Series]:
    """Write the newest exemplars of some series to the journal, and return the series that must wait."""
    with contextlib.suppress(OSError):  # no room; children that find none report it
        return [series for series in some if not writer.tell(series)]
    return some
