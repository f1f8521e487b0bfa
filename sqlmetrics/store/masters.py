"""Writes the rows of a process that cannot flush, uWSGI's master: its workers write them with their own.

The master has loaded the app, so it has what the app sets only once, such as an Info. Scrapes read its cells like those
of any other process.
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
    """The part of the store that a master has."""

    def __init__(self, arena: SharedArena):
        self._file = arena.file
        self._slot = arena.slot
        self._instance = arena.instance
        self._ingested = 0
        self._shown = dict.fromkeys(arena.flushed.copy(), _ZEROS)

    def is_left(self, now: CellsFile) -> bool:
        """Whether the master is settled, or its cells are in files that were replaced."""
        file, slot = self._file, self._slot
        is_live = file.states[slot] == layout.HELD and file.has(slot, self._instance)
        return not is_live or file is not now

    def has_news(self) -> bool:
        """Whether the master has more than the rows show, as far as this process has written them."""
        return self._file.published[self._slot] > self._ingested or bool(self._changed())

    def _changed(self) -> dict[int, Image]:
        """Return the master's changed blocks. Marks of removals do not count, because nobody takes them away."""
        images = {block: Image(self._file.image(block), shown) for block, shown in self._shown.items()}
        return {block: image for block, image in images.items() if not image.is_as_shown()}

    def bring(self, connection: apsw.Connection) -> None:
        """Write the master's rows in a transaction. Raises apsw.Error, JournalGoneError or DamagedError."""
        slices.bring_all(lambda: nullcontext(connection), self._file, [(self._slot, self._instance)])
        with settle.settling(connection, self._file):
            if is_settled(connection, self._file, self._slot, self._instance):
                return
            now = exact.system_now()
            self._take_up_blocks()
            # Images before the journal, so that the journal has the record of each child in the images.
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
    """The masters whose rows one process writes."""

    def __init__(self, arenas: Iterable[SharedArena] = ()):
        self._all = [Master(arena) for arena in arenas]

    def have_news(self, file: CellsFile) -> bool:
        """Whether there is anything to write for a master."""
        self._all = [master for master in self._all if not master.is_left(file)]
        return any(master.has_news() for master in self._all)

    def bring(self, connection: apsw.Connection) -> None:
        """Write the rows of all masters. Raises what `Master.bring` does."""
        for master in self._all:
            if master.has_news():
                master.bring(connection)
