"""Copies of blocks of cells, and which cells have changed since an earlier copy."""

from __future__ import annotations

from typing import NamedTuple

from . import layout
from .cellsfile import CellsFile

_PIECE = 512
"""How many bytes are compared as one number: with 12 of 512 cells changed, that takes 11 µs; cell by cell, 50 µs."""
_DOUBLE = 8
_BITS = 64


class Image(NamedTuple):
    """The bytes of a block now, and as its rows show them; None if it is not known what these show."""

    now: bytes
    shown: bytes | None

    def is_as_shown(self) -> bool:
        """Whether the rows show every cell as it is; marks of removals do not count."""
        return self.shown is not None and self.now[layout.MARKS :] == self.shown[layout.MARKS :]


def changed_cells(image: Image) -> list[int]:
    """Return the places in the block of all cells that are not as shown; all places if `shown` is None.

    It compares bits, as a NaN is not equal to itself.
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


class Copies(NamedTuple):
    """The bytes of some blocks at one time, one block after the other. places: of each among them, by its number."""

    places: dict[int, int]
    content: bytearray

    @classmethod
    def of(cls, file: CellsFile, numbers: list[int]) -> Copies:
        """Copy these blocks now."""
        places = {number: place for place, number in enumerate(numbers)}
        return cls(places, bytearray().join([file.block(number) for number in numbers]))

    def block(self, number: int) -> memoryview[int]:
        """The bytes of one of the blocks."""
        start = self.places[number] * layout.PAGE
        return memoryview(self.content)[start : start + layout.PAGE]

    def cells(self) -> memoryview[float]:
        """All cells of the blocks."""
        return memoryview(self.content).cast("d")

    def changed_since(self, before: Copies, *, most: int) -> list[int] | None:
        """Return the cells that have changed since a copy of the same blocks, by number; None if more than `most`."""
        found: list[int] = []
        for number, place in self.places.items():
            # Slices are copies, which compare fast; views compare byte by byte.
            page = slice(place * layout.PAGE, (place + 1) * layout.PAGE)
            now, then = self.content[page], before.content[page]
            if now != then:
                first = number * layout.BLOCK_CELLS
                found += [first + one for one in changed_cells(Image(bytes(now), bytes(then)))]
                if len(found) > most:
                    return None
        return found
