"""Rows of a process that cannot flush, uWSGI's master: those that it has forked write them with their own.

It has loaded the app, so what is set once for all is there, an Info say. Scrapes read its cells as those of any other
process.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import apsw

from ..cells import exact, layout
from ..cells.arenas import SharedArena
from ..cells.cellsfile import CellsFile
from ..cells.images import Image
from ..rows import behind, settle, slices
from ..rows.ingest import copy_images, ingest, is_settled

_ZEROS = bytes(layout.PAGE)


class Master:
    """The part of the store that such a process has."""

    def __init__(self, arena: SharedArena):
        self._file = arena.file
        self._slot = arena.slot
        self._instance = arena.instance
        self._ingested = 0
        self._shown = dict.fromkeys(arena.flushed.copy(), _ZEROS)

    def is_left(self, now: CellsFile) -> bool:
        """Whether it is settled, or in files that were replaced."""
        file, slot = self._file, self._slot
        is_live = file.states[slot] == layout.HELD and file.has(slot, self._instance)
        return not is_live or file is not now

    def has_news(self) -> bool:
        """Whether there is more than the rows show, as far as this process has seen to it."""
        return self._file.published[self._slot] > self._ingested or bool(self._changed())

    def _changed(self) -> dict[int, Image]:
        """Of its blocks those that have changed; not by the marks of removals, which nobody takes away."""
        images = {block: Image(self._file.image(block), shown) for block, shown in self._shown.items()}
        return {block: image for block, image in images.items() if not image.is_as_shown()}

    def bring(self, connection: apsw.Connection) -> None:
        """Write its rows, in a transaction of their own. Raises apsw.Error, JournalGoneError or DamagedError."""
        slices.bring_all(lambda: nullcontext(connection), self._file, [(self._slot, self._instance)])
        with settle.settling(connection, self._file):
            if is_settled(connection, self._file, self._slot, self._instance):
                return
            now = exact.system_now()
            self._take_up_blocks()
            # Images first: what a child has counted in them, its record tells of in the journal that is read after.
            images = self._changed()
            end = ingest(connection, self._file, self._slot, self._instance)
            copy_images(connection, self._instance, images, stamped=True)
            behind.note_complete(connection, [self._instance], now)
        self._take_up_blocks()
        self._ingested = end
        self._shown.update((block, image.now) for block, image in images.items())

    def _take_up_blocks(self) -> None:
        self._shown = dict.fromkeys(self._file.blocks.owned_by(self._slot), _ZEROS) | self._shown


class Masters:
    """All those that one process sees to."""

    def __init__(self, arenas: Iterable[SharedArena] = ()):
        self._all = [Master(arena) for arena in arenas]

    def __bool__(self) -> bool:
        return bool(self._all)

    def have_news(self, file: CellsFile) -> bool:
        """Whether there is something to write for one of them."""
        self._all = [master for master in self._all if not master.is_left(file)]
        return any(master.has_news() for master in self._all)

    def bring(self, connection: apsw.Connection) -> None:
        """Write it. Raises what `Master.bring` does."""
        for master in self._all:
            if master.has_news():
                master.bring(connection)
