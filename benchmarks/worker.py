"""A process of one side: ``python -m benchmarks.worker SIDE FOLDER`` does what it reads, one JSON line each."""

from __future__ import annotations

import json
import sys
import time
import timeit
from typing import Any

from .churn import Workers, footprint
from .crowd import Crowd, make_children
from .library import Library, Metrics, Nothing, flat


class Worker:
    """The tasks; each public method is one, and what it returns is the answer."""

    def __init__(self, side: str, folder: str):
        self._folder = folder
        self._library = Library(side, folder)
        self._workers: Workers | None = None
        self._metrics = Metrics(self._library.own)
        self._operated = self._metrics.operated
        if side == "baseline":
            self._operated = dict.fromkeys(self._operated, Nothing())

    def operate(self, statement: str, count: int) -> float:
        """Run a statement so often and return the seconds of one."""
        return timeit.Timer(statement, globals=self._operated).timeit(count) / count

    def create(self, prefix: str, count: int) -> float:
        """Make histogram children and return the seconds of one."""
        return make_children(self._metrics.latency, prefix, count)

    def gather(self, members: int, children: int) -> list[float]:
        """Fork processes that live from now on; returns how long a child took in each."""
        self._crowd = Crowd(self._metrics, members, children)
        return self._crowd.start()

    def count(self, member: int, new_series: bool) -> list[Any]:
        """Let one of them count something; returns the label and value of it that a scrape must show."""
        return list(self._crowd.count(member, new_series))

    def scrape(self, way: str) -> tuple[float, list[Any]]:
        """Scrape, and return the seconds and what was counted last, as the scrape shows it."""
        start = time.perf_counter()
        ways = {"fast": self._library.fast_text, "generate_latest": self._library.text}
        result = ways.get(way, self._library.collect)()
        seconds = time.perf_counter() - start
        return seconds, _newest_beat(result)

    def churn(self, deaths: int) -> None:
        """Let processes come and go until so many have ended."""
        self._workers = self._workers or Workers(self._library.own)
        for pid in self._workers.churn(deaths):
            self._library.note_death(pid)

    def footprint(self) -> tuple[int, int]:
        """Bytes and files of the store."""
        return footprint(self._folder)

    def content(self, family: str = "") -> dict[str, float | str]:
        """All that a scrape shows, or only one family."""
        return self._library.content(family)


def _newest_beat(result: Any) -> list[Any]:
    """The label and value of the newest series of the metric `beats`."""
    if isinstance(result, bytes):
        lines = [line for line in result.decode().splitlines() if line.startswith("beats_total{")]
        shown = {line.split('"')[1]: float(line.split()[-1]) for line in lines}
    else:
        samples = flat(family for family in result if family.name == "beats").items()
        shown = {line.split('"')[3]: float(value) for line, value in samples if line.startswith("beats_total ")}
    newest = max(shown, key=int, default="")
    return [newest, shown.get(newest)]


def main() -> None:
    """Read and do, until the other end of the pipe is closed."""
    worker = Worker(*sys.argv[1:])
    for line in sys.stdin:
        task, arguments = json.loads(line)
        print(json.dumps(getattr(worker, task)(**arguments)), flush=True)


if __name__ == "__main__":
    main()
