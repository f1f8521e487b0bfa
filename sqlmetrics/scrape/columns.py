"""What living processes have counted, added up: for each of them a column of doubles, one for each position.

Measured for 16 processes of 5,100 samples each, on two cores: 4 ms, and 31 ms with GROUP BY over the same cells in
SQLite, whose sorter takes most of that. A child's cells are in a row, so 16 of them are copied by one slice, and the
rest is done by functions written in C that go through whole lists.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise, zip_longest
from math import fsum
from operator import itemgetter
from typing import Any

from ..cells import layout
from .gauges import exact_sum
from .plan import Gauge

CHUNK = 512
"""Positions that are added up at a time: of 64 processes these are 1 MiB of floats, which stay in the caches."""
_DOUBLE = 8
_SPARSE = 8
"""A process that has less than one of so many series is not worth a column that goes through all."""
_ZEROS = bytes(layout.PAGE)
_slice = lru_cache(2**15)(slice)  # processes that have made their children in another order share most of them

Extra = dict[int, list[float]]
"""Values by their positions, beside those in columns."""


class Column:
    """Where one process has its values.

    upto: the byte of its journal up to which this is known. lost: see `records.ProcessRecord`.
    gauges: the cell of each, and whether it has a timestamp.
    """

    def __init__(self, pid: str = "", started: int = 0, upto: int = 0):
        self.pid = pid
        self.started = started
        self.upto = upto
        self.lost: list[int] = []
        self.gauges: dict[Gauge, tuple[int, bool]] = {}
        self._runs = (array("I"), array("I"), array("I"))  # position, cell and length of each
        self._count = 0
        self._arranged: _Arranged | None = None

    def put(self, place: int | Gauge, cell: int, *, stamped: bool) -> None:
        """Note the cell of a series."""
        if isinstance(place, Gauge):
            self.gauges[place] = (cell, stamped)
            return
        self._arranged = None
        self._count += 1
        positions, cells, lengths = self._runs
        follows = lengths and (positions[-1] + lengths[-1], cells[-1] + lengths[-1]) == (place, cell)
        if follows and cell % layout.BLOCK_CELLS:
            lengths[-1] += 1
        else:
            positions.append(place)
            cells.append(cell)
            lengths.append(1)

    def read(self, file: memoryview[int], length: int, extra: Extra) -> memoryview[float] | None:
        """The values by their positions, 0 in between; of a process that has few of them add them to `extra` instead.

        file: the bytes of the cells file. length: how many positions there are.
        """
        if self._arranged is None:
            runs = _in_order(list(zip(*self._runs, strict=True)))
            self._arranged = _Arranged(runs, sparse=self._count * _SPARSE < length)
        values = self._arranged.read(file)
        if not self._arranged.sparse:
            return values
        for position, value in zip(self._arranged.positions, values, strict=True):
            if value:
                extra.setdefault(position, []).append(value)
        return None


def _in_order(runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Runs by their positions. Of a series that was removed and made anew, the last cell counts.

    A scrape meets both where its snapshot is older than the removal, and the journal tells what came later.
    """
    ordered = sorted(runs)
    if all(before[0] + before[2] <= after[0] for before, after in pairwise(ordered)):
        return ordered
    cells = {position + place: cell + place for position, cell, length in runs for place in range(length)}
    return [(position, cell, 1) for position, cell in sorted(cells.items())]


class _Arranged:
    """How the cells of a process are copied in the order of their positions."""

    def __init__(self, runs: list[tuple[int, int, int]], *, sparse: bool):
        self.sparse = sparse
        self.positions = array("I")
        blocks = sorted({cell // layout.BLOCK_CELLS for _, cell, _ in runs})
        self._pieces = [slice(*_bytes_of(block)) for block in blocks]
        # Behind a page of zeros, for the positions in between.
        places = {block: layout.PAGE * number for number, block in enumerate(blocks, 1)}
        found: list[list[int]] = []
        end = 0
        for position, cell, length in runs:
            if sparse:
                self.positions.extend(range(position, position + length))
            else:
                found += _zeros(position - end)
                end = position + length
            block, place = divmod(cell, layout.BLOCK_CELLS)
            start = places[block] + place * _DOUBLE
            if found and found[-1][1] == start:
                found[-1][1] = start + length * _DOUBLE
            else:
                found.append([start, start + length * _DOUBLE])
        # itemgetter gives a tuple for two or more only.
        self._take: Any = itemgetter(slice(0), slice(0), *(_slice(*one) for one in found))

    def read(self, file: memoryview[int]) -> memoryview[float]:
        """The values in their order. file: the bytes of the cells file."""
        copied = b"".join([_ZEROS, *[file[piece] for piece in self._pieces]])
        return memoryview(b"".join(self._take(copied))).cast("d")


def _bytes_of(block: int) -> tuple[int, int]:
    start = layout.CELLS_AT + block * layout.PAGE
    return start, start + layout.PAGE


def _zeros(count: int) -> Iterable[list[int]]:
    return ([0, min(count - done, layout.BLOCK_CELLS) * _DOUBLE] for done in range(0, count, layout.BLOCK_CELLS))


def add_up(
    columns: Sequence[memoryview[float]], extra: Extra, wanted: Iterable[int] | None, length: int
) -> list[float]:
    """The sum at each position; those that are not wanted may be 0 (None: all are). One of the columns has all of them.

    Sums are rounded once, so the order of the parts never matters: else a counter could be smaller after a process has
    ended, which Prometheus takes for a reset.
    """
    totals: list[float] = []
    more = _by_chunk(extra)
    number = -(-length // CHUNK)
    chunks = range(number) if wanted is None else {position // CHUNK for position in wanted}
    for chunk in range(number):
        start = chunk * CHUNK
        if chunk in chunks:
            parts = [column[start : start + CHUNK].tolist() for column in columns]
            rows = list(zip_longest(*parts, fillvalue=0.0))
            for position, values in more.get(chunk, ()):
                rows[position - start] += tuple(values)
            totals += _sums(rows)
        else:
            totals += [0.0] * min(CHUNK, length - start)
    return totals


def _by_chunk(extra: Extra) -> dict[int, list[tuple[int, list[float]]]]:
    found: dict[int, list[tuple[int, list[float]]]] = {}
    for position, values in extra.items():
        found.setdefault(position // CHUNK, []).append((position, values))
    return found


def _sums(rows: list[tuple[float, ...]]) -> list[float]:
    try:
        return list(map(fsum, rows))
    except (OverflowError, ValueError):  # beyond all floats on the way, or Inf and -Inf
        return [exact_sum(row) for row in rows]
