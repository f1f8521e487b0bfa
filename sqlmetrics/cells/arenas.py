"""The cells that a process owns, in the cells file or, if that has no room, in the process's memory."""

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
"""The most characters of a help text that go to a journal; so any record of a family is short enough for one."""
_UNMARKED = bytes(layout.MARKS)
_SHORT = 1000
"""Label values with no more characters than this are short enough for a journal, whatever the characters are."""
_quoted = json.encoder.encode_basestring_ascii
Run = tuple[int, int]
"""(first cell, how many)"""
ENOUGH = layout.BLOCK_CELLS - layout.FIRST_CELL
"""So many cells rest before they are used again, all of them together: a block's worth. Running scrapes then begin
again, and under constant removals that must not happen all the time."""


class Freed:
    """Cells of removed children, without row or mark, that wait to be used again.

    They rest first, because a running scrape may still take them for what they were; see `SharedArena.recycle`.
    unread: those that rest and are not zeroed yet, each with the number of an erasure: after it, no scrape reads the
    cells as what they were.
    """

    def __init__(self) -> None:
        self._resting: list[Run] = []
        self._resting_cells = 0
        self.unread: list[tuple[int, Run]] = []
        self._ready: dict[int, list[int]] = {}  # length: first cells

    def rest(self, runs: Iterable[Run], erasure: int) -> None:
        """Let cells rest that have no row and no mark any more. erasure: the number of the one that their rows need."""
        for run in runs:
            self.unread.append((erasure, run))
            self._resting.append(run)
            self._resting_cells += run[1]

    def end_rest(self) -> list[Run]:
        """If enough cells rest, make them ready for new children, and return them."""
        if self._resting_cells < ENOUGH:
            return []
        released, self._resting, self._resting_cells, self.unread = self._resting, [], 0, []
        ready = [(cell, length) for length, cells in self._ready.items() for cell in cells]
        self._ready = {}
        for cell, length in joined(ready + released):
            self.put(cell, length)
        return released

    def take(self, count: int) -> int | None:
        """Take `count` ready cells in a row and return the first; None if there are none."""
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
        """Make cells in a row ready for new children."""
        self._ready.setdefault(length, []).append(cell)


