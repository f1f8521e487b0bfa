"""The cells file: an array of doubles and the processes' journals, mapped by every process of the store.

Who may write what, without any lock that a process could hold and die with:

* A *slot* belongs to the process that holds the record lock on its state byte.
* Its *state* and its *uses* are written by that process while it claims the slot, in the order CLAIMED, uses + 1,
  HELD, and by a settler, in the order SETTLED, FREE. Both hold the record lock on the slot's stale byte meanwhile,
  and its entry in a table of their process, because record locks do not keep two threads of one process apart.
  A settler writes SETTLED after the COMMIT that makes the rows say so. Whatever the moment, and wherever a writer is
  killed: uses only grow; while a slot is HELD its uses are those of the instance that has it; and while it is FREE or
  SETTLED the rows know that this instance was settled, or it was never used. What a claim that was killed leaves is
  CLAIMED, says nothing of the rows, and can be claimed again.
* So one look at all slots (`CellsFile.look`) takes the uses, the states, and the uses again: where both readings of the
  uses agree, the state is one that the slot had with them. Rows that are read after it are never behind it.
* A *block* (or journal extent) belongs to the slot named in the directory. It is claimed under a record lock
  on its directory entry, without waiting: a process that fails takes the next one.
* Settling a dead process frees its blocks, then its slot, after the COMMIT that folded its rows.

The descriptor and mapping of a file that is written to are not closed before the interpreter ends: closing any
descriptor of the file, the duplicate that `mmap` makes included, would release every record lock of this process on
it (POSIX).
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import StoreError
from . import layout, locks, ownership
from .chores import Chore
from .descriptors import Mapped, MappedFile, identity_of, mapped, note, open_file, opening, status_of
from .region import NoRoomError, Region, reserve


def boot_id() -> str:
    """Return the id of the machine's current boot (36 characters); a file of an earlier boot is not trusted."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:  # no /proc: then a reboot is taken for a restart
        return "0" * 36


class Header(NamedTuple):
    """What a cells file says of itself. store, pair: 32 hex digits each, also in the database; boot: see `boot_id`."""

    store: str
    pair: str
    boot: str
    uses: int


class Look(NamedTuple):
    """The states and the uses of all slots, read so that they fit together."""

    states: bytes
    uses: memoryview[int]

    def held(self) -> list[tuple[int, int]]:
        """(slot, instance) of every process that is not settled, dead or alive, or that has not let go yet."""
        used = enumerate(self.states.rstrip(b"\0"))
        return [(s, layout.instance_of(self.uses[s], s)) for s, state in used if state not in _UNUSED]


_UNUSED = (layout.FREE, layout.CLAIMED)


