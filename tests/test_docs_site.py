"""The documentation as a site: it builds without a warning, all of it can be found, and it fits a phone."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, PAGES, ROOT

import sqlmetrics

pytestmark = pytest.mark.slow

KINDS = ["Tutorial", "How-to guides", "Reference", "Explanation"]
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "site", "build", "dist")


def build(checkout: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout as strictly as MkDocs can."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once."""
    made = tmp_path_factory.mktemp("site")
    done = build(ROOT, made)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources that a test may spoil."""
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=_NOT_COPIED, symlinks=True))


def test_every_page_is_on_the_site_under_its_own_name(site: Path) -> None:
    """And nothing of what the site is made with."""
    places = [page.relative_to(DOCS).with_suffix("") for page in PAGES if DOCS in page.parents]
    missing = [place for place in places if place.name != "README" and not (site / place / "index.html").is_file()]

    assert len(places) > 30
    assert missing == []
    assert [path for path in site.rglob("*") if path.name.startswith(("hooks", "_site"))] == []


def test_the_navigation_has_the_four_kinds_and_the_project(site: Path) -> None:
    """In this order, each with its pages."""
    tabs = re.findall(r'class="md-tabs__link">\s*(.*?)\s*</a>', (site / "index.html").read_text("utf-8"), re.S)
    reference = (site / "reference" / "settings" / "index.html").read_text("utf-8")

    assert tabs == ["Home", *KINDS, "Project"]
    assert 'href="../errors/" class="md-nav__link"' in reference


def test_the_how_to_guides_have_the_groups_of_the_index(site: Path) -> None:
    """Fifty pages in one list would be hard to look through; the other kinds have no groups."""
    page = (site / "how-to" / "choose" / "index.html").read_text("utf-8")
    names = [name.strip() for name in re.findall(r'class="md-ellipsis">\s*([^<]+)', page)]
    index = (DOCS / "README.md").read_text("utf-8")
    titles = re.findall(r"^([A-Z][\w ]+?)(?: \(.*\))?:$", index, re.M)

    assert len(titles) > 3
    assert [names.count(title) for title in titles] == [1] * len(titles)
    assert names.index(titles[0]) + 1 == names.index("Install")
    assert names.index(titles[-1]) < names.index("Celery") < names.index("Settings")


def test_every_public_name_has_its_docstring_on_the_site(site: Path) -> None:
    """With its signature, and its arguments as a list; what is internal is not there."""
    page = (site / "reference" / "docstrings" / "index.html").read_text("utf-8")
    anchors = set(re.findall(r'<h\d id="sqlmetrics\.([\w.]+)"', page))
    members = {name for name in anchors if "." in name}

    assert anchors - members == set(sqlmetrics.__all__)
    assert {"Store.flush", "MultiProcessCollector.collect"} <= members
    assert "Store.leave" not in members
    assert "<li><code>keep_dead</code>: " in re.sub(r"</?p>|\n", "", page)


_DEAD = {
    "page": ("docs/how-to/run.md", "[gone](gone.md)", "gone.md"),
    "anchor": ("docs/reference/settings.md", "[gone](errors.md#gone)", "#gone"),
    "own anchor": ("README.md", "[gone](#gone)", "#gone"),
    "anchor elsewhere": ("docs/limits.md", "[gone](../CONTRIBUTING.md#gone)", "#gone"),
    "source file": ("docs/design.md", "[gone](../tests/test_gone.py)", "tests/test_gone.py"),
}


@pytest.mark.parametrize("dead", _DEAD)
def test_a_dead_link_fails_the_build(dead: str, checkout: Path) -> None:
    """To a page, a heading, or a file outside of the documentation; the message names it."""
    name, link, told = _DEAD[dead]
    page = checkout / name
    page.write_text(f"{page.read_text('utf-8')}\nSee {link}.\n", "utf-8")

    done = build(checkout, checkout / "site")

    assert done.returncode == 1
    assert told in done.stderr


def test_a_page_that_the_index_does_not_name_fails_the_build(checkout: Path) -> None:
    """No page of the site is out of reach."""
    (checkout / "docs" / "how-to" / "forgotten.md").write_text("# Forgotten\n", "utf-8")

    done = build(checkout, checkout / "site")

    assert done.returncode == 1
    assert "how-to/forgotten.md" in done.stderr


def test_links_to_source_files_lead_to_the_repository_once_its_address_is_known(checkout: Path) -> None:
    """Until then their text is shown."""
    settings = checkout / "mkdocs.yml"
    settings.write_text(f"{settings.read_text('utf-8')}\nrepo_url: https://code.example/sqlmetrics\n", "utf-8")

    done = build(checkout, checkout / "site")

    page = (checkout / "site" / "reference" / "promises" / "index.html").read_text("utf-8")
    assert done.returncode == 0, done.stderr
    assert 'href="https://code.example/sqlmetrics/blob/main/tests/test_forks.py"' in page


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site behind an HTTP server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's package chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_site_fits_a_screen_and_finds_what_is_searched(width: int, address: str, browser: Any) -> None:
    """Nothing is asked of other hosts, nothing sticks out sideways, and the search knows a setting."""
    tab = browser.new_context(viewport={"width": width, "height": 844}).new_page()
    asked: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)

    for place in ("", "reference/docstrings/", "reference/what-ran/", "limits/", "performance/", "project/changelog/"):
        assert tab.goto(address + place).ok
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, place
    on_a_phone = tab.locator("label.md-header__button[for=__search]")
    if on_a_phone.is_visible():
        on_a_phone.click()
    tab.locator("input.md-search__input").press_sequentially("keep_dead")
    tab.wait_for_selector(".md-search-result__item a[href*='reference/settings/']")

    assert complaints == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
