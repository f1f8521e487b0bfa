"""Which cells' series were removed: a bitmap at the beginning of each block, one bit for each of its cells.

Who removes a series deletes its rows, and must tell the processes that have cells for it which these are: else they
would count on where no row leads. In the transaction of the removal the cells go to the table `removed`. Whoever has
the write lock next, usually the same process, sets their bits, has their processes look at them, and empties the table:
so a crash at any point leaves it to the next one to do so, and a bit never tells of a removal that was rolled back.
Bits are set and cleared with the write lock held only, so never by two at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import layout
from .cellsfile import CellsFile

_NONE = bytes(layout.MARKS)


def set_mark(file: CellsFile, cell: int, process: int) -> int | None:
    """Mark a cell and return its slot, unless it is not that process's any more."""
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
    """The block of a cell, and the byte of the file and the bit that stand for it."""
    block, place = divmod(cell, layout.BLOCK_CELLS)
    return block, _start(block) + place // 8, 1 << place % 8


def _start(block: int) -> int:
    return layout.CELLS_AT + block * layout.PAGE


def marked(file: CellsFile, blocks: Iterable[int]) -> set[int]:
    """The cells of these blocks whose bits are set."""
    found: set[int] = set()
    for block in blocks:
        bits = bytes(file.bytes[_start(block) : _start(block) + layout.MARKS])
        if bits != _NONE:
            number = int.from_bytes(bits, "little")
            first = block * layout.BLOCK_CELLS
            found.update([first + place for place in range(layout.BLOCK_CELLS) if number >> place & 1])
    return found