def joined(runs: list[Run]) -> Iterable[Run]:
    """Yield the same cells in the longest runs. No run crosses blocks: each begins with a bitmap."""
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

    An operation may write while ``own[0] == word[0]``. `own` is a byte that a fork sets to zero. `word` is the slot's
    stale byte, which other processes change to notify this one.

    keys: the children, by the cell of their first value. live: those that are gauges of a `live*` mode, whose rows
    `mark_process_dead` deletes. leaving: cells that were given back, and may still have rows and marks. is_left:
    whether the children have to move to other cells, see `writer`.
    """

    def __init__(self, file: CellsFile, identifier: str, store: str, lost: list[int], *, is_held_back: bool = False):
        record = process_record(
            ProcessRecord(identifier, exact.own_pid(), pid_namespace(), exact.system_now(), store, lost)
        )
        refuse_longer(len(record))
        self.file = file
        self.slot = file.claim_slot()
        self.uses = file.uses[self.slot]
        self.instance = layout.instance_of(self.uses, self.slot)
        self.word = file.stale[self.slot : self.slot + 1]
        self.cells = file.cells
        self._next = self._end = 0
        self._families: dict[Family, Metadata] = {}
        self._records: dict[Shape, str] = {}  # as long as no family's metadata has changed
        self._told_upto = news.count
        self.flushed: dict[int, bytes] = {}  # block: its bytes as the rows show them
        self.ingested = 0  # bytes of the journal that are rows
        self.stamped = False  # whether some of the cells are timestamps
        self._anew: set[int] = set()  # blocks whose rows were made again, and so show 0
        self.keys: dict[int, Key] = {}
        self.live: dict[Key, None] = {}
        self.leaving: list[Run] = []
        self.is_left = False
        self._freed = Freed()
        try:
            self.own = wiped_bytes.take()
            self.journal = JournalWriter(file, self.slot, is_held_back=is_held_back)  # see `writer`
            self.journal.append(record)
        except BaseException:
            file.spare(self.slot)
            raise
        self.resume()

    def is_active(self) -> bool:
        """Whether operations may write to the cells."""
        return self.own[0] == self.word[0]

    def resume(self) -> None:
        """Let operations write to the cells again."""
        self.own[0] = layout.mark_of(self.uses)

    def is_mine(self) -> bool:
        """Whether the slot is still this process's; False once another process has settled it."""
        return self.file.hold(self.slot, self.uses)

    def is_noticed(self) -> bool:
        """Whether another process has notified this one: then the byte is anything but the mark."""
        return self.word[0] != layout.mark_of(self.uses)

    def answer(self) -> bool:
        """Answer a notice, and stop operations until `resume`, so that each value is bound again.

        Returns whether the rows of the `live*` gauges were deleted. A notice that comes from now on is another one.
        """
        self.word[0] = layout.mark_of(self.uses)
        self._unbind()
        self._families.clear()
        self._records.clear()
        lapsed = self.file.lapsed[self.slot] != 0
        if lapsed:  # else another process may be setting it right now, and its notice is still to come
            self.file.lapsed[self.slot] = 0
        return lapsed

    def publish(self) -> None:
        """Publish a journal that was held back, see `writer`. Flushes until now have found no rows for its cells."""
        if self.journal.is_held_back:
            self._anew.update(self.flushed)
            self.journal.publish()

    def renew(self) -> None:
        """Make every value that is bound here be bound again at its next operation."""
        self._unbind()
        self.resume()

    def _unbind(self) -> None:
        self.own[0] = 0
        self.own = wiped_bytes.take()

    def place(self, key: Key, former: Place | None = None, created: float | None = None) -> Place:
        """Give a child cells, copy its values there from its former place, and announce it in the journal.

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
        """Note that the cells of a child are free; `rows.removal` describes what happens to them."""
        shape = key[0]
        del self.keys[cell + shape.stamped]
        self.live.pop(key, None)
        self.leaving.append((cell, shape.cells))

    def _record_of(self, key: Key, cell: int, created: float | None = None) -> str:
        """Return the record of a child; first announce its family. Raises what `place` raises."""
        shape, labelvalues = key
        record = self._records.get(shape) if self._told_upto == news.count else None
        if record is None:
            record = self._begin_record(shape)
        for text in labelvalues:
            if len(text) > _SHORT:
                refuse_longer(sum(map(len, labelvalues)))  # before they are joined to one text
                break
        quoted = ", ".join(map(_quoted, labelvalues))
        created = exact.now() if created is None else created
        return f"{record}[{quoted}], {cell + shape.stamped}, {created!r}]"

    def _begin_record(self, shape: Shape) -> str:
        """Announce a family if there is news of it, and return what the records of its children begin with."""
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
        """Append the record of a family, unless the journal has its newest metadata already."""
        about = metadata[family]
        if self._families.get(family) is not about:
            name, type_, mode = family
            help_, made, unit, registered = about
            record = FamilyRecord(name, type_, mode, help_[:LONGEST_HELP], made, unit, registered)
            self.journal.append(family_record(record))
            self._families[family] = about

    def has_told_less(self, family: Family) -> bool:
        """Whether the journal has this family, but not its newest metadata."""
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
        """Take back cells that were not announced."""
        self._zero([(cell, count)])
        self._freed.put(cell, count)

    def has_news(self) -> bool:
        """Whether the journal holds more than the rows."""
        return self.backlog() > 0

    def backlog(self) -> int:
        """How many bytes of the journal are not in the rows yet."""
        return self.file.published[self.slot] - self.ingested

    def has_room_to_spare(self) -> bool:
        """Whether journals have room for exemplars, which can wait; new children need the rest of the room."""
        return self.backlog() <= BACKLOG or self.file.extents.used() < layout.EXTENTS // SHARE

    def changed_blocks(self) -> list[int]:
        """Return the blocks with cells that the rows do not show as they are."""
        blocks = self.flushed.copy()  # in one go: a child may get a block meanwhile
        return [b for b, known in blocks.items() if b in self._anew or self.file.image(b) != known]

    def take_images(self, blocks: list[int]) -> dict[int, Image]:
        """Copy blocks that are about to be flushed; call `note_flushed` or `not_flushed` afterwards."""
        shown = {block: None if block in self._anew else self.flushed[block] for block in blocks}
        self._anew.difference_update(blocks)
        return {block: Image(self.file.image(block), known) for block, known in shown.items()}

    def note_flushed(self, images: dict[int, Image]) -> None:
        """Remember what the rows show now. Marks are left out, so that a block with marks counts as changed."""
        self.flushed.update((block, _UNMARKED + image.now[layout.MARKS :]) for block, image in images.items())

    def not_flushed(self, images: dict[int, Image]) -> None:
        """Make the next flush write these blocks, whether or not they change."""
        self._anew.update(images)

    def removed(self) -> list[Key]:
        """Return the children whose series other processes have removed."""
        marked = marks.marked(self.file, self.flushed.copy())
        return [self.keys[cell] for cell in marked if cell in self.keys]

    def has_unread(self) -> bool:
        """Whether there are cells for `zero_unread`."""
        return bool(self._freed.unread)

    def recycle(self, runs: list[Run]) -> None:
        """Let cells rest whose rows and marks a COMMIT has deleted; zero those that have rested enough.

        runs: the first of those in `leaving`.

        A scrape with an older snapshot may read the zeroed cells as what they were, but finds another generation of
        their block, and begins again. One with a newer snapshot knows nothing of them. Call it between flushes: the
        rows show 0 for these cells.
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
        """Overwrite resting cells as soon as no scrape has a snapshot in which a child has them.

        That is so when the WAL has been cut off since, see `erasure`. Call it inside `binding`.
        """
        done = self.file.truncating.state()[1]
        self._zero([run for erasure, run in self._freed.unread if erasure <= done])
        self._freed.unread = [one for one in self._freed.unread if one[0] > done]

    def is_intact(self) -> bool:
        """Whether every block is still this slot's; if not, the file's directory is damaged."""
        owners = self.file.blocks.owners
        return all(owners[block] == self.slot + 1 for block in self.flushed.copy())

    def leave_behind(self) -> None:
        """Never write here again. The values are in other cells by now, so others must not settle the slot.

        So its lock stays: a process that has only the old file open may make a new one from it.
        """
        self.is_left = True
        self.own[0] = 0

    def abandon(self) -> None:
        """Never write here again, and let other processes settle the slot."""
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
        """Whether operations may write to the cells."""
        return self.own[0] == self.word[0]

    def resume(self) -> None:
        """Let operations write to the cells again."""
        self.own[0] = 1

    def renew(self) -> None:
        """Make every value that is bound here be bound again at its next operation."""
        self.own[0] = 0
        self.own = wiped_bytes.take()
        self.resume()

    def place(self, count: int) -> int:
        """Take `count` cells in a row and return the first, or -1 when this arena is full."""
        cell = self._next
        self._next = cell + count  # without a call, no signal handler comes between this line and the next
        return cell if cell + count <= _PRIVATE_CELLS else -1

    def leave_behind(self) -> None:
        """Make the children move to other cells, each with its next operation."""
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
    """Take cells in the last of the arenas, or in a new one, and copy a child's values there, if it has any."""
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


def pid_namespace() -> int:
    """The inode number of this process's pid namespace, 0 where the system has none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
