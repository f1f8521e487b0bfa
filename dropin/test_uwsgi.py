"""uWSGI: it forks from C, ends its workers in many ways, and reloads itself; its page is followed to the letter."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployment import Deployment, Row, deployed, started
from exact import assert_all_shown, assert_exact_across_a_death, assert_tidy
from pages import DOCS

pytestmark = pytest.mark.promise(3, 12)

PAGE = "servers/uwsgi.md"
ROWS = [
    pytest.param(Row(PAGE, heading), marks=pytest.mark.row("server", f"uwsgi: {heading}", "uwsgi"), id=heading)
    for heading, _ in started(DOCS / "how-to" / PAGE)
]


@dataclass(frozen=True)
class Varied(Row):
    """A command of the page with options added to it."""

    options: str = ""

    def command(self) -> str:
        """The command that starts the server."""
        return f"{super().command()} {self.options}"


PRELOADED = "master and workers"
LAZY = "lazy-apps"


@pytest.mark.parametrize("row", ROWS)
def test_every_scrape_is_exact(row: Row, folder: Path) -> None:
    """Across a worker's death, and without a change of the app."""
    assert_exact_across_a_death(row, folder)


HOOKS = ["--py-call-uwsgi-fork-hooks"]
if sys.version_info < (3, 12):  # with 3.13, uWSGI 2.0.31 hangs with it, whatever the app
    HOOKS.append("--py-call-osafterfork")


@pytest.mark.parametrize("option", HOOKS)
def test_scrapes_are_exact_with_pythons_hooks(folder: Path, option: str) -> None:
    """They are run in part, or all of them; a worker knows that it is one either way, and flushes."""
    assert_exact_across_a_death(Varied(PAGE, PRELOADED, options=option), folder)


@pytest.mark.parametrize("heading", [PRELOADED, LAZY])
def test_workers_that_come_and_go_lose_nothing(folder: Path, heading: str) -> None:
    """Each answers a few requests only, and there are fewer of them while there is little to do."""
    options = "--max-requests 15 --min-worker-lifetime 0 --cheaper 1 --cheaper-initial 2 -p 3"
    with deployed(Varied(PAGE, heading, options=options), folder) as server:
        seen: set[int] = set()
        server.until(lambda: seen.update(server.counting()) or len(seen) > 4)
        assert_all_shown(server)
    assert_tidy(server)
    assert rows(server) == server.sent


@pytest.mark.parametrize("heading", [PRELOADED, LAZY])
def test_a_reload_loses_nothing(folder: Path, heading: str) -> None:
    """SIGHUP to the master, which executes itself anew where it has the app, and a file that is touched."""
    touched = folder / "reload"
    touched.touch()
    with deployed(Varied(PAGE, heading, options="--touch-reload reload"), folder) as server:
        for reload in (lambda: server.process.send_signal(signal.SIGHUP), lambda: touch_later(touched)):
            server.until(lambda: len(server.counting()) >= 2)
            before = server.counting()
            reload()
            # Both: one that is told to end while it imports the app goes on without it, and ends when it is killed.
            server.until(lambda: len(server.counting() - before) >= 2)  # noqa: B023 - called at once
            assert_all_shown(server)
    assert_tidy(server)


def touch_later(file: Path) -> None:
    """Touch a file so that it is seen, though it was touched in the same second before."""
    os.utime(file, (time.time() + 10,) * 2)


def test_a_worker_killed_by_harakiri_leaves_its_counts(folder: Path) -> None:
    """Its worker is killed by harakiri, with what it has counted for that request, too."""
    with deployed(Varied(PAGE, PRELOADED, options="--harakiri 1 --module stuck:app"), folder) as server:
        server.request(20)
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            server.ask("/stuck")
        server.request(20)
        for values in server.scrapes():
            assert values["requests_total", (("path", "/"),)] == 40
            assert values["requests_total", (("path", "/stuck"),)] == 1


STUCK = """
import time
from app import app as counting

def app(environ, start_response):
    answer = counting(environ, start_response)
    time.sleep(60 if environ["PATH_INFO"] == "/stuck" else 0)
    return answer
"""


@pytest.fixture(autouse=True)
def stuck(folder: Path) -> None:
    """An app that can be told to get stuck."""
    (folder / "stuck.py").write_text(STUCK)


def rows(server: Deployment) -> float:
    """What the rows say that was answered, as the shell adds it up."""
    return server.shell.value("SELECT sum(value) FROM samples WHERE metric = 'requests_total'")  # type: ignore[return-value]


def test_what_the_master_has_set_is_in_the_rows(folder: Path) -> None:
    """It has no flusher; the workers write what it has, though nothing changes there any more."""
    with deployed(Row(PAGE, "worker numbers instead of pids"), folder) as server:
        server.until(lambda: len(server.counting()) >= 2)
        server.shell.wait_for_row(f"SELECT 1 FROM processes WHERE os_pid = {server.process.pid} AND rows > 0")


def test_gauges_have_the_workers_number_by_one_setting(folder: Path) -> None:
    """Without a line in the app; a worker that takes a dead one's place has its number."""
    with deployed(Row(PAGE, LAZY), folder, SQLMETRICS_PROCESS_IDENTIFIER="uwsgi-worker") as server:

        def numbers() -> set[str]:
            return {dict(labels)["pid"] for name, labels in server.scrapes(1)[0] if name == "process_open_fds"}

        server.until(lambda: numbers() == {"1", "2"})  # a worker has these gauges before its first request
        server.until(lambda: len(server.counting()) == 2)
        before = server.counting()
        server.kill(min(before))
        server.until(lambda: server.counting() - before)
        server.until(lambda: numbers() == {"1", "2"})
        assert_all_shown(server)


def test_gauges_have_the_workers_number(folder: Path) -> None:
    """A worker's gauges have its number, also those of the one that takes a dead one's place."""
    with deployed(Row(PAGE, "worker numbers instead of pids"), folder) as server:

        def numbers() -> set[str]:
            return {dict(labels)["pid"] for name, labels in server.scrapes(1)[0] if name == "last_request_seconds"}

        server.until(lambda: {"1", "2"} <= numbers())
        server.until(lambda: len(server.counting()) == 2)  # rows come a moment later
        before = server.counting()
        server.kill(max(before))
        server.until(lambda: server.counting() - before)
        assert_all_shown(server)
        assert numbers() == {"0", "1", "2"}  # the master has imported the app, and set it to 0
