"""The exporter's page in a real browser: what it shows, that nothing of the store runs in it, and that it fits."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from exporting import Exporter, serving
from helpers import Child, wait_for
from looking import worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's package chromium is not installed"),
]

_PATIENCE = 60.0
EVIL = "<script>document.title = 'caught'</script><img src=x onerror=\"document.title='caught'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield found
        found.close()


class Page:
    """The page of an exporter in a tab of its own, with what the browser complained of."""

    def __init__(self, browser: Any, exporter: Exporter, **context: Any):
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.tab = browser.new_context(**context).new_page()
        self.tab.on("console", lambda said: self.complaints.append(said.text) if said.type != "log" else None)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(exporter.url)

    def text(self, selector: str) -> str:
        """What is to be read there."""
        return str(self.tab.inner_text(selector))

    def until(self, selector: str, pattern: str) -> None:
        """Wait until a text matches."""
        wait_for(lambda: re.search(pattern, self.text(selector)), _PATIENCE)

    def close(self) -> None:
        """Close it; it must not have complained."""
        assert self.complaints == []
        self.tab.context.close()


def count(one: Child) -> None:
    """Something of each kind."""
    for _ in range(5):
        one.do("count", "/", 1)
    one.do("observe", "/", 0.05, 0.2, 0.7)
    one.do("set", "busy", 3)


def test_it_shows_processes_rates_histograms_and_cardinality(path: str, browser: Any) -> None:
    """With what the workers do while it is open; nothing is fetched from elsewhere."""
    with worker(path) as one, worker(path) as two, serving(path) as exporter:
        count(one)
        page = Page(browser, exporter)
        page.until("#store", re.escape(path))
        page.until("#alive", "^2$")
        page.until("#members", f"{one.pid}\\s+alive")
        assert wait_for(lambda: (count(one), page.tab.query_selector("#lines path"))[1], _PATIENCE)
        assert wait_for(lambda: (count(one), 'requests_total{path="/"}' in page.text("#legend"))[1], _PATIENCE)
        assert wait_for(lambda: (count(one), page.tab.query_selector("#quantiles path[d^=M]"))[1], _PATIENCE)
        assert wait_for(
            lambda: (count(one), re.search(r"Heat map of latency_seconds: at most [1-9]", _heat(page)))[1], _PATIENCE
        )
        page.until("#cardinality", "latency_seconds")
        page.until("#findings", "found nothing wrong")

        two.kill()
        page.until("#alive", "^1$")
        page.until("#ended", f"Ended lately: {two.pid} ")
        assert {url.split("/")[2] for url in page.asked if not url.startswith("data:")} == {exporter.url.split("/")[2]}
        page.close()


def _heat(page: Page) -> str:
    return str(page.tab.get_attribute("#heat", "aria-label"))


def test_a_series_is_found_with_the_exact_value_of_each_process(path: str, browser: Any) -> None:
    """By words, or by a pattern; chosen by the keyboard."""
    with worker(path) as one, worker(path) as two, serving(path) as exporter:
        one.do("count", "/a", 0.1)
        two.do("count", "/a", 1234567.25)
        two.do("count", "/b", 1)
        page = Page(browser, exporter)
        page.tab.fill("#query", "REQUESTS /a")
        page.until("#count", "^1 found$")
        page.until("#found", re.escape("1234567.35"))
        page.tab.focus("#found button")
        page.tab.keyboard.press("Enter")
        page.until("#parts", rf"{one.pid}\s+0\.1\b")
        page.until("#parts", rf"{two.pid}\s+1234567\.25\b")
        page.tab.fill("#query", "requests*{path=/*}")
        page.until("#count", "^2 found$")
        page.close()


def test_labels_are_text_whatever_they_are(path: str, browser: Any) -> None:
    """Shown as they are, in each place; nothing of them is run or loaded."""
    with worker(path) as one, serving(path) as exporter:
        page = Page(browser, exporter)
        assert wait_for(lambda: (one.do("count", EVIL, 1), "onerror" in page.text("#legend"))[1], _PATIENCE)
        page.tab.fill("#query", "onerror")
        page.until("#count", "^1 found$")
        page.tab.click("#found button")
        page.until("#chosen-name", re.escape("<script>document.title"))
        assert "<img src=x onerror=" in page.text("#legend")
        assert page.tab.title() == "sqlmetrics"
        assert page.tab.query_selector("img") is None
        assert len(page.tab.query_selector_all("script")) == 1
        page.close()


def test_the_policy_lets_nothing_else_run(path: str, browser: Any) -> None:
    """The header has hashes, nothing unsafe; a script that gets into the page all the same is not run."""
    with worker(path), serving(path) as exporter:
        headers = exporter.get("/").headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert re.fullmatch(r"'sha256-\S+='", policy["script-src"])
        assert re.fullmatch(r"'sha256-\S+='", policy["style-src"])
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")

        page = Page(browser, exporter)
        page.until("#alive", "^1$")
        page.tab.evaluate("""() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'caught'";
            document.body.append(script);
        }""")
        assert page.tab.title() == "sqlmetrics"
        assert any("Content Security Policy" in one for one in page.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_in_both_colours(path: str, browser: Any, width: int, scheme: str) -> None:
    """Nothing is wider than the screen, with a long label; text and ground differ enough to read."""
    with worker(path) as one, serving(path) as exporter:
        page = Page(browser, exporter, viewport={"width": width, "height": 800}, color_scheme=scheme)
        assert wait_for(lambda: (one.do("count", "x" * 300, 1), "xxx" in page.text("#legend"))[1], _PATIENCE)
        page.tab.fill("#query", "xxx")
        page.until("#count", "^1 found$")
        page.tab.click("#found button")
        page.until("#parts", str(one.pid))
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
        for selector in ("h2", "td.alive", ".note", "#store"):
            assert _contrast(page, selector) >= 4.5, selector
        page.close()


def _contrast(page: Page, selector: str) -> float:
    """As https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio has it."""
    colours = page.tab.evaluate(
        """(selector) => {
            let one = document.querySelector(selector), ground = one;
            while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
            return [getComputedStyle(one).color, getComputedStyle(ground).backgroundColor];
        }""",
        selector,
    )
    lighter, darker = sorted(map(_luminance, colours), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_control_has_a_name_and_every_table_its_heads(path: str, browser: Any) -> None:
    """For who hears the page, or has no mouse: the first key leads past the head."""
    with worker(path) as one, serving(path) as exporter:
        count(one)
        page = Page(browser, exporter)
        page.until("#members", str(one.pid))
        page.tab.keyboard.press("Tab")
        assert page.tab.evaluate("document.activeElement.className") == "skip"
        assert page.tab.get_by_role("combobox", name="Histogram").count() == 1
        assert page.tab.get_by_role("searchbox").count() == 1
        assert page.tab.get_by_role("button", name="Check again").count() == 1
        unnamed = "section:not([aria-labelledby]), [role=img]:not([aria-label]), th:not([scope])"
        assert page.tab.query_selector_all(unnamed) == []
        page.close()


def test_it_tells_of_a_store_that_goes_and_comes(path: str, browser: Any) -> None:
    """Before the first process, and after."""
    with serving(path) as exporter:
        page = Page(browser, exporter)
        page.until("#trouble", "no store at")
        assert page.text("#state") == "not ready"
        with worker(path):
            page.until("#alive", "^1$")
            wait_for(lambda: not page.tab.is_visible("#trouble"))
        page.complaints = [one for one in page.complaints if "503" not in one]  # the browser tells of each
        page.close()
