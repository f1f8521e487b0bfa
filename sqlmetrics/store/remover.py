"""Removes children of metrics from the store, at once or, if that is impossible, as soon as the flusher can."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext

import apsw

from ..cells import exact
from ..cells.selection import Selection
from ..process import fork, waits
from ..rows import settle, slices
from ..rows.removal import Removal, carry_out, recycle
from . import erasure
from .follow import Follower
from .opened import Opened


class Remover:
    """The removals of one process."""

    def __init__(self, store: Opened, follower: Follower):
        self._store = store
        self._follower = follower
        self._waiting: list[Removal] = []
        self._is_unmarked = False
        self._is_stuck = False

    def remove(self, selection: Selection, begin_anew: Callable[[], object] | None = None) -> None:
        """Remove children from all processes. Never raises; if a second is not enough, the flusher does it later.

        begin_anew: makes a child in this process again, before the rows of the old one are deleted.
        """
        fork.notice()
        store, removal = self._store, Removal(selection, exact.now(), begin_anew)
        removal.begin(store.part)
        self._waiting.append(removal)
        if self._is_stuck or self._follower.is_held():
            # In a signal handler, with a lock of ours held: waiting here might be for ever.
            store.flusher.wake()
            return
        try:
            until = time.monotonic() + waits.CALL  # after that, the flusher does it
            self._follower.patiently(lambda connection: self.act(connection, until))
            store.flusher.start()  # the next flush erases it from the files, see `erasure`
        except Exception as error:  # whatever it is: the flusher meets it, too, and mends what can be mended
            self._is_stuck = True  # so that the next removal does not wait for the same again
            store.home.report("removal", f"removed series cannot go yet ({error!r}); they go later")
            store.flusher.wake()

    def remove_now(self, selection: Selection) -> None:
        """Remove children from all processes; wait a second at most. If it raises, nothing is done later.

        Raises StoreError, apsw.Error, or slices.TooMuchError: call it again to go on.
        """
        fork.notice()
        removal = Removal(selection, exact.now())
        self._waiting.append(removal)
        try:
            until = time.monotonic() + waits.CALL
            self._follower.patiently(lambda connection: self.act(connection, until))
        finally:
            self._waiting = [one for one in self._waiting if one is not removal]

    def has_work(self) -> bool:
        """Whether a removal waits."""
        return bool(self._waiting) or self._is_unmarked

    def act(self, connection: apsw.Connection, until: float = math.inf) -> None:
        """Carry out all waiting removals, even those that come meanwhile. Raises apsw.Error.

        until: when to give up if new children take long to become rows, in seconds of CLOCK_MONOTONIC; then raises
        slices.TooMuchError.
        """
        while removals := [one for one in list(self._waiting) if one.begin(self._store.part)]:
            self._act(connection, removals, until)
            for one in removals:
                self._waiting.remove(one)
        if self._is_unmarked:
            with settle.settling(connection, self._store.file):
                pass  # marks are set at its beginning
            self._is_unmarked = False
        erasure.wipe(self._store, connection)
        if self._is_stuck:
            self._is_stuck = False
            self._store.home.over("removal", "removed series are gone")

    def _act(self, connection: apsw.Connection, removals: list[Removal], until: float) -> None:
        store = self._store
        slices.bring_all(lambda: nullcontext(connection), store.file, store.file.held_slots(), until)
        with settle.settling(connection, store.file):
            left, is_unmarked = carry_out(connection, store.file, store.part, removals)
        self._is_unmarked = self._is_unmarked or is_unmarked
        recycle(store.part, left)
