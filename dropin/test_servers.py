"""Every server whose page tells how to run it: unmodified, with the page's app and the page's command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Row, deployed, started
from exact import assert_all_shown, assert_exact_across_a_death, assert_tidy
from pages import DOCS

pytestmark = pytest.mark.promise(2, 3, 12)

SERVERS: dict[str, dict[str, list[str]]] = {
    "gunicorn": {
        "gevent workers": ["gevent"],
        "preload with gevent workers": ["gevent"],
        "uvicorn workers": ["uvicorn-worker", "uvicorn"],
    },
    "uvicorn": {},
    "granian": {},
    "hypercorn": {"trio workers": ["trio"]},
}
"""The pages below ``how-to/servers/`` that have nothing but this, each with what it needs below some headings.

A page is named as the server's distribution is.
"""
SUPERVISED = {"hypercorn"}
"""Those that end when a worker is killed."""
DIRTY = ("gunicorn", "dirty workers")
"""It has two kinds of workers: see below."""


def rows() -> Iterator[object]:
    """A parameter for each command of the pages, marked as a row of the table."""
    for page, needed in SERVERS.items():
        headings = [heading for heading, _ in started(DOCS / "how-to" / "servers" / f"{page}.md")]
        assert needed.keys() <= set(headings), (page, headings)
        for heading in headings:
            row = Row(f"servers/{page}.md", heading, supervised=page in SUPERVISED)
            mark = pytest.mark.row("server", f"{page}: {heading}", page, *needed.get(heading, []))
            if (page, heading) != DIRTY:
                yield pytest.param(row, marks=mark, id=f"{page}: {heading}")


@pytest.mark.parametrize("row", list(rows()))
def test_every_scrape_is_exact(row: Row, folder: Path) -> None:
    """Across a worker's death, and without a change of the app."""
    assert_exact_across_a_death(row, folder)


@pytest.mark.row("server", "gunicorn: dirty workers", "gunicorn")
def test_workers_of_both_kinds_count(folder: Path) -> None:
    """One of each kind is killed, and both are replaced."""
    page, heading = DIRTY
    counted = {("requests_total", (("path", "/"),)): 1.0, ("tasks_total", ()): 1.0}
    with deployed(Row(f"servers/{page}.md", heading, samples=counted), folder) as server:
        for metric in ("requests_total", "tasks_total"):
            server.until(lambda metric=metric: len(server.counting_in(metric)) == 2)
            before = server.counting_in(metric)
            server.kill(min(before))
            assert_all_shown(server)
            server.until(lambda metric=metric, before=before: server.counting_in(metric) - before)
        server.request(20)
        assert_all_shown(server)
        log = server.log()
    assert "counts in its own memory" not in log, log
    assert_tidy(server)
