"""The demo's clients: real HTTP requests, counted on this side when they are sent and when they are answered."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

TIMEOUT = 15.0


class Answer(NamedTuple):
    """What came back: the target that was asked for, status, the worker's pid and the body."""

    target: str
    status: int
    worker: str
    text: str


class Client:
    """Sends requests to the demo's server. An answer that does not come is an OSError or an HTTPException.

    sent: requests by path. answered: complete answers by path and status. Both without `fetch_all`.
    """

    def __init__(self, port: int, threads: int):
        self.port = port
        self.threads = threads
        self.sent: Counter[str] = Counter()
        self.answered: Counter[tuple[str, int]] = Counter()

    def get(self, target: str) -> Answer:
        """Send one request."""
        self.sent[_path(target)] += 1
        answer = self._fetch(target)
        self.answered[_path(target), answer.status] += 1
        return answer

    def get_all(self, targets: Iterable[str], step: Callable[[], object]) -> None:
        """Send many requests from several threads at once, calling `step` after each answer."""
        targets = list(targets)
        self.sent.update(map(_path, targets))
        for answer in self.fetch_all(targets):
            self.answered[_path(answer.target), answer.status] += 1
            step()

    def fetch_all(self, targets: Iterable[str]) -> Iterator[Answer]:
        """Send many requests from several threads at once, and count none of them: scrapes."""
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(self._fetch, targets)  # its end, a Ctrl-C too, cancels those not yet sent

    def begin(self, target: str) -> tuple[str, Callable[[], bool]]:
        """Send a request whose answer takes long, and return as soon as the answer has begun.

        Returns the pid of the worker that has it, and a function that waits for the answer's end and tells
        whether it was complete.
        """
        self.sent[_path(target)] += 1
        connection = self._connection()
        connection.request("GET", target)
        response = connection.getresponse()
        response.readline()

        def finish() -> bool:
            try:
                response.read()
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
            self.answered[_path(target), response.status] += 1
            return True

        return response.headers["X-Worker"], finish

    def unanswered(self) -> Counter[str]:
        """Requests by path that never got a complete answer."""
        answered: Counter[str] = Counter()
        for (path, _), number in self.answered.items():
            answered[path] += number
        return self.sent - answered

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def _fetch(self, target: str) -> Answer:
        connection = self._connection()
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            return Answer(target, response.status, response.headers["X-Worker"], response.read().decode())
        finally:
            connection.close()


def _path(target: str) -> str:
    return target.partition("?")[0]
