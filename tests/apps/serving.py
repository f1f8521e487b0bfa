"""Runs a real gunicorn for a test: starts it on a free port, sends it requests, and ends it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from helpers import wait_for
from prometheus_client.parser import text_string_to_metric_families

APPS = Path(__file__).parent
HOOKS = "python:sqlmetrics.gunicorn"
_STOP_SECONDS = 10
_THREADS = 8

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Answer(NamedTuple):
    """An answer, with the pid of the worker that sent it (0 if its app failed)."""

    worker: int
    text: str
    status: int


@dataclass(frozen=True)
class Installed:
    """An installed gunicorn: the Python that runs it, and variables that its environment needs."""

    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    def version(self) -> tuple[int, ...]:
        """Return the version that really runs."""
        return _version(self.python, self.environment.get("PYTHONPATH", ""))


NEWEST = Installed()


@functools.cache
def _version(python: str, path: str) -> tuple[int, ...]:
    command = [python, "-c", "import gunicorn; print(gunicorn.__version__)"]
    environment = os.environ | ({"PYTHONPATH": path} if path else {})
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return tuple(map(int, done.stdout.split(".")))


@contextlib.contextmanager
def serving(
    folder: Path, app: str, *options: str, config: str = HOOKS, gunicorn: Installed = NEWEST, **environment: str
) -> Iterator[Server]:
    """Run a gunicorn with an app of this folder; its log is in `folder`. environment: more variables for it."""
    server = Server(folder, app, ["-c", config, *options], gunicorn, environment)
    try:
        wait_for(server.is_listening)
        yield server
    finally:
        server.stop()


class Server:
    """A running gunicorn."""

    Cut = http.client.HTTPException
    """The error of a request whose connection ends without an answer."""

    def __init__(
        self, folder: Path, app: str, options: list[str], gunicorn: Installed, environment: dict[str, str]
    ) -> None:
        self._log = folder / f"gunicorn-{len(list(folder.glob('gunicorn-*')))}.log"
        command = [gunicorn.python, str(APPS / "launch.py"), "-b", "127.0.0.1:0", *options, app]
        # A worker that is just being forked when gunicorn stops misses the signal; gunicorn kills it after this time.
        command[2:2] = ["--graceful-timeout", "3"]
        if gunicorn.version() >= (25, 1):
            command.insert(2, "--no-control-socket")  # it would be in the home folder, the same for all gunicorns
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | gunicorn.environment | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        """Return what gunicorn and its workers have written."""
        return self._log.read_text()

    def is_listening(self) -> bool:
        """Whether it accepts requests; then notes its port."""
        assert self.process.poll() is None, self.log()
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", self.log())
        self.port = int(found[1]) if found else 0
        return found is not None

    def get(self, target: str) -> Answer:
        """Send one request and return its whole answer, whose status must be 200."""
        answer = self.ask(target)
        assert answer.status == 200, (target, answer, self.log())
        return answer

    def ask(self, target: str, method: str = "GET") -> Answer:
        """Send one request and return its whole answer."""
        connection, response = self._begin(target, method)
        with contextlib.closing(connection):
            return Answer(int(response.headers["X-Worker"] or 0), response.read().decode(), response.status)

    def get_all(self, targets: Iterable[str]) -> list[Answer]:
        """Send many requests from several threads."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self.get, targets))

    def hold(self) -> tuple[int, Callable[[], None]]:
        """Begin a request that a worker holds; returns its pid, and a function that waits for the worker's end."""
        connection, response = self._begin("/hold")
        response.readline()

        def cut_off() -> None:
            with contextlib.closing(connection), contextlib.suppress(http.client.IncompleteRead, ConnectionError):
                raise AssertionError(f"a complete answer: {response.read()!r}")

        return int(response.headers["X-Worker"]), cut_off

    def workers(self, number: int, known: Iterable[int] = ()) -> set[int]:
        """Send requests until so many workers have answered, the known ones included, and return their pids."""
        found = set(known)

        def are_all_known() -> bool:
            found.update(answer.worker for answer in self.get_all(["/metrics"] * _THREADS))
            return len(found) >= number

        wait_for(are_all_known)
        return found

    def scrapes(self, workers: set[int]) -> Iterator[Values]:
        """Scrape until each of these workers has answered, and yield all scrapes."""
        missing = set(workers)

        def some_more() -> list[Answer]:
            answers = self.get_all(["/metrics"] * _THREADS)
            missing.difference_update(answer.worker for answer in answers)
            return answers

        answers: list[Answer] = []
        wait_for(lambda: answers.extend(some_more()) or not missing)
        yield from (parse(answer.text) for answer in answers)

    def stop(self) -> None:
        """End gunicorn with all its processes; kill those that hang."""
        self.process.send_signal(signal.SIGTERM)  # on SIGQUIT, gthread's workers sometimes wait for their own lock
        try:
            self.process.wait(_STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _begin(self, target: str, method: str = "GET") -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, target)
        return connection, connection.getresponse()


def parse(text: str) -> Values:
    """Return the samples of a scrape by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
