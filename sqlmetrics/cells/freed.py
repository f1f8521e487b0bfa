"""Cells of one process whose series were removed, on their way to be other children's."""

from __future__ import annotations

from collections.abc import Iterable

from . import layout

Run = tuple[int, int]
"""(first cell, how many)"""
ENOUGH = layout.BLOCK_CELLS - layout.FIRST_CELL
"""Cells that rest before they are given out, all of them together: a block's worth. A scrape that is under way then
begins again, and under constant removals that must not happen all the time."""


class Freed:
    """The cells. A scrape may still take those that rest for what they were; see `SharedArena.recycle`.

    leaving: forgotten by the process; there may be marks on them, and rows of them.
    unread: of those that rest, and are not zero yet, with the erasure after which nobody reads them for what they were.
    """

    def __init__(self) -> None:
        self.leaving: list[Run] = []
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

    def release(self) -> list[Run]:
        """Make the cells that rest ready to be taken, if they are enough, and return them."""
        if self._resting_cells < ENOUGH:
            return []
        released, self._resting, self._resting_cells, self.unread = self._resting, [], 0, []
        ready = [(cell, length) for length, cells in self._ready.items() for cell in cells]
        self._ready = {}
        for cell, length in joined(ready + released):
            self._put(cell, length)
        return released

    def give_back(self, cell: int, count: int) -> None:
        """Take back cells that nobody has heard of."""
        self._put(cell, count)

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
            self._put(cell + count, length - count)
        return cell

    def _put(self, cell: int, length: int) -> None:
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
