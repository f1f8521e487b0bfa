"""Reloads under load, and restarts: what was answered is counted once, whichever worker answered it."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deployment import Deployment, Row, deployed, is_running
from exact import assert_all_shown, assert_tidy
from helpers import wait_for

pytestmark = pytest.mark.promise(3, 8)

SYNC = Row("servers/gunicorn.md", "sync workers")
RELOADED = [
    SYNC,
    Row("servers/gunicorn.md", "preload"),
    Row("servers/gunicorn.md", "gthread workers"),
    Row("servers/gunicorn.md", "gevent workers"),
    Row("servers/gunicorn.md", "asgi workers"),
    Row("servers/gunicorn.md", "uvicorn workers"),
    Row("servers/uvicorn.md", "Workers"),
    Row("servers/granian.md", "ASGI"),
    Row("servers/granian.md", "WSGI"),
    Row("servers/hypercorn.md", "asyncio workers"),
]
RESTARTED = [
    SYNC,
    Row("servers/uvicorn.md", "Workers"),
    Row("servers/granian.md", "ASGI"),
    Row("servers/hypercorn.md", "asyncio workers", change=("SQLMETRICS_PERSIST=1 ", "")),
]
ENVIRONMENT = {
    "GRANIAN_RESPAWN_INTERVAL": "1",  # how long an old worker goes on, while the new one starts; it is 3.5 s else
    "UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "40",  # the reload is given up if a new worker takes longer; it is 5 s else
}


class Load:
    """Requests from several threads, each for a path of its own, which the app counts by."""

    def __init__(self, server: Deployment):
        self._server = server
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self.answered: set[str] = set()
        self.unanswered: set[str] = set()

    def run(self) -> None:
        """Send one after another, until it is told to end."""
        while not self._ended.wait(0.005):
            path = f"/{next(self._numbers)}"
            try:
                status, _ = self._server.ask(path)
            except (OSError, http.client.HTTPException):
                status = 0  # a worker that ends may reset what it has not taken yet
            if status in (0, 503):  # Apache's answer while none of its daemons takes requests
                self.unanswered.add(path)
                self._ended.wait(0.05)
            else:
                assert status == 200, (path, status)
                self.answered.add(path)

    def end(self) -> None:
        """Send no more."""
        self._ended.set()


@contextmanager
def load(server: Deployment) -> Iterator[Load]:
    """Load until the end of the block; then every scrape has to show what was answered, each exactly once."""
    one = Load(server)
    threads = [threading.Thread(target=one.run) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        yield one
    finally:
        one.end()
        for thread in threads:
            thread.join()
    assert one.answered
    for values in server.scrapes():
        counted = {dict(labels)["path"]: value for (name, labels), value in values.items() if name == "requests_total"}
        del counted["/"]
        assert set(counted.values()) == {1.0}, server.log()
        assert one.answered <= counted.keys() <= one.answered | one.unanswered, server.log()


def wait_for_others(server: Deployment, before: set[int], number: int = 2) -> None:
    """Wait until none of the old workers is there, and so many others have counted."""
    wait_for(lambda: not before & server.counting() and len(server.counting()) >= number, 40)


@pytest.mark.parametrize("row", RELOADED, ids=lambda row: f"{row.page}: {row.heading}")
def test_a_reload_under_load_loses_nothing_and_counts_nothing_twice(row: Row, folder: Path) -> None:
    """By HUP, which replaces every worker."""
    with deployed(row, folder, **ENVIRONMENT) as server:
        server.until(lambda: len(server.counting()) >= 2)
        before = server.counting()
        with load(server):
            server.process.send_signal(signal.SIGHUP)
            wait_for_others(server, before)
        assert_all_shown(server)
    assert_tidy(server)


def test_an_upgrade_under_load_loses_nothing_and_counts_nothing_twice(folder: Path) -> None:
    """By USR2: a second master of the same run counts in the same store, and the first one ends."""
    pid_file = folder / "pid"
    with deployed(SYNC, folder, GUNICORN_CMD_ARGS=f"--pid {pid_file}") as server:
        server.until(lambda: len(server.counting()) >= 2)
        before = server.counting()
        with load(server):
            server.process.send_signal(signal.SIGUSR2)
            wait_for(lambda: len(server.counting() - before) >= 2)
            server.process.send_signal(signal.SIGTERM)
            wait_for_others(server, before)
        assert_all_shown(server)
        assert server.process.wait(10) == 0
        wait_for(pid_file.exists)  # the second master takes the name over when it notices that the first one is gone
        second = int(pid_file.read_text())
        os.kill(second, signal.SIGTERM)
        wait_for(lambda: not is_running(second))
    assert_tidy(server)


def restart(server: Deployment) -> None:
    """End it as a supervisor does, and start it again."""
    server.stop()
    assert server.process.returncode in (0, -signal.SIGTERM), server.log()
    server.start()


@pytest.mark.parametrize("row", RESTARTED, ids=lambda row: row.page)
def test_a_restart_begins_at_zero(row: Row, folder: Path) -> None:
    """Which `rate()` understands."""
    with deployed(row, folder) as server:
        server.until(lambda: len(server.counting()) >= 2)  # a worker that is starting may miss the signal to end
        assert_all_shown(server)

        restart(server)
        assert all(("requests_total", (("path", "/"),)) not in values for values in server.scrapes())
        server.sent = 0
        server.until(lambda: len(server.counting()) >= 2)
        assert_all_shown(server)
    assert_tidy(server)


@pytest.mark.parametrize("row", RESTARTED, ids=lambda row: row.page)
def test_a_restart_goes_on_if_that_is_wanted(row: Row, folder: Path) -> None:
    """With `SQLMETRICS_PERSIST`."""
    with deployed(row, folder, SQLMETRICS_PERSIST="1") as server:
        server.until(lambda: len(server.counting()) >= 2)
        restart(server)
        assert_all_shown(server)
        server.until(lambda: len(server.counting()) >= 2)
        assert_all_shown(server)
    assert_tidy(server)
