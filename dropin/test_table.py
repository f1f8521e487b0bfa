"""The table of what ran leaves nothing out, and claims nothing that no test runs."""

from __future__ import annotations

import pytest
from table import rows_of, written


def test_the_page_has_the_rows_of_the_tests(all_items: list[pytest.Item]) -> None:
    """Otherwise run ``python -m pytest dropin --write``; the versions are those of the last time that somebody did."""
    rows = rows_of(all_items)

    assert len(rows) > 0
    assert sorted(written()) == sorted((row.kind, row.what) for row in rows)
