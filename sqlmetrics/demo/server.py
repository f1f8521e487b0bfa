"""The demo's gunicorn: started as a user would start it, and gone at the end whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

import gunicorn.config  # fails here, before anything is shown, if it is not installed

START_SECONDS = 20
STOP_SECONDS = 5
_TMPFS = "/dev/shm"  # noqa: S108 - a folder of its own is made in it
_LISTENING = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
_NOT_INHERITED = ("SQLMETRICS_", "GUNICORN_", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir", "WEB_CONCURRENCY")
T = TypeVar("T")


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Server:
    """A gunicorn with the example app. Entering it raises DemoError if it does not start.

    within: the folder in which the store's own folder and the log are made. workers: how many to start.
    """

    def __init__(self, within: str, workers: int):
        self.folder = os.path.join(within, "store")
        self.store = os.path.join(self.folder, "metrics.sqlite3")
        self.workers = workers
        self._log = os.path.join(within, "gunicorn.log")
        os.mkdir(self.folder)

    def __enter__(self) -> Server:
        with open(self._log, "wb") as log:
            # A session of its own: a Ctrl-C in the terminal is for the demo, which then stops gunicorn.
            self._process = subprocess.Popen(
                self._command(),
                env=_environment() | {"SQLMETRICS_PATH": self.store},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.port = wait(self._port, START_SECONDS, self._failure)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop gunicorn at once, and whatever of it is left after some seconds."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill_session(self._process.pid)
            self._process.wait()
            signal.signal(signal.SIGINT, before)

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "gunicorn", "-c", "python:sqlmetrics.gunicorn", "-w", str(self.workers)]
        command += ["-b", "127.0.0.1:0"]
        if any(setting.name == "control_socket_disable" for setting in gunicorn.config.KNOWN_SETTINGS):
            command.append("--no-control-socket")  # it would be in the home folder, one for all gunicorns
        return [*command, "sqlmetrics.demo.app:app"]

    def _port(self) -> int | None:
        found = _LISTENING.search(self._read_log())
        if found is None and self._process.poll() is not None:
            raise self._failure()
        return int(found[1]) if found else None

    def _failure(self) -> DemoError:
        tail = "\n".join(self._read_log().splitlines()[-8:])
        return DemoError(f"gunicorn did not start; the end of its log:\n{tail}")

    def _read_log(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as log:
            return log.read()


def memory_folder() -> str:
    """A folder in memory where there is one, as the documentation recommends for a store, else on the disk."""
    return _TMPFS if os.access(_TMPFS, os.W_OK) else tempfile.gettempdir()


def wait(condition: Callable[[], T | None], seconds: float, failure: Callable[[], DemoError]) -> T:
    """Wait until a condition gives something true and return it; raise the failure after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise failure()
        time.sleep(0.02)
    return result


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}


def _kill_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all ended by themselves
        os.killpg(leader, signal.SIGKILL)
