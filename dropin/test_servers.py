"""Every server whose page tells how to run it: unmodified, with the page's app and the page's command."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployment import Row, started
from exact import assert_exact_across_a_death
from pages import DOCS

SERVERS = {"gunicorn": ["gunicorn", "gevent"]}
"""The pages below ``how-to/servers/`` that have nothing but this, and the distributions whose versions matter."""

ROWS = [
    pytest.param(Row(f"servers/{page}.md", heading), marks=pytest.mark.row("server", f"{page}: {heading}", *names))
    for page, names in SERVERS.items()
    for heading, _ in started(DOCS / "how-to" / "servers" / f"{page}.md")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.page}: {row.heading}")
def test_every_scrape_is_exact(row: Row, folder: Path) -> None:
    """Across a worker's death, and without a change of the app."""
    assert_exact_across_a_death(row, folder)