class CellsFile(MappedFile):
    """One mapped cells file. Get it with `open_cells`, which maps each file once per process."""

    def __init__(self, mapped: Mapped, path: str):
        super().__init__(mapped, path)
        self.own_slots = mapped.own_slots
        # By slot: what holds its stale byte in this process. Copies of older versions have mapped files without it.
        self._settlers: dict[int, object] = mapped.__dict__.setdefault("settlers", {})
        self.states: memoryview[int] = self.view(layout.STATE_AT, layout.STALE_AT, "B")
        self.stale: memoryview[int] = self.view(layout.STALE_AT, layout.USES_AT, "B")
        self.uses: memoryview[int] = self.view(layout.USES_AT, layout.FIRST_AT, "I")
        self._uses_bytes = self.bytes[layout.USES_AT : layout.FIRST_AT]
        self.first: memoryview[int] = self.view(layout.FIRST_AT, layout.PUBLISHED_AT, "I")
        self.published: memoryview[int] = self.view(layout.PUBLISHED_AT, layout.LAPSED_AT, "Q")
        self.lapsed: memoryview[int] = self.view(layout.LAPSED_AT, layout.SLOTS_END, "B")
        self.removals: memoryview[int] = self.view(layout.REMOVALS_AT, layout.REMOVALS_AT + 8, "Q")
        self.due: memoryview[float] = self.view(layout.CHECK_DUE_AT, layout.CHECK_DUE_AT + 8, "d")
        self.wiping, self.truncating, self.rebuilding, self.sweeping = (
            Chore(self.view(at, at + 16, "Q"), self.view(at + 16, at + 24, "d"))
            for at in range(layout.CHORES_AT, layout.CHORES_AT + 96, 24)
        )
        self.cells: memoryview[float] = self.view(layout.CELLS_AT, layout.CELLS_END, "d")
        self.blocks = Region(
            self,
            owners_at=layout.CELL_OWNERS_AT,
            generations_at=layout.CELL_GENERATIONS_AT,
            start=layout.CELLS_AT,
            count=layout.CELL_BLOCKS,
            cursor=0,
        )
        self.extents = Region(
            self,
            owners_at=layout.EXTENT_OWNERS_AT,
            generations_at=layout.EXTENT_GENERATIONS_AT,
            start=layout.JOURNALS_AT,
            count=layout.EXTENTS,
            cursor=1,
        )
        self._spare: list[tuple[int, int]] = []  # (slot, uses) that this process has claimed, and not used

    def header(self) -> Header | None:
        """Return the header; None if it is of another version, damaged, or copied from another file."""
        header = bytes(self.bytes[: layout.HEADER.size])
        magic, version, order, store, pair, boot, inode, uses = layout.HEADER.unpack(header)
        (checksum,) = layout.CHECKSUM.unpack_from(self.bytes, layout.HEADER.size)
        if (magic, version, order) != (layout.MAGIC, layout.LAYOUT_VERSION, layout.BYTE_ORDER):
            return None
        if checksum != zlib.crc32(header) or inode != self.identity[1]:
            return None
        texts = [field.decode("ascii", "replace") for field in (store, pair, boot)]
        return Header(texts[0], texts[1], texts[2], uses)

    def is_in_use(self) -> bool:
        """Whether any process that has a part of this file lives."""
        return any(self.is_alive(slot) for slot, _ in self.held_slots())

    def is_used_by_others(self) -> bool:
        """Whether another process that has a part of this file lives."""
        return any(slot not in self.own_slots and self.is_alive(slot) for slot, _ in self.held_slots())

    def doubt(self) -> None:
        """Ask the processes that write to the store to check its files, because something is damaged."""
        if self.writable:
            self.bytes[layout.DOUBT_AT] = 1

    def is_doubted(self) -> bool:
        """Whether a check of the files is due."""
        return self.bytes[layout.DOUBT_AT] != 0

    def trust(self) -> None:
        """Note that the files were found in order."""
        self.bytes[layout.DOUBT_AT] = 0

    def note_erasure(self) -> None:
        """Ask for the erasure of what a transaction deletes, within the transaction. See `erasure`."""
        for chore in (self.wiping, self.truncating, self.rebuilding):
            chore.ask()

    def image(self, block: int) -> bytes:
        """Return a copy of a block. It copies a timestamp before its value, while operations write the value first."""
        return bytes(self.block(block))

    def block(self, block: int) -> memoryview[int]:
        """Return the bytes of a block of cells, not copied."""
        at = layout.CELLS_AT + block * layout.PAGE
        return self.bytes[at : at + layout.PAGE]

    # --- slots -------------------------------------------------------------------------------------------

    def look(self) -> Look:
        """Read states and uses of all slots, as described above; takes 3 µs, or more if a process claims a slot."""
        while True:
            uses, states = bytes(self._uses_bytes), bytes(self.states)
            if uses == bytes(self._uses_bytes):
                return Look(states, memoryview(uses).cast("I"))

    def claim_slot(self) -> int:
        """Claim a free slot for this process, for as long as it lives, and return its number. Raises OSError."""
        while self._spare:
            slot, uses = self._spare.pop()
            if self.hold(slot, uses):
                return slot
            self.let_go(slot)
        for slot, state in enumerate(bytes(self.states)):
            if state in _UNUSED and slot not in self.own_slots:
                self.own_slots.add(slot)  # first: another thread of this process could lock it, too
                taken = False
                try:
                    taken = self._take_slot(slot)
                finally:
                    if not taken:
                        self.own_slots.discard(slot)
                if taken:
                    return slot
        raise NoRoomError(f"all {layout.SLOTS:,} process slots of the cells file are in use")

    def spare(self, slot: int) -> None:
        """Keep a claimed slot that has published nothing for this process's next claim.

        If it were given up, each failed try would leave a slot that another process has to settle.
        """
        if self.published[slot]:
            self.let_go(slot)
        else:
            self.extents.free(slot, wiped=True)
            self._spare.append((slot, self.uses[slot]))

    def let_go_spare(self) -> None:
        """Give up what was kept for the next claim."""
        while self._spare:
            self.let_go(self._spare.pop()[0])

    def _take_slot(self, slot: int) -> bool:
        if not locks.try_lock(self.fd, layout.STATE_AT + slot):
            return False
        taken = False
        try:
            taken = self._claim(slot)
        finally:
            if not taken:
                locks.unlock(self.fd, layout.STATE_AT + slot)
        return taken

    def _claim(self, slot: int) -> bool:
        # A settler that frees a slot holds its stale byte meanwhile.
        claimer = object()
        if not self._take_stale(slot, claimer):
            return False
        try:
            usable = self.states[slot] in _UNUSED and self.uses[slot] < layout.USES_LIMIT
            if usable:
                self._begin_use(slot)
            return usable
        finally:
            self.release(slot, claimer)

    def _begin_use(self, slot: int) -> None:
        """Do the writes of a claim; the module's docstring says why in this order."""
        self.states[slot] = layout.CLAIMED
        self.uses[slot] += 1
        self.published[slot] = 0
        self.lapsed[slot] = 0
        self.stale[slot] = layout.mark_of(self.uses[slot])
        self.states[slot] = layout.HELD

    def hold(self, slot: int, uses: int) -> bool:
        """Take a slot's lock again, in case code of this process has closed the file; False if the slot is lost.

        Never raises: a kernel that has no room for another lock (ENOLCK) keeps the one that there is.
        """
        life, stale = layout.STATE_AT + slot, layout.STALE_AT + slot
        try:
            held = locks.try_lock(self.fd, life) or not locks.is_locked(self.fd, life)  # refused, but nobody has it
            held = held and not locks.is_locked(self.fd, stale)  # being settled
        except OSError:
            held = True
        return held and self.states[slot] == layout.HELD and self.uses[slot] == uses

    def seize(self, slot: int, settler: object) -> bool:
        """Take a dead process's slot to settle it, until `release`; False if it lives or is seized.

        settler: an object that stands for the caller; other threads and signal handlers have others.
        The process may live after all, having lost its lock by closing the file (POSIX). Then its next operation finds
        the notice, sees that the slot is seized, and counts in cells of a new slot.
        """
        if self.is_alive(slot) or not self._take_stale(slot, settler):
            return False
        if self.is_alive(slot):  # it has taken its lock again meanwhile
            self.release(slot, settler)
            return False
        self.notify(slot)
        return True

    def _take_stale(self, slot: int, settler: object) -> bool:
        """Lock a slot's stale byte, against other processes by the kernel, against other threads by the table."""
        if self._settlers.setdefault(slot, settler) is not settler:
            return False
        taken = False
        try:
            taken = locks.try_lock(self.fd, layout.STALE_AT + slot)
        finally:
            if not taken:
                del self._settlers[slot]
        return taken

    def release(self, slot: int, settler: object) -> None:
        """Release a slot that this settler has seized."""
        if self._settlers.get(slot) is settler:
            locks.unlock(self.fd, layout.STALE_AT + slot)
            del self._settlers[slot]  # only now, or this would release another thread's lock

    def held_slots(self) -> list[tuple[int, int]]:
        """(slot, instance) of every process that is not settled, dead or alive."""
        return self.look().held()

    def are_unsettled(self, instances: Iterable[int]) -> bool:
        """Whether all of these instances still have their slots, and so their blocks, and are not settled."""
        look = self.look()
        return {i for slot, i in look.held() if look.states[slot] == layout.HELD}.issuperset(instances)

    def has(self, slot: int, instance: int) -> bool:
        """Whether no other instance has taken a slot since this one did."""
        return layout.instance_of(self.uses[slot], slot) == instance

    def is_alive(self, slot: int) -> bool:
        """Whether the process that holds a slot is alive, as the kernel says."""
        return slot in self.own_slots or locks.is_locked(self.fd, layout.STATE_AT + slot)

    def holder(self, slot: int) -> int:
        """Return the pid of the process that holds a slot, as seen from here; 0 if it is not visible."""
        return os.getpid() if slot in self.own_slots else locks.holder(self.fd, layout.STATE_AT + slot)

    def notify(self, slot: int) -> None:
        """Make the slot's process look at its slot before its next operation."""
        self.stale[slot] = layout.NOTICE

    def lapse(self, slot: int) -> None:
        """Tell the slot's process that the rows of its live gauges were deleted."""
        self.lapsed[slot] = 1
        self.notify(slot)

    def retire_slot(self, slot: int, instance: int, settler: object) -> None:
        """Free all that a settled instance had. Call it after the COMMIT that settled the instance.

        Does nothing if another settler has the slot: that one does the same. Blocks of a living process (after a forced
        reset) stay until it has let go, because it may be writing to them.
        """
        if not self._take_stale(slot, settler):
            return
        try:
            if self.states[slot] in _UNUSED or not self.has(slot, instance):
                return
            waited = self.states[slot] == layout.SETTLED  # after a reset, say: scrapes must not show its cells any more
            self.states[slot] = layout.SETTLED
            self.notify(slot)
            if not self.is_alive(slot):
                self.blocks.free(slot, wiped=waited)
                self.extents.free(slot, wiped=True)
                self.states[slot] = layout.FREE
        finally:
            self.release(slot, settler)

    def let_go(self, slot: int) -> None:
        """Give up the life lock of a slot of this process, which will not write to its blocks again."""
        self.own_slots.discard(slot)
        locks.unlock(self.fd, layout.STATE_AT + slot)

    def forget_own(self) -> None:
        """After a fork: the slots are the parent's, and so are their locks."""
        self.own_slots.clear()
        self._settlers.clear()
        self._spare = []


