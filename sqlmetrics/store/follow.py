"""Finds out whether the store's files are still those that this process has open, and moves over to new ones.

Another program may delete, replace or damage any of them while the app runs. This process still has its own counts in
memory (the mapped cells), so it takes them along.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import apsw

from ..cells import layout
from ..cells.cellsfile import Header
from ..process import fork, native, waits
from ..rows import database, files, ingest, renew, settle
from ..rows.damage import is_damage
from ..rows.database import Identity, StoreConnection, file_identity
from ..rows.renew import CELLS_SUFFIX, Pair
from .opened import Opened


class Look(NamedTuple):
    """What a look at the names and at the mapped header shows."""

    database: Identity | None
    cells: Identity | None
    header: Header | None
    is_cut_off: bool
    is_doubted: bool


class Follower:
    """Keeps a `Store` on the files that are at its path."""

    def __init__(self, store: Opened):
        self._store = store
        self._known: Look | None = None
        self._last: Look | None = None
        self._in_place_at = 0.0
        """When these files were last seen at their names, in seconds since the epoch."""
        self._turn = native.RLock()

    def after_fork_in_child(self) -> None:
        """Renew the lock: a thread that does not exist here may have had it."""
        self._turn = native.RLock()

    def note(self, pair: Pair) -> None:
        """Note these files as the store's own; any other file at their names is a change from now on."""
        self._in_place_at = time.clock_gettime(time.CLOCK_REALTIME)
        self._known = self._last = Look(pair.database, pair.cells.identity, pair.cells.header(), False, False)

    def _look(self) -> Look:
        store = self._store
        store.file.stay_open()
        return Look(
            file_identity(store.path),
            file_identity(store.path + CELLS_SUFFIX),
            store.file.header(),
            store.writing.is_cut_off(),
            store.file.is_doubted(),
        )

    def follow(self) -> bool:
        """Move over to the files that are there, made anew if needed, with all values of this process.

        Returns False if a change seems to be under way: nobody deletes four files at once, so a change counts when two
        looks agree. Also returns False if another thread is moving over, or forks; or if this thread is moving over,
        and this is a signal handler in the middle.
        Raises StoreError, apsw.Error or OSError if there is no store and none can be made.
        """
        if self.held_here() or not self._turn.acquire(timeout=waits.WRITE_LOCK):
            return False
        try:
            return self._follow()
        except (apsw.InterruptError, fork.GaveWayError):
            return False
        finally:
            self._turn.release()

    def is_behind(self) -> bool:
        """Whether other files are at the names than those that this process has open."""
        store, known = self._store, self._known
        now = file_identity(store.path), file_identity(store.path + CELLS_SUFFIX)
        return known is not None and now != known[:2]

    def held_here(self) -> bool:
        """Whether this thread is inside `follow` (and was interrupted by a signal handler, say)."""
        return self._turn._is_owned()  # type: ignore[attr-defined, no-any-return]

    def is_held(self) -> bool:
        """Whether this thread has a lock of the store: then it must not wait for another one, perhaps for ever."""
        store = self._store
        return store.writing.held_here() or store.part.is_held_here() or self.held_here()

    def patiently(self, act: Callable[[apsw.Connection], None]) -> None:
        """Run an action with the connection; wait a second for others. Raises what it raises, or BusyError."""
        for tries_left in waits.tries(waits.CALL):
            if not self.follow():
                time.sleep(waits.WRITE_LOCK)
                continue
            try:
                with self._store.writing() as connection:
                    act(connection)
                    return
            except apsw.BusyError:
                if not tries_left:
                    raise
                fork.let_pass()
        raise database.CutOffError(f"{self._store.path}: the files are being replaced")

    def _follow(self) -> bool:
        store = self._store
        if not store.is_open():
            store.open(waits.RUNNING)
            return True
        look = self._look()
        if look == self._known:
            self._in_place_at = time.clock_gettime(time.CLOCK_REALTIME)
        if look == self._known or (not store.part.writers and look[:2] == self._known[:2]):  # type: ignore[index]
            return True
        if look != self._last:
            self._last = look
            return False
        if store.part.writers:
            self._go_over(look)
        else:  # this process has nothing to bring, so others make the files
            with store.writing.suspended():
                store.enter(files.open_for_notices(store.path))
        return True

    def _go_over(self, look: Look) -> None:
        store, known = self._store, self._known
        is_replaced = look.is_cut_off or (known is not None and look[:2] != known[:2])
        if is_replaced:
            store.home.report("replaced", "the store was deleted or replaced; moving to a new one")
        with store.writing.suspended() as last:
            pair = files.open_or_create(
                store.path, store.settings, store.trouble, last, store.file, seconds=waits.RUNNING
            )
            if last is not None and pair.store != self._store.id:
                self._bring_what_was_left(last)
        if pair.cells is not store.file:
            self._bring_values(pair)
        else:
            store.enter(pair)
        if is_replaced:
            store.home.over("replaced", "the values of this process are in the new store")

    def _bring_what_was_left(self, last: StoreConnection) -> None:
        """Bring what ended processes have left in the old database, to which `last` is connected."""
        path = self._store.path
        try:
            with contextlib.closing(database.connect(path)) as connection:
                if renew.is_missing(connection, self._store.id, self._in_place_at):
                    renew.bring(connection, renew.content_of(last, path, self._store.file), self._store.id)
        except Exception as error:  # any: a text may not be decodable
            if not is_damage(error):
                raise  # the next round tries again
            self._store.home.report("replaced", f"what ended processes had left cannot be read ({error!r})")

    def _bring_values(self, pair: Pair) -> None:
        if pair.cells.own_slots:
            with contextlib.closing(database.connect(self._store.path)) as connection:
                settle.return_to(connection, pair.cells)
        self._store.part.go_over(self._store.id, self._settled(pair), lambda: self._store.enter(pair))

    def _settled(self, pair: Pair) -> set[int]:
        """Return this process's instances that others have settled, by mistake: their values are in rows already.

        The old cells tell those that were settled in the old rows, as new rows may say something else of a slot.
        """
        if pair.store != self._store.id:
            return set()
        arenas = self._store.part.arenas()
        left = {one.instance for one in arenas if one.file.states[one.slot] != layout.HELD}
        with contextlib.closing(database.connect(self._store.path)) as connection:
            return left | {
                one.instance for one in arenas if ingest.is_settled(connection, one.file, one.slot, one.instance)
            }
