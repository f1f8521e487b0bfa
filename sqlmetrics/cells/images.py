"""Copies of blocks of cells, and which cells have changed since an earlier copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from . import layout
from .cellsfile import CellsFile

_PIECE = 512
"""Bytes that are looked at as one number: with 12 cells changed of 512, that takes 11 µs, one by one 50 µs."""
_DOUBLE = 8
_BITS = 64


class Image(NamedTuple):
    """The bytes of a block now, and as its rows show them; None if it is not known what these show."""

    now: bytes
    shown: bytes | None

    def is_as_shown(self) -> bool:
        """Whether the rows show every cell as it is; marks of removals are none."""
        return self.shown is not None and self.now[layout.MARKS :] == self.shown[layout.MARKS :]


def changed_cells(image: Image) -> list[int]:
    """The places in the block of all cells that are not as shown; of all, where it is not known what is.

    By the bits, as a NaN is not equal to itself.
    """
    if image.shown is None:
        return list(range(layout.BLOCK_CELLS))
    found: list[int] = []
    for start in range(0, layout.PAGE, _PIECE):
        now, shown = image.now[start : start + _PIECE], image.shown[start : start + _PIECE]
        if now != shown:
            different = int.from_bytes(now, "little") ^ int.from_bytes(shown, "little")
            while different:
                place = (different.bit_length() - 1) // _BITS
                different &= (1 << place * _BITS) - 1
                found.append(place + start // _DOUBLE)
    return found


def copy_blocks(file: CellsFile, blocks: Iterable[int]) -> dict[int, bytes]:
    """The bytes of some blocks now, by their numbers."""
    at, page, found = layout.CELLS_AT, layout.PAGE, file.bytes
    return {block: bytes(found[at + block * page : at + (block + 1) * page]) for block in blocks}


def changed_since(before: Mapping[int, bytes], now: Mapping[int, bytes], *, most: int) -> list[int] | None:
    """The numbers of the cells that have changed, of the same blocks; None if that may be more than so many."""
    blocks = [block for block, content in now.items() if content != before[block]]
    if len(blocks) > most:
        return None
    found: list[int] = []
    for block in blocks:
        found += [block * layout.BLOCK_CELLS + place for place in changed_cells(Image(now[block], before[block]))]
    return found if len(found) <= most else None
