"""Which cells of a block have changed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlmetrics.cells import layout
from sqlmetrics.cells.images import Image, changed_cells

pytestmark = pytest.mark.promise(2)

CELLS = st.dictionaries(st.integers(0, layout.BLOCK_CELLS - 1), st.floats(), max_size=20)


@given(before=CELLS, after=CELLS)
def test_exactly_the_cells_whose_bits_are_others_have_changed(
    before: dict[int, float], after: dict[int, float]
) -> None:
    """And no other; a NaN that stays is no change, and -0.0 for 0.0 is one."""
    shown, now = ([cells.get(place, 0.0) for place in range(layout.BLOCK_CELLS)] for cells in (before, after))
    image = Image(_packed(now), _packed(shown))

    expected = {place for place in {*before, *after} if _packed([now[place]]) != _packed([shown[place]])}

    found = changed_cells(image)
    assert len(found) == len(expected)
    assert set(found) == expected


def _packed(values: list[float]) -> bytes:
    return struct.pack(f"{len(values)}d", *values)