_opened: dict[tuple[int, int], CellsFile] = {}


def open_cells(path: str, *, writable: bool) -> CellsFile | None:
    """Map the cells file at `path`, or return None where there is none of the full size.

    A file that this process has mapped before, under any name, is not opened a second time. Raises InstallError if
    another interpreter of the process has mapped it.
    """
    status = status_of(path)
    if status is None:
        return None
    known = _known(identity_of(status), path)
    if known is not None and (known.writable or not writable):
        known.path = path
        known.stay_open()
        return known
    if status.st_size != layout.FILE_SIZE:
        return None
    _forget_replaced(path, identity_of(status))
    with opening(path, identity_of(status)):
        return _map(path, writable)


def _forget_replaced(path: str, identity: tuple[int, int]) -> None:
    """Let go of what was at this path before, and was only read: an exporter outlives an app that starts anew for ever.

    Each would keep two descriptors and 128 MiB of address space. A scrape that is reading one keeps it until it ends.
    """
    for before, file in _opened.copy().items():  # in one step: another thread may open one
        if before != identity and file.path == path and file.forget():
            _opened.pop(before, None)


def _known(identity: tuple[int, int], path: str) -> CellsFile | None:
    """Return a file that this interpreter has mapped, perhaps by another copy of this package."""
    if identity not in _opened and identity in mapped():
        _opened[identity] = CellsFile(mapped()[identity], path)
    return _opened.get(identity)


