"""Marks on the cells whose series were removed: a bitmap at the beginning of each block, one bit for each of its cells.

A process that removes a series deletes its rows. Other processes may have cells for it, and must be told, because they
would go on counting in cells without a row. So the removal's transaction writes these cells into the table `removed`.
The next transaction that writes, usually the same process's, sets their bits, notifies their processes, and empties the
table. So the next writer continues after a crash at any point, and a bit never tells of a removal that was rolled back.
Bits are only set and cleared with the write lock held, so no two processes do it at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import layout
from .cellsfile import CellsFile

_NONE = bytes(layout.MARKS)


def set_mark(file: CellsFile, cell: int, process: int) -> int | None:
    """Mark a cell and return its slot; None if the cell is not that process's any more."""
    slot = process % layout.SLOTS
    block, byte, bit = _place(cell)
    if not 0 <= block < layout.CELL_BLOCKS:  # damage
        return None
    if not file.has(slot, process) or file.blocks.owners[block] != slot + 1:
        return None
    file.bytes[byte] |= bit
    return slot


def clear(file: CellsFile, cells: Iterable[int]) -> None:
    """Clear the bits of cells, within a transaction that writes."""
    for cell in cells:
        _, byte, bit = _place(cell)
        file.bytes[byte] &= ~bit


def _place(cell: int) -> tuple[int, int, int]:
    """Return the block of a cell, the byte of the file with its bit, and the bit's value."""
    block, place = divmod(cell, layout.BLOCK_CELLS)
    return block, _start(block) + place // 8, 1 << place % 8


def _start(block: int) -> int:
    return layout.CELLS_AT + block * layout.PAGE


def marked(file: CellsFile, blocks: Iterable[int]) -> set[int]:
    """Return the cells of these blocks whose bits are set."""
    found: set[int] = set()
    for block in blocks:
        bits = bytes(file.bytes[_start(block) : _start(block) + layout.MARKS])
        if bits != _NONE:
            number = int.from_bytes(bits, "little")
            first = block * layout.BLOCK_CELLS
            found.update([first + place for place in range(layout.BLOCK_CELLS) if number >> place & 1])
    return found
