"""`sqlmetrics serve` as a process of its own, and questions to it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from helpers import wait_for

COMMAND = [sys.executable, "-m", "sqlmetrics", "serve"]


class Answer(NamedTuple):
    """What was answered; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exporter:
    """A running exporter."""

    def __init__(self, process: subprocess.Popen[bytes], log: str):
        self.process, self._log = process, log
        first = wait_for(self._first_line)
        self.url = str(first).rpartition(" at ")[2].strip()

    def log(self) -> str:
        """What it has logged."""
        with open(self._log, encoding="utf-8") as file:
            return file.read()

    def _first_line(self) -> str | None:
        assert self.process.poll() is None, self.log()
        first, end, _ = self.log().partition("\n")
        return first if end else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urllib.parse.urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask; names of headers are written with _ for -."""
        connection = self._connection()
        with contextlib.closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def text(self, path: str = "/metrics", **headers: str) -> str:
        """The body of an answer that must be 200."""
        answer = self.get(path, **headers)
        assert answer.status == 200, answer
        return answer.body.decode()

    def json(self, name: str, **parameters: str) -> Any:
        """What it tells the page."""
        return json.loads(self.text(f"/api/{name}?{urllib.parse.urlencode(parameters)}"))

    def _connection(self) -> http.client.HTTPConnection:
        if self.url.startswith("unix:"):
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self.url.removeprefix("unix:"))
            return connection
        if self.url.startswith("https:"):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return http.client.HTTPSConnection(*self.address, timeout=30, context=context)
        return http.client.HTTPConnection(*self.address, timeout=30)


@contextlib.contextmanager
def serving(
    path: str | None,
    *options: str,
    listen: str = "127.0.0.1:0",
    end: int = signal.SIGTERM,
    fds: Sequence[int] = (),
    files: int | None = None,
    **environment: str,
) -> Iterator[Exporter]:
    """An exporter of the store at a path, which must end well on the signal `end` when the block is left.

    files: how many files it may have open; as many as this process, if None.
    """
    command = [*COMMAND, *(["--path", path] if path else []), "--listen", listen, *options]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    with tempfile.NamedTemporaryFile(prefix="sqlmetrics-test-", suffix=".log") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **environment}, pass_fds=fds)
        try:
            yield (exporter := Exporter(process, log.name))
            process.send_signal(end)
            status = process.wait(20)
            assert status == 0, (status, exporter.log())
            assert "Traceback" not in exporter.log(), exporter.log()
        finally:
            process.kill()
            process.wait()


def refused(*options: str, **environment: str) -> str:
    """What it says when it cannot begin: status 2."""
    done = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )
    assert done.returncode == 2, done
    return done.stderr


def basic(secret: str) -> str:
    """The `Authorization` of ``user:password``."""
    return f"Basic {base64.b64encode(secret.encode()).decode()}"