def _map(path: str, writable: bool) -> CellsFile:
    fd = ownership.open_checked(path, os.O_RDWR if writable else os.O_RDONLY, looking=not writable)
    try:
        return _enter(fd, path, mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    except BaseException:
        os.close(fd)  # no slot of this file is this process's
        raise


def _enter(fd: int, path: str, access: int) -> CellsFile:
    """Map a file and note it, and return the one object for it. Raises OSError, and leaves the descriptor open then.

    Another file may have been at the path when it was looked at, and this one, which was known already, may have come
    back since.
    """
    mapping = note(Mapped(fd, mmap.mmap(fd, layout.FILE_SIZE, access=access)))
    file = _opened.get(mapping.identity)
    if file is None or not file.uses_mapping(mapping):
        file = _opened[mapping.identity] = CellsFile(mapping, path)
    file.path = path
    return file


def create_cells(path: str, store: str, pair: str, *, uses: int, mode: int, gid: int) -> CellsFile:
    """Make a new cells file for the store and the pair with these ids. Raises OSError.

    uses: where each slot's count of uses begins, so that no instance id is used a second time.
    """
    fd = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        if gid >= 0:
            os.fchown(fd, -1, gid)
        os.ftruncate(fd, layout.FILE_SIZE)
        reserve(fd, 0, layout.RESERVED)
        os.pwrite(fd, struct.pack("=I", uses) * layout.SLOTS, layout.USES_AT)
        known = (layout.MAGIC, layout.LAYOUT_VERSION, layout.BYTE_ORDER)
        ids = (store.encode(), pair.encode(), boot_id().encode())
        header = layout.HEADER.pack(*known, *ids, os.fstat(fd).st_ino, uses)
        os.pwrite(fd, header + layout.CHECKSUM.pack(zlib.crc32(header)), 0)
        file = _enter(fd, path, mmap.ACCESS_WRITE)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    if file.header() is None:
        raise StoreError(f"{path}: what was written to its header is not what is read; is the disk in order?")
    return file
