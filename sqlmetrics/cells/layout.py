"""The cells file, byte by byte. Version 2; all numbers in the machine's own byte order.

::

    0        header: magic, layout version, byte order, ids of store, pair and boot, inode, uses, cursors
    4096     slots: one for each process instance, in arrays (state, stale, uses, first extent, published, lapsed)
    …        directory of cell blocks: owners, then generations
    …        directory of journal extents: owners, then generations
    …        cells: CELL_BLOCKS blocks of 512 doubles, of which the first 8 are a bitmap, see `marks`
    …        journals: EXTENTS extents of 4,096 bytes

Everything before the cells (272 KiB) is reserved when the file is made, the rest block by block as it is
given out; the file is as long as its limit from the start (but sparse), so that it is mapped once.
"""

from __future__ import annotations

import struct

PAGE = 4096
MAGIC = b"sqlmcell"
LAYOUT_VERSION = 2
BYTE_ORDER = 0x01020304

# magic, layout version, byte order, store id (hex), pair id (hex), boot id, inode, first uses of every slot
HEADER = struct.Struct("=8sII32s32s36sQI")
CHECKSUM = struct.Struct("=I")
"""Right behind the header, its CRC-32: a damaged boot id must not look like a reboot."""
CURSORS_AT = 256
"""Two 32-bit hints: where the search for a free cell block and a free extent begins."""
DOUBT_AT = 300
"""Not 0: a process met damage in one of the files. The next one that writes to the store then checks all of them."""
CHECK_DUE_AT = 304
"""The time of the next check of all files, in seconds of CLOCK_MONOTONIC."""
REMOVALS_AT = 312
"""64 bits, raised at each removal with SQLite's write lock held."""
CHORES_AT = 320
"""For each of four chores two 64-bit counts and a time, see `chores`."""
SLICES_LOCK_AT = 3999
"""This byte is locked by the process whose turn it is to write in slices, see `rows/slices.py`."""
RUN_LOCK_AT = 4000
"""This byte is locked, shared, by every launcher (gunicorn's master) for as long as it lives."""

SLOTS = 4096
STATE_AT = PAGE
STALE_AT = STATE_AT + SLOTS
USES_AT = STALE_AT + SLOTS
FIRST_AT = USES_AT + 4 * SLOTS
PUBLISHED_AT = FIRST_AT + 4 * SLOTS
LAPSED_AT = PUBLISHED_AT + 8 * SLOTS
SLOTS_END = LAPSED_AT + SLOTS

BLOCK_CELLS = PAGE // 8
"""A block is one page, so that two processes never write to the same cache line."""
MARKS = BLOCK_CELLS // 8
"""Bytes of the bitmap that a block begins with: one bit for each of its cells, those of the bitmap included."""
FIRST_CELL = MARKS // 8
"""The first cell of a block that a child can have."""
CELL_BLOCKS = 16_384
EXTENTS = 16_384
EXTENT_HEADER = struct.Struct("=QII")
"""The instance that writes it, the next extent + 1 (0: none yet), its number in the journal."""
EXTENT_PAYLOAD = PAGE - EXTENT_HEADER.size

CELL_OWNERS_AT = SLOTS_END
CELL_GENERATIONS_AT = CELL_OWNERS_AT + 2 * CELL_BLOCKS
EXTENT_OWNERS_AT = CELL_GENERATIONS_AT + 4 * CELL_BLOCKS
EXTENT_GENERATIONS_AT = EXTENT_OWNERS_AT + 2 * EXTENTS
RESERVED = EXTENT_GENERATIONS_AT + 4 * EXTENTS

CELLS_AT = RESERVED
CELLS_END = CELLS_AT + CELL_BLOCKS * PAGE
JOURNALS_AT = CELLS_END
FILE_SIZE = JOURNALS_AT + EXTENTS * PAGE

FREE, HELD, SETTLED, CLAIMED = 0, 1, 2, 3
"""The states of a slot, in the order FREE, CLAIMED, HELD, SETTLED, FREE. CLAIMED: a process is raising its uses, or was
killed while it did. HELD: a process has it, or is dead and its rows are not settled yet. SETTLED: until the process has
died or let go. `cellsfile` says which process writes them, and what readers may conclude."""

USES_LIMIT = 2**32 - 1
"""A slot cannot be used more often. A count that is so high was garbled."""

NOTICE = 255
"""In a slot's stale byte: look at your slot before the next operation."""


def mark_of(uses: int) -> int:
    """Return the value of a slot's stale byte without a notice, 1 to 250; it differs from one use to the next."""
    return 1 + uses % 250


def instance_of(uses: int, slot: int) -> int:
    """Return the id of a process instance. It is never used twice in one store, because a slot's uses only grow."""
    return uses * SLOTS + slot
