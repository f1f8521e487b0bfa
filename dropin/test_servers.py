"""Every server whose page tells how to run it: unmodified, with the page's app and the page's command."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps.serving import NEWEST, Installed, serving
from deployment import Row, deployed, started
from exact import assert_all_shown, assert_exact_across_a_death, assert_tidy
from helpers import wait_for
from pages import DOCS

pytestmark = pytest.mark.promise(2, 3, 12)

SERVERS: dict[str, dict[str, list[str]]] = {
    "gunicorn": {
        "gevent workers": ["gevent"],
        "preload with gevent workers": ["gevent"],
        "tornado workers": ["tornado"],
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


_FOLDER_OF_23 = os.environ.get("SQLMETRICS_GUNICORN23", "")  # now: a fixture clears the variables for each test


@pytest.mark.parametrize("version", ["newest", "23.0.0"])
def test_tornado_workers_are_exact_with_the_hooks(version: str, folder: Path, path: str) -> None:
    """The hooks alone, `-c python:sqlmetrics.gunicorn`, across a worker's death."""
    if version != "newest" and not _FOLDER_OF_23:
        pytest.skip("pip install --target FOLDER gunicorn==23.0.0, and set SQLMETRICS_GUNICORN23=FOLDER")
    gunicorn = NEWEST if version == "newest" else Installed(environment={"PYTHONPATH": _FOLDER_OF_23})
    with serving(folder, "counting:app", "-w2", "-ktornado", gunicorn=gunicorn, SQLMETRICS_PATH=path) as server:
        first = server.workers(2)
        server.get_all(["/"] * 50)
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: f"(pid:{victim})" in server.log())
        living = server.workers(2, first - {victim})
        server.get_all(["/"] * 50)
        for values in server.scrapes(living):
            assert values["requests_total", (("path", "/"),)] == 100
            assert {dict(labels)["pid"] for name, labels in values if name == "last"} == set(map(str, living))
