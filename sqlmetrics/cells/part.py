"""What of a store is this process's own: its writers, and the lock under which children get their cells.

An operation that has its cell comes by without any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..process import fork, native
from .arenas import LONGEST_HELP, SharedArena
from .freed import Run
from .heirs import Heirs
from .journal import LONGEST
from .selection import Selection
from .shape import Key, abouts
from .telling import Teller
from .writer import Aside, Place, Writer

if TYPE_CHECKING:
    from ..store import Store

T = TypeVar("T")


class _Hold:
    """The lock, and how often the thread that has it has entered it."""

    def __init__(self) -> None:
        self.lock = native.RLock()
        self.depth = 0


class Part:
    """The writers of one process, by their names."""

    def __init__(self, store: Store, parent: Part | None = None):
        self._store = store
        self._hold = _Hold()
        self._is_held = False  # for a fork
        self.writers: dict[str, Writer] = {}
        self.teller = Teller(self)
        self.heirs: Heirs = Heirs(store, parent.heirs if parent else None)

    @contextmanager
    def binding(self, seconds: float = -1) -> Iterator[bool | None]:
        """Hold the lock under which children get their cells; wait so long for other threads, or for ever.

        Yields False where this thread holds it already: in a signal handler or a garbage collection that came in
        the middle. There, children that are on the move count aside (see `Aside`), until the outermost is done.
        Yields None if others held it all the time.
        """
        hold = self._hold
        if not hold.lock.acquire(timeout=seconds):
            yield None
            return
        hold.depth += 1
        try:
            yield hold.depth == 1
        finally:
            hold.depth -= 1
            try:
                while hold.depth == 0 and self._is_some_aside():
                    self._take_in(hold)
            finally:  # whatever comes out of it: a RecursionError, or what a signal handler raises
                hold.lock.release()

    def is_held_here(self) -> bool:
        """Whether this thread is inside `binding`."""
        return self._hold.lock._is_owned()  # type: ignore[attr-defined, no-any-return]

    def writer(self, identifier: str, outermost: bool) -> Writer:
        """Return this process's writer of that name, valid or made so. Call it inside `binding`."""
        writer = self.writers.get(identifier) or self.writers.setdefault(identifier, Writer(identifier))
        if outermost:
            self._refresh(writer)
        return writer

    def _refresh(self, writer: Writer) -> None:
        if self._store.is_open():
            self.attempt("open the cells file again", self._store.file.stay_open)
        shared = writer.shared
        if shared is not None and not shared.is_active():
            self._check(writer, shared)
        if writer.lapsed:
            self.attempt("find room in the cells file", writer.announce_lapsed)
        if writer.shared is None:
            self.attempt("claim a part of the cells file", lambda: writer.join(self._store.file, self._store.id))
            self.heirs.begin()
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
        """Return where a child is; in memory if the cells file has no room. Call it inside `binding`."""
        if not outermost:
            return writer.bind_aside(key)
        found = self.attempt("find room in the cells file", lambda: writer.bind(key, shared=True))
        self._tell_of_long(writer, key)
        return found or writer.bind(key, shared=False)

    def _tell_of_long(self, writer: Writer, key: Key | None = None) -> None:
        """Report records that were too long, and a help text that was shortened."""
        store = self._store
        while writer.refused:
            name, length = writer.refused.popleft()
            message = f"a record of {length:,} bytes of {name} is too long for others to see (the most is {LONGEST:,})"
            hint = "what it counts stays in this process's memory; shorten its label values"
            store.trouble.report("too_long", f"{store.path}: {message}: {hint}", about=name)
        if key is not None and (length := len(abouts[key[0].family, key[0].type, key[0].mode].help)) > LONGEST_HELP:
            message = f"the help text of {key[0].family} has {length:,} characters; others see {LONGEST_HELP:,} of them"
            store.trouble.report("too_long", f"{store.path}: {message}", about=f"help of {key[0].family}")

    def _is_some_aside(self) -> bool:
        return any(writer.aside.arenas for writer in self.writers.copy().values())

    def _take_in(self, hold: _Hold) -> None:
        hold.depth += 1
        try:
            for writer in self.writers.copy().values():
                aside, writer.aside = writer.aside, Aside()
                for arena in aside.arenas:
                    arena.abandon()
                for key, place in aside.places.copy().items():
                    writer.merge(key, place, self.place(writer, key, True))
        finally:
            hold.depth -= 1

    def attempt(self, what: str, action: Callable[[], T]) -> T | None:
        """Do something for which there may be no room: then that is reported, and None returned."""
        try:
            result = action()
        except OSError as error:
            message = f"{self._store.path}: cannot {what} ({error}); counting in memory until it can"
            self._store.trouble.report("cells", message)
            return None
        return result

    def arenas(self) -> list[SharedArena]:
        """The parts of the cells file that this process writes to."""
        with self.binding():
            return [writer.shared for writer in self.writers.copy().values() if writer.shared]

    def detach(self, selection: Selection) -> list[tuple[SharedArena, list[Run]]]:
        """Forget children, and return the cells that they had. Call it inside `binding`, the outermost."""
        found = [(writer.shared, writer.detach(selection)) for writer in self.writers.copy().values()]
        return [(arena, runs) for arena, runs in found if arena and runs]

    def release(self, key: Key) -> None:
        """Forget a child of this process only, and have its cells freed by the next flush. Call it inside `binding`."""
        for writer in self.writers.copy().values():
            writer.release(key)

    def give_up(self, keys: list[Key]) -> None:
        """Forget children of this process only, whoever uses them; their cells are freed by the next flush.

        Does nothing in the middle of an operation of this thread that places children.
        """
        with self.binding() as outermost:
            for writer in self.writers.copy().values() if outermost else ():
                writer.give_up(keys)

    def has_given_back(self) -> bool:
        """Whether there are rows of children that this process uses no more."""
        return any(arena.freed.leaving for arena in self.arenas())

    def cells_of(self, selection: Selection) -> set[tuple[int, int]]:
        """(instance, cell) of all cells that this process has for children in the cells file."""
        with self.binding():
            return {
                (shared.instance, cell)
                for writer in self.writers.copy().values()
                if (shared := writer.shared)
                for cell in writer.cells_of(selection)
            }

    def look_for_marks(self) -> None:
        """Forget what other processes have removed, also where they died before they could notify this one."""
        with self.binding() as outermost:
            seen = self.heirs.now()
            for writer in self.writers.copy().values() if outermost else ():
                if writer.shared and writer.shared.marked() and writer.shared.is_mine():
                    writer.notice()
            if outermost:
                self.heirs.note(seen)

    def zero_unread(self) -> None:
        """Overwrite cells of removed children that nobody can read any more for what they were."""
        if any(arena.freed.unread for arena in self.arenas()):
            with self.binding() as outermost:
                for arena in self.arenas() if outermost else ():
                    if arena.is_mine():
                        arena.zero_unread()

    def has_known(self, key: Key) -> bool:
        """Whether a child has a place."""
        return any(key in writer.known for writer in self.writers.copy().values())

    def move_in(self) -> None:
        """Bring what had to be counted in memory to the cells file, if there is room now."""
        with self.binding() as outermost:
            if outermost and any(writer.private for writer in self.writers.values()):
                self.attempt("find room in the cells file", self._move_in)
            for writer in self.writers.copy().values():
                self._tell_of_long(writer)

    def _move_in(self) -> None:
        for writer in self.writers.copy().values():
            if writer.shared is None:
                writer.join(self._store.file, self._store.id)
            writer.move_in()
        self._store.trouble.over("cells", f"{self._store.path}: the cells file has room again, nothing was lost")

    def go_over(self, store_id: str, settled: set[int], enter: Callable[[], None]) -> None:
        """Take the values of this process along to other files.

        store_id: of the store that it was. settled: instances whose values are in the rows already.
        enter: makes the files the store's own, within.
        """
        with self.binding():
            enter()
            for writer in self.writers.copy().values():
                if writer.shared and writer.shared.instance in settled:
                    writer.start_anew()
                else:
                    writer.move_out(store_id)
        self.move_in()

    def leave(self) -> None:
        """Own nothing any more, as if this process had ended."""
        with self.binding():
            for writer in self.writers.copy().values():
                for arena in writer.arenas():
                    arena.abandon()
            self.writers = {}
            if self._store.is_open():
                self._store.file.let_go_spare()

    # --- forks --------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait until no other thread is placing a child."""
        self._is_held = fork.acquire(self._hold.lock)

    def after_fork_in_parent(self, *, suspended: bool) -> bool:
        """Go on. suspended: have every value look for its place, and so for the flusher. True if there is news."""
        news = False
        for writer in self.writers.copy().values() if suspended else ():
            shared = writer.shared
            news = news or bool(shared and (shared.has_news() or shared.changed_blocks()))
            news = news or writer.exemplars.is_waiting() or bool(writer.private)
            for arena in writer.arenas():
                arena.own[0] = 0
        if self._is_held:
            self._is_held = False
            self._hold.lock.release()
        return news
