"""Cells that a process owns: in the cells file, or, for want of room there, in its memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from ..process.wiped import wiped_bytes
from . import exact, layout, marks
from .cellsfile import CellsFile
from .exemplars import BACKLOG, SHARE
from .images import Image
from .journal import JournalWriter, refuse_longer
from .records import FamilyRecord, ProcessRecord, child_record, family_record, process_record
from .shape import LIVE_MODES, Family, Key, Metadata, Shape, metadata, news

_PRIVATE_CELLS = 4096
LONGEST_HELP = 1 << 16
"""Characters of a help text that others are told; with it, any record of a family is short enough for a journal."""
_UNMARKED = bytes(layout.MARKS)
_SHORT = 1000
"""Characters of label values that are short enough for a journal, whatever they are."""
_quoted = json.encoder.encode_basestring_ascii
Run = tuple[int, int]
"""(first cell, how many)"""
ENOUGH = layout.BLOCK_CELLS - layout.FIRST_CELL
"""Cells that rest before they are given out, all of them together: a block's worth. A scrape that is under way then
begins again, and under constant removals that must not happen all the time."""


class Freed:
    """Cells that no child has any more, no row and no mark, on their way to be other children's.

    A scrape may still take those that rest for what they were; see `SharedArena.recycle`.
    unread: of those that rest, and are not zero yet, with the erasure after which nobody reads them for what they were.
    """

    def __init__(self) -> None:
        self._resting: list[Run] = []
        self._resting_cells = 0
        self.unread: list[tuple[int, Run]] = []
        self._ready: dict[int, list[int]] = {}  # length: first cells

    def rest(self, runs: Iterable[Run], erasure: int) -> None:
        """Take cells that have no row and no mark any more. erasure: number of the one that is asked for them."""
        for run in runs:
            self.unread.append((erasure, run))
            self._resting.append(run)
            self._resting_cells += run[1]

    def end_rest(self) -> list[Run]:
        """Make the cells that rest ready to be taken, if they are enough, and return them."""
        if self._resting_cells < ENOUGH:
            return []
        released, self._resting, self._resting_cells, self.unread = self._resting, [], 0, []
        ready = [(cell, length) for length, cells in self._ready.items() for cell in cells]
        self._ready = {}
        for cell, length in joined(ready + released):
            self.put(cell, length)
        return released

    def take(self, count: int) -> int | None:
        """Take cells in a row and return the first; None if there are none."""
        if not self._ready:
            return None
        length = min((one for one in self._ready if one >= count), default=None)
        if length is None:
            return None
        cells = self._ready[length]
        cell = cells.pop()
        if not cells:
            del self._ready[length]
        if length > count:
            self.put(cell + count, length - count)
        return cell

    def put(self, cell: int, length: int) -> None:
        """Make cells in a row ready to be taken."""
        self._ready.setdefault(length, []).append(cell)


def joined(runs: list[Run]) -> Iterable[Run]:
    """The same cells in the longest runs. Between two blocks are the bits of the second, so none goes on there."""
    start = end = -1
    for cell, length in sorted(runs):
        if cell != end:
            if start >= 0:
                yield start, end - start
            start = cell
        end = cell + length
    if start >= 0:
        yield start, end - start


class SharedArena:
    """Cells in the cells file, held by a slot of this process.

    An operation may go on while ``own[0] == word[0]``: `own` is a byte that a fork sets to zero, `word` the
    slot's stale byte, which other processes change to be noticed.

    keys: whose the cells are, by the first value of each child. live: of these, the gauges whose rows
    `mark_process_dead` deletes. leaving: cells that were given back; there may be rows
    of them, and marks on them. is_left: whether its children have to move to other cells, see `writer`.
    """

    def __init__(self, file: CellsFile, identifier: str, store: str, lost: list[int], *, is_held_back: bool = False):
        card = process_record(_card(identifier, store, lost))
        refuse_longer(len(card))
        self.file = file
        self.slot = file.claim_slot()
        self.uses = file.uses[self.slot]
        self.instance = layout.instance_of(self.uses, self.slot)
        self.word = file.stale[self.slot : self.slot + 1]
        self.cells = file.cells
        self._next = self._end = 0
        self._families: dict[Family, Metadata] = {}
        self._records: dict[Shape, str] = {}  # of families that others have been told all of, up to this news
        self._told_upto = news.count
        self.flushed: dict[int, bytes] = {}  # block: what of it is in rows
        self.ingested = 0  # bytes of the journal that are rows
        self.stamped = False  # whether some of the cells are timestamps
        self._anew: set[int] = set()  # blocks of which rows were made again: they show 0
        self.keys: dict[int, Key] = {}
        self.live: dict[Key, None] = {}
        self.leaving: list[Run] = []
        self.is_left = False
        self._freed = Freed()
        try:
            self.own = wiped_bytes.take()
            self.journal = JournalWriter(file, self.slot, is_held_back=is_held_back)  # see `writer`
            self.journal.append(card)
        except BaseException:
            file.spare(self.slot)
            raise
        self.resume()

    def is_active(self) -> bool:
        """Whether operations are let through."""
        return self.own[0] == self.word[0]

    def resume(self) -> None:
        """Let operations through again."""
        self.own[0] = layout.mark_of(self.uses)

    def is_mine(self) -> bool:
        """Whether the slot is still this process's; False once another process has settled it."""
        return self.file.hold(self.slot, self.uses)

    def is_noticed(self) -> bool:
        """Whether another process wants this one to look at its slot; any byte but the mark says so."""
        return self.word[0] != layout.mark_of(self.uses)

    def answer(self) -> bool:
        """Answer a notice, and let no operation through until `resume`: all are to look for their places anew.

        Returns whether the rows of the live gauges were deleted. A notice that comes from now on is another one.
        """
        self.word[0] = layout.mark_of(self.uses)
        self._unbind()
        self._families.clear()
        self._records.clear()
        lapsed = self.file.lapsed[self.slot] != 0
        self.file.lapsed[self.slot] = 0
        return lapsed

    def publish(self) -> None:
        """Show others what was held back, see `writer`; what a flush has made of the cells meanwhile led to no rows."""
        if self.journal.is_held_back:
            self._anew.update(self.flushed)
            self.journal.publish()

    def renew(self) -> None:
        """Have every value that is bound here look for its place anew."""
        self._unbind()
        self.resume()

    def _unbind(self) -> None:
        self.own[0] = 0
        self.own = wiped_bytes.take()

    def place(self, key: Key, former: Place | None = None, created: float | None = None) -> Place:
        """Give a child cells, with the values that it has, and announce it in the journal.

        created: when it was made, in seconds since the epoch; default: now.
        Raises TooLongError, or another OSError for want of room; then nothing has been taken.
        """
        shape = key[0]
        cell = self.allocate(shape.cells)
        place: Place = tuple.__new__(Place, (self, cell))  # in half of the time of Place(...)
        if former is not None:
            former.copy_to(place, key)
        try:
            self.journal.append(self._record_of(key, cell, created))
        except OSError:
            self.take_back(cell, shape.cells)
            raise
        self.keys[cell + shape.stamped] = key
        if shape.mode in LIVE_MODES:
            self.live[key] = None
        return place

    def give_back(self, key: Key, cell: int) -> None:
        """Have the cells of a child leave, which nobody uses any more; see `rows.removal` for their way."""
        shape = key[0]
        del self.keys[cell + shape.stamped]
        self.live.pop(key, None)
        self.leaving.append((cell, shape.cells))

    def _record_of(self, key: Key, cell: int, created: float | None = None) -> str:
        """The record of a child, whose family others are told of. Raises what `place` raises."""
        shape, labelvalues = key
        record = self._records.get(shape) if self._told_upto == news.count else None
        if record is None:
            record = self._begin_record(shape)
        for text in labelvalues:
            if len(text) > _SHORT:
                refuse_longer(sum(map(len, labelvalues)))  # before a text is made of them
                break
        quoted = ", ".join(map(_quoted, labelvalues))
        created = exact.now() if created is None else created
        return f"{record}[{quoted}], {cell + shape.stamped}, {created!r}]"

    def _begin_record(self, shape: Shape) -> str:
        """Tell of a family what is to be told of it, and return what the records of its children begin with."""
        if self._told_upto != news.count:
            self._told_upto = news.count
            self._records.clear()
        self.stamped |= shape.stamped
        self.describe((shape.family, shape.type, shape.mode))
        record = child_record(shape)
        if shape.type != "info":  # each of its label sets has a shape of its own
            self._records[shape] = record
        return record

    def announce_again(self, key: Key, cell: int) -> None:
        """Append the record of a child whose rows were deleted. Raises what `place` raises."""
        self.journal.append(self._record_of(key, cell))
        self._anew.add(cell // layout.BLOCK_CELLS)

    def describe(self, family: Family) -> None:
        """Append the record of a family unless all that is to be said of it is known."""
        about = metadata[family]
        if self._families.get(family) is not about:
            name, type_, mode = family
            help_, made, unit, registered = about
            record = FamilyRecord(name, type_, mode, help_[:LONGEST_HELP], made, unit, registered)
            self.journal.append(family_record(record))
            self._families[family] = about

    def has_told_less(self, family: Family) -> bool:
        """Whether others know this family from here, but not all that has come up about it."""
        return self._families.get(family, metadata[family]) is not metadata[family]

    def allocate(self, count: int) -> int:
        """Take `count` cells in a row. Raises OSError where there is no room."""
        freed = self._freed.take(count)
        if freed is not None:
            return freed
        if self._next + count > self._end:
            block = self.file.blocks.claim(self.slot)
            self._next = block * layout.BLOCK_CELLS + layout.FIRST_CELL
            self._end = (block + 1) * layout.BLOCK_CELLS
            self.flushed[block] = bytes(layout.PAGE)
        cell = self._next
        self._next = cell + count
        return cell

    def take_back(self, cell: int, count: int) -> None:
        """Take back cells that nobody has heard of."""
        self._zero([(cell, count)])
        self._freed.put(cell, count)

    def has_news(self) -> bool:
        """Whether the journal holds more than the rows."""
        return self.backlog() > 0

    def backlog(self) -> int:
        """How many bytes of the journal are not in the rows yet."""
        return self.file.published[self.slot] - self.ingested

    def has_room_to_spare(self) -> bool:
        """Whether journals may grow by what can wait: exemplars. The room is needed for new children."""
        return self.backlog() <= BACKLOG or self.file.extents.used() < layout.EXTENTS // SHARE

    def changed_blocks(self) -> list[int]:
        """The blocks of which something is not in the rows yet."""
        blocks = self.flushed.copy()  # in one go: a child may get a block meanwhile
        return [b for b, known in blocks.items() if b in self._anew or self.file.image(b) != known]

    def take_images(self, blocks: list[int]) -> dict[int, Image]:
        """Copy blocks that are about to be flushed; follow it by `note_flushed` or `not_flushed`."""
        shown = {block: None if block in self._anew else self.flushed[block] for block in blocks}
        self._anew.difference_update(blocks)
        return {block: Image(self.file.image(block), known) for block, known in shown.items()}

    def note_flushed(self, images: dict[int, Image]) -> None:
        """Remember what the rows show now; marks that were found are never known, so that they are looked at."""
        self.flushed.update((block, _UNMARKED + image.now[layout.MARKS :]) for block, image in images.items())

    def not_flushed(self, images: dict[int, Image]) -> None:
        """Have these blocks flushed the next time, whether or not they change."""
        self._anew.update(images)

    def removed(self) -> list[Key]:
        """The children whose series were removed by other processes."""
        marked = marks.marked(self.file, self.flushed.copy())
        return [self.keys[cell] for cell in marked if cell in self.keys]

    def has_unread(self) -> bool:
        """Whether there are cells for `zero_unread`."""
        return bool(self._freed.unread)

    def recycle(self, runs: list[Run]) -> None:
        """Take back cells that have no row and no mark, after the COMMIT that saw to it; give out those that rested.

        runs: the first of those that leave.

        A scrape with an older snapshot may read them for what they were: it begins again if their block's use is
        another. One with a newer snapshot knows nothing of them. Call it between flushes: what the rows show of these
        cells is 0.
        """
        del self.leaving[: len(runs)]
        self._freed.rest(runs, self.file.truncating.state()[0])
        released = self._freed.end_rest()
        shown = {cell // layout.BLOCK_CELLS: bytearray() for cell, _ in released}
        for block in shown:
            self.file.blocks.count_use(block)
            shown[block] += self.flushed[block]
        self._zero(released)
        for cell, count in released:
            block, place = divmod(cell, layout.BLOCK_CELLS)
            shown[block][8 * place : 8 * (place + count)] = bytes(8 * count)
        self.flushed.update((block, bytes(known)) for block, known in shown.items())

    def _zero(self, runs: list[Run]) -> None:
        for cell, count in runs:
            self.cells[cell : cell + count] = memoryview(bytes(8 * count)).cast("d")

    def zero_unread(self) -> None:
        """Overwrite cells that rest, once no snapshot is left in which a child has them; call it inside `binding`.

        The WAL cannot be cut off before: see `erasure`.
        """
        done = self.file.truncating.state()[1]
        self._zero([run for erasure, run in self._freed.unread if erasure <= done])
        self._freed.unread = [one for one in self._freed.unread if one[0] > done]

    def is_intact(self) -> bool:
        """Whether every block is still this slot's; it is, but for damage to the file's directory."""
        owners = self.file.blocks.owners
        return all(owners[block] == self.slot + 1 for block in self.flushed.copy())

    def leave_behind(self) -> None:
        """Never write here again; what was written is in other cells, so others must not settle it.

        The life lock stays: a process that has the old file open, and not the new one, may make another of it.
        """
        self.is_left = True
        self.own[0] = 0

    def abandon(self) -> None:
        """Never write here again, and let others settle what was written."""
        self.own[0] = 0
        self.file.let_go(self.slot)


class PrivateArena:
    """Cells in this process's memory. is_left: whether its children have to move to other cells, see `writer`."""

    def __init__(self) -> None:
        self.is_left = False
        self.own = wiped_bytes.take()
        self.word = memoryview(b"\1")
        self.cells = memoryview(bytearray(8 * _PRIVATE_CELLS)).cast("d")
        self._next = 0
        self.resume()

    def is_active(self) -> bool:
        """Whether operations are let through."""
        return self.own[0] == self.word[0]

    def resume(self) -> None:
        """Let operations through again."""
        self.own[0] = 1

    def renew(self) -> None:
        """Every value that is bound here looks for its place anew."""
        self.own[0] = 0
        self.own = wiped_bytes.take()
        self.resume()

    def place(self, count: int) -> int:
        """Take `count` cells in a row and return the first, or -1 when this arena is full."""
        cell = self._next
        self._next = cell + count  # nothing may come between these two lines: there is no call in them
        return cell if cell + count <= _PRIVATE_CELLS else -1

    def leave_behind(self) -> None:
        """Have the children move; whoever uses a value meanwhile takes it along."""
        self.is_left = True
        self.own[0] = 0

    def abandon(self) -> None:
        """Never write here again."""
        self.own[0] = 0


Arena = SharedArena | PrivateArena


class Place(NamedTuple):
    """Where a child's cells are."""

    arena: Arena
    cell: int

    def copy_to(self, new: Place, key: Key) -> None:
        """Copy the values of a child to cells that nobody uses yet."""
        count = key[0].cells
        new.arena.cells[new.cell : new.cell + count] = self.arena.cells[self.cell : self.cell + count]


def private_place(arenas: list[PrivateArena], key: Key, former: Place | None = None) -> Place:
    """Take cells in the last of the arenas, or in a new one, for the values that a child has, if it has any."""
    count, cell = key[0].cells, -1
    if arenas:
        cell = arenas[-1].place(count)
    if cell < 0:
        arenas.append(PrivateArena())
        cell = arenas[-1].place(count)
    place = Place(arenas[-1], cell)
    if former is not None:
        former.copy_to(place, key)
    return place


def _card(identifier: str, store: str, lost: list[int]) -> ProcessRecord:
    return ProcessRecord(identifier, exact.own_pid(), pid_namespace(), exact.system_now(), store, lost)


def pid_namespace() -> int:
    """The inode number of this process's pid namespace, 0 where the system has none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
