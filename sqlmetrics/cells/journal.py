"""A process's journal: one record for each new child, readable by all before any row of it exists.

The journal is a stream of frames over a chain of extents in the cells file. A frame is 4 bytes of length, 4
bytes of CRC-32, and a JSON array. The stream's length is published after the bytes are written, so a reader
sees a frame whole or not at all; the checksum catches what a crash or a damaged disk left.
Extents whose frames are rows by now are given back.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..errors import DamagedError
from ..process import fork
from . import layout
from .cellsfile import CellsFile
from .records import ChildRecord, ProcessRecord, Record, unknown_process
from .region import NoRoomError
from .sense import NonsenseError, decode

FRAME = struct.Struct("=II")
LONGEST = 1 << 20
"""Bytes of a frame: 64 times the longest label that anybody needs, and one 64th of the room of all journals."""
_MODEST = 16
"""A journal of up to so many extents (64 KiB) may grow as long as there is any room."""


class TooLongError(NoRoomError):
    """A record is longer than any journal takes. length: of the record, in bytes; at least so many."""

    def __init__(self, length: int):
        super().__init__(f"a record of {length:,} bytes is too long, {LONGEST:,} is the most")
        self.length = length


def refuse_longer(length: int) -> None:
    """Raise TooLongError for a record that takes at least so many bytes."""
    if length + FRAME.size > LONGEST:
        raise TooLongError(length)


class JournalGoneError(Exception):
    """The wanted part of a journal has been settled or given back meanwhile. Read the rows again."""


class JournalWriter:
    """Appends to the journal of one slot of this process.

    is_held_back: whether other processes see nothing of it before `publish`.
    """

    def __init__(self, file: CellsFile, slot: int, *, is_held_back: bool = False):
        self.is_held_back = is_held_back
        self._file = file
        self._bytes = file.bytes
        self._slot = slot
        self._instance = layout.instance_of(file.uses[slot], slot)
        self._extents: list[int] = []  # those not given back yet, the oldest first
        self._oldest = 0  # the number of the oldest in the journal
        self._end = 0
        self._last = 0  # where the last extent begins, in the journal and in the file
        self._last_at = 0
        self._grow(1)

    def append(self, text: str) -> None:
        """Append one record (ASCII JSON) and publish it.

        Raises TooLongError, or another OSError when no extent can be had; then nothing has been taken.
        """
        payload = text.encode("ascii")
        length = len(payload)
        frame = FRAME.pack(length, zlib.crc32(payload)) + payload
        end = self._end + length + FRAME.size
        place = self._end - self._last
        if place >= 0 and end <= self._last + layout.EXTENT_PAYLOAD:  # as usual, it fits into the last extent
            at = self._last_at + place
            self._bytes[at : at + FRAME.size + length] = frame
            self._end = end
        else:
            refuse_longer(length)
            self._grow(-(-end // layout.EXTENT_PAYLOAD) - self._oldest - len(self._extents))
            self._write(frame)
        if not self.is_held_back:
            self._file.published[self._slot] = self._end

    def publish(self) -> None:
        """Show the journal to other processes if it was held back."""
        if self.is_held_back:
            self.is_held_back = False
            self._file.published[self._slot] = self._end

    def _write(self, data: bytes) -> None:
        while data:
            number, offset = divmod(self._end, layout.EXTENT_PAYLOAD)
            piece = data[: layout.EXTENT_PAYLOAD - offset]
            at = _address(self._extents[number - self._oldest]) + layout.EXTENT_HEADER.size + offset
            self._file.bytes[at : at + len(piece)] = piece
            self._end += len(piece)
            data = data[len(piece) :]

    def _grow(self, count: int) -> None:
        """Take `count` more extents, all of them or none."""
        if count > 0:
            self._leave_room(count)
        taken: list[int] = []
        try:
            while len(taken) < count:
                taken.append(self._file.extents.claim(self._slot))
        except OSError:
            for extent in taken:
                self._file.extents.owners[extent] = 0
            raise
        for extent in taken:
            self._link(extent)

    def _leave_room(self, count: int) -> None:
        """Raise NoRoomError if a long journal would become longer than the room that is left for all others."""
        length, extents = len(self._extents) + count, self._file.extents
        most_left = extents.count - extents.ever() - count
        if length > max(_MODEST, most_left) and length > extents.count - extents.used() - count:
            raise NoRoomError(f"{length:,} extents of {extents.count:,} for one process would leave others too few")

    def _link(self, extent: int) -> None:
        number = self._oldest + len(self._extents)
        layout.EXTENT_HEADER.pack_into(self._file.bytes, _address(extent), self._instance, 0, number)
        if self._extents:
            # Only the pointer to the next extent changes, as others may be reading the rest of the header.
            self._file.bytes[_address(self._extents[-1]) + 8 :][:4] = struct.pack("=I", extent + 1)
        else:
            self._file.first[self._slot] = extent
        self._extents.append(extent)
        self._last, self._last_at = number * layout.EXTENT_PAYLOAD, _address(extent) + layout.EXTENT_HEADER.size

    def release(self, upto: int) -> None:
        """Give back the extents that lie wholly before `upto` (bytes of the stream, committed as rows)."""
        while len(self._extents) > 1 and (self._oldest + 1) * layout.EXTENT_PAYLOAD <= upto:
            self._file.first[self._slot] = self._extents[1]
            extent = self._extents.pop(0)
            self._file.extents.wipe(extent)
            self._file.extents.owners[extent] = 0
            self._oldest += 1


def _address(extent: int) -> int:
    return layout.JOURNALS_AT + extent * layout.PAGE


class Reading(NamedTuple):
    """A part of a journal.

    end: the number of the byte after it. left_out: for each record that makes no sense, what is wrong with it.
    """

    records: list[Record]
    end: int
    left_out: list[str]


def read(
    file: CellsFile,
    slot: int,
    instance: int,
    start: int,
    decode: Callable[[bytes], Record] = decode,
    *,
    most: int | None = None,
) -> Reading:
    """Return the records of an instance from byte `start` on; at most `most` bytes of them, but at least one.

    decode: makes a record of the JSON in a frame; for many journals a `sense.Decoder`.

    A record that makes no sense is left out. If that is the process's own record, the first one, a stand-in takes its
    place, so that scrapes show what the process counts.
    Raises JournalGoneError if the slot is another instance's by now or the extents were given back, and
    DamagedError if there is something else than frames.
    """
    published, wiping = file.published[slot], file.wiping.state()
    end = published if most is None else min(published, start + most)
    try:
        data = _bytes(file, slot, instance, start, end) if start < end else b""
        if not file.has(slot, instance):
            raise JournalGoneError
        reading = _records(
            data,
            start,
            decode,
            lambda record: _refuse(file, slot, record),
            lambda length: _may_be_wiped(file, wiping, length),
            is_part=end < published,
        )
    except (struct.error, IndexError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise DamagedError(f"the journal in slot {slot} of the cells file is damaged ({error!r})") from error
    if reading.left_out and not file.has(slot, instance):
        raise JournalGoneError  # no nonsense: the cells may just have another owner by now
    if reading.end == start and end < published:
        return read(file, slot, instance, start, decode, most=2 * LONGEST)
    if start == 0 and reading.end and not any(isinstance(record, ProcessRecord) for record in reading.records):
        reading.records.insert(0, unknown_process(instance))
    return reading


def _may_be_wiped(file: CellsFile, before: tuple[int, int], length: int) -> bool:
    """Whether something else than a frame is no damage, because a process has wiped journals.

    It may also be wiping now, or have been killed while it did. before: the chore's state before the reading. length:
    the number in the place of a frame's length.
    """
    now = file.wiping.state()
    return now != before or not file.wiping.is_done() or (length == 0 and now != (0, 0))


def _records(
    data: bytes,
    start: int,
    decode: Callable[[bytes], Record],
    refuse: Callable[[Record], None],
    may_be_wiped: Callable[[int], bool],
    *,
    is_part: bool,
) -> Reading:
    """is_part: whether the last record may go on behind the data."""
    records: list[Record] = []
    left_out: list[str] = []
    at = 0
    while at + FRAME.size <= len(data):
        fork.give_way()  # 60 MiB of them take seconds
        length, checksum = FRAME.unpack_from(data, at)
        payload = data[at + FRAME.size : at + FRAME.size + length]
        if is_part and len(payload) < length <= LONGEST:
            break
        if not length or len(payload) < length or zlib.crc32(payload) != checksum:
            if may_be_wiped(length):
                raise JournalGoneError
            if at:
                break  # return these first; reading on from here raises
            raise ValueError(f"the checksum at byte {start + at} is wrong")
        try:
            record = decode(payload)
            refuse(record)
            if isinstance(record, ProcessRecord) and start + at:
                raise NonsenseError(f"a second record of the process: {record.pid[:200]!a}")
            records.append(record)
        except NonsenseError as error:
            left_out.append(str(error))
        at += FRAME.size + length
    return Reading(records, start + at, left_out)


def _refuse(file: CellsFile, slot: int, record: Record) -> None:
    """Raise NonsenseError unless the cells of a child are in one block, which its process owns."""
    if isinstance(record, ChildRecord):
        first = record.cell - record.stamped
        block, place = divmod(first, layout.BLOCK_CELLS)
        end = place + len(record.names) * (2 if record.stamped else 1)
        fits = 0 <= block < layout.CELL_BLOCKS and place >= layout.FIRST_CELL and end <= layout.BLOCK_CELLS
        if not fits or file.blocks.owners[block] != slot + 1:
            raise NonsenseError(f"a child of {record.family!a} in cell {record.cell}, which its process does not own")


def _bytes(file: CellsFile, slot: int, instance: int, start: int, end: int) -> bytes:
    pieces = []
    extent, previous = file.first[slot], -1
    while start < end:
        address = _address(extent)
        owner, following, number = layout.EXTENT_HEADER.unpack_from(file.bytes, address)
        base = number * layout.EXTENT_PAYLOAD
        if owner != instance or base > start:  # checked first, as the extent may have another owner by now
            raise JournalGoneError
        if number <= previous:
            if layout.EXTENT_HEADER.unpack_from(file.bytes, address)[0] != instance:
                raise JournalGoneError  # wiped between two looks at its header
            raise ValueError(f"extent {number} of the journal follows extent {previous}")
        previous = number
        if start < base + layout.EXTENT_PAYLOAD:
            first = address + layout.EXTENT_HEADER.size + start - base
            piece = bytes(file.bytes[first : first + min(end - start, base + layout.EXTENT_PAYLOAD - start)])
            if layout.EXTENT_HEADER.unpack_from(file.bytes, address)[::2] != (owner, number):
                raise JournalGoneError  # also where the same process has it again, for what it wrote later
            pieces.append(piece)
            start += len(piece)
        if start < end:
            if not following:
                raise JournalGoneError
            extent = following - 1
    return b"".join(pieces)


def wipe(file: CellsFile, committed: Mapping[int, int]) -> bool:
    """Overwrite the part of each journal that is in rows. committed: by instance, how many bytes that are.

    Call it with the write lock held, and while no other thread of this process claims extents. False if an extent was
    left out because another process was about to claim it.
    """
    owners = file.extents.owners[: file.extents.ever()].tolist()
    missed = [extent for extent, owner in enumerate(owners) if owner and not _wipe(file, extent, owner, committed)]
    return not missed


def _wipe(file: CellsFile, extent: int, owner: int, committed: Mapping[int, int]) -> bool:
    at = _address(extent)
    instance, _, number = layout.EXTENT_HEADER.unpack_from(file.bytes, at)
    length = min(committed.get(instance, 0) - number * layout.EXTENT_PAYLOAD, layout.EXTENT_PAYLOAD)
    if length <= 0:
        return True
    with file.extents.holding(extent) as held:  # it may be given back meanwhile, but not claimed
        header = layout.EXTENT_HEADER.unpack_from(file.bytes, at)
        if held and file.extents.owners[extent] == owner and header[::2] == (instance, number):
            first = at + layout.EXTENT_HEADER.size
            file.bytes[first : first + length] = bytes(length)
    return held
