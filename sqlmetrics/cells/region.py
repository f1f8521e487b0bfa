"""Pages of the cells file that slots claim and give back: blocks of cells, and extents of journals."""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

from . import layout, locks
from .descriptors import MappedFile

_ZEROS = bytes(layout.PAGE)
_OWNER = struct.Struct("=H")
_NOBODY = bytes(2)
_GAP = 64
"""Among the blocks that were given out, there may be gaps, but each is shorter than this."""


class NoRoomError(OSError):
    """The cells file has reached a limit of its layout."""


class Census(NamedTuple):
    """Owner (0: none) and generation (how often it was given out) of each block."""

    owners: list[int]
    generations: list[int]


class Region:
    """Blocks of one page each, with their owners, their generations and their bytes."""

    def __init__(self, file: MappedFile, *, owners_at: int, generations_at: int, start: int, count: int, cursor: int):
        self._file: MappedFile = weakref.proxy(file)  # a ring would keep a mapping until the garbage collector comes
        self._bytes = file.bytes
        self._cursor: memoryview[int] = file.view(
            layout.CURSORS_AT + 4 * cursor, layout.CURSORS_AT + 4 * cursor + 4, "I"
        )
        self._owners_at = owners_at
        self.owners: memoryview[int] = file.view(owners_at, owners_at + 2 * count, "H")
        self._owners_bytes = file.bytes[owners_at : owners_at + 2 * count]
        self.generations: memoryview[int] = file.view(generations_at, generations_at + 4 * count, "I")
        self.start = start
        self.count = count
        self._ever = 0

    def claim(self, slot: int) -> int:
        """Give a zeroed block to `slot` and return its number.

        The search goes round, so a freed block rests as long as possible, and a slow scrape seldom meets one that was
        given out again. Raises OSError (ENOSPC) on a full disk, NoRoomError at the limit.
        """
        self._file.stay_open()
        ever = -1
        while ever < self.ever():  # other processes may have taken all blocks that were tried
            ever = self.ever()
            cursor = min(self._cursor[0], ever)
            fresh = range(ever, min(ever + _GAP, self.count))
            for block in chain(self._free(cursor, ever), self._free(0, cursor), fresh):
                if self._take(block, slot):
                    self._cursor[0] = block + 1
                    return int(block)
        raise NoRoomError(f"all {self.count:,} blocks of the cells file are in use")

    def _free(self, start: int, end: int) -> Iterator[int]:
        """Yield the blocks without an owner in a range; there may be thousands with an owner before them."""
        owners, at = bytes(self._owners_bytes[2 * start : 2 * end]), -1
        while (at := owners.find(_NOBODY, at + 1)) >= 0:
            if at % 2 == 0:
                yield start + at // 2

    def _take(self, block: int, slot: int) -> bool:
        with self.holding(block) as held:
            if not held or self.owners[block]:
                return False
            at = self.start + block * layout.PAGE
            reserve(self._file.fd, at, layout.PAGE)
            self.count_use(block)
            self._bytes[at : at + layout.PAGE] = _ZEROS
            self.owners[block] = slot + 1
            return True

    def count_use(self, block: int) -> None:
        """Raise the generation of a block, before it or some of its cells are used again; see `changed`."""
        self.generations[block] = (self.generations[block] + 1) % 2**32 or 1

    def ever(self) -> int:
        """Return how many blocks, from the first, have ever been given out."""
        while piece := bytes(self.generations[self._ever : self._ever + _GAP]).rstrip(b"\0"):
            self._ever += (len(piece) + 3) // 4
        return self._ever

    def used(self) -> int:
        """Return how many blocks have an owner."""
        return self.ever() - self.owners[: self.ever()].tolist().count(0)

    def owned_by(self, slot: int) -> list[int]:
        """Return the blocks of a slot. It searches bytes, because settling many processes calls it for each of them."""
        owners, wanted = bytes(self.owners[: self.ever()]), _OWNER.pack(slot + 1)
        found: list[int] = []
        at = owners.find(wanted)
        while at >= 0:
            if at % _OWNER.size == 0:
                found.append(at // _OWNER.size)
            at = owners.find(wanted, at + 1)
        return found

    def free(self, slot: int, *, wiped: bool) -> None:
        """Free every block of a slot. wiped: overwrite them; a scrape that is reading one then begins again."""
        for block in self.owned_by(slot):
            if wiped:
                self.wipe(block)
            self.owners[block] = 0

    def wipe(self, block: int) -> None:
        """Overwrite a block that nobody uses any more.

        The header of an extent goes first: a reader of the rest then finds that it is no part of that journal.
        """
        self.count_use(block)
        at = self.start + block * layout.PAGE
        self._bytes[at : at + layout.EXTENT_HEADER.size] = _ZEROS[: layout.EXTENT_HEADER.size]
        self._bytes[at : at + layout.PAGE] = _ZEROS

    def wipe_free(self) -> None:
        """Overwrite all blocks that were given out once and have no owner now. Call it inside `Part.binding`."""
        for block in [block for block, owner in enumerate(self.owners[: self.ever()].tolist()) if not owner]:
            with self.holding(block) as held:
                if held and not self.owners[block]:
                    self.wipe(block)

    @contextmanager
    def holding(self, block: int) -> Iterator[bool]:
        """Keep other processes from claiming a block; False if one is about to.

        The lock belongs to the whole process, so call it while no other thread claims blocks: inside `Part.binding`.
        """
        lock_at = self._owners_at + 2 * block
        held = locks.try_lock(self._file.fd, lock_at)
        try:
            yield held
        finally:
            if held:
                locks.unlock(self._file.fd, lock_at)

    def census(self) -> Census:
        """Return owner and generation of every block that was ever given out, for `changed`."""
        ever = self.ever()
        return Census(self.owners[:ever].tolist(), self.generations[:ever].tolist())

    def changed(self, census: Census) -> bool:
        """Whether a block that had an owner at the census has been given out again since."""
        now = self.generations[: len(census.generations)].tolist()
        return now != census.generations and any(
            owner and generation != new for owner, generation, new in zip(*census, now, strict=True)
        )


def reserve(fd: int, offset: int, length: int) -> None:
    """Make sure that the bytes exist on the disk: then a full disk is an OSError here, and never a SIGBUS later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, length)
    elif len(os.pread(fd, length, offset).strip(b"\0")) == 0:
        os.pwrite(fd, bytes(length), offset)
