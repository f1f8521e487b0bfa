"""A real Prometheus and a real VictoriaMetrics: started on free ports with a test's configuration, asked over HTTP.

Debian has both: ``apt-get install prometheus victoria-metrics``.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from helpers import wait_for

_STOP_SECONDS = 20


class Series(NamedTuple):
    """One series of an answer: its labels without the name, and (seconds since the epoch, value) in order of time."""

    name: str
    labels: dict[str, str]
    points: list[tuple[float, float]]

    def values(self) -> list[float]:
        """The values in order of time."""
        return [value for _, value in self.points]

    def times(self) -> list[float]:
        """The times, in seconds since the epoch."""
        return [time for time, _ in self.points]


class Engine:
    """An engine that runs."""

    name: str
    bad_line: re.Pattern[str]
    """What a line of its log looks like that tells of trouble."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        (self.folder / "scrape.yml").write_text(config)
        self.start()

    def start(self) -> None:
        """Start the program, which has to be installed, and wait until it answers."""
        self.port = free_port()
        command = self.command()
        assert shutil.which(command[0]), f"this test needs Debian's package {self.name}"
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        try:
            wait_for(self.answers)
        except BaseException:
            self.stop()
            raise

    def command(self) -> list[str]:
        """The program and its arguments; it runs in its folder, where ``scrape.yml`` is."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it is there."""
        assert self.process.poll() is None, self.log()
        try:
            return bool(self.ask("/api/v1/query", query="1"))
        except (OSError, AssertionError):
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API."""
        address = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{address}: {error.read().decode()}") from error
        assert told["status"] == "success", (address, told)
        assert not told.get("warnings"), (address, told)
        return told["data"]

    def query(self, expression: str, time: float) -> list[Series]:
        """What an expression is at a time, in seconds since the epoch; with a range, the raw samples of it."""
        # nocache: VictoriaMetrics otherwise rounds times, and answers for some seconds ago, as samples may come late.
        data = self.ask("/api/v1/query", query=expression, time=f"{time:.3f}", nocache="1")
        return [series(one, one.get("values") or [one["value"]]) for one in data["result"]]

    def value(self, expression: str, time: float) -> float:
        """The only value of an expression at a time."""
        (one,) = self.query(expression, time)
        return one.points[-1][1]

    def query_range(self, expression: str, start: float, end: float, step: int) -> list[Series]:
        """What an expression is at each step, in seconds, from start to end."""
        moments = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step}s"}
        data = self.ask("/api/v1/query_range", query=expression, nocache="1", **moments)
        return [series(one, one["values"]) for one in data["result"]]

    def targets(self) -> list[dict[str, Any]]:
        """What it says of the targets that it scrapes."""
        active: list[dict[str, Any]] = self.ask("/api/v1/targets")["activeTargets"]
        return active

    def log(self) -> str:
        """What it has written."""
        return (self.folder / "log").read_text()

    def complaints(self) -> list[str]:
        """The lines of its log that are warnings or errors."""
        return [line for line in self.log().splitlines() if self.bad_line.search(line)]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()


class Prometheus(Engine):
    """It keeps exemplars, too."""

    name = "prometheus"
    bad_line = re.compile(r"level=(warn|error)")

    def command(self) -> list[str]:
        return [
            "prometheus",
            "--config.file=scrape.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--enable-feature=exemplar-storage",
        ]

    def exemplars(self, selector: str, start: float, end: float) -> dict[str, list[dict[str, Any]]]:
        """The exemplars of a selector by the name of the series, in order of time."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self.ask("/api/v1/query_exemplars", query=selector, start=f"{start:.3f}", end=f"{end:.3f}"):
            labels = dict(one["seriesLabels"])
            found.setdefault(labels.pop("__name__"), []).extend(
                {**exemplar, "series": labels} for exemplar in one["exemplars"]
            )
        return found


class VictoriaMetrics(Engine):
    """The single-node server, which scrapes as vmagent does."""

    name = "victoria-metrics"
    bad_line = re.compile(r"^\S+\t(warn|error|fatal|panic)\t")

    def command(self) -> list[str]:
        return [
            "victoria-metrics",
            "-promscrape.config=scrape.yml",
            "-storageDataPath=data",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-search.latencyOffset=1s",  # else the points of the last 30 seconds are copies of the one before
        ]


@contextlib.contextmanager
def running(kind: type[Engine], folder: Path, config: str) -> Iterator[Engine]:
    """Start an engine with a configuration; its files are in a folder of its own in `folder`. It is gone at the end."""
    engine = kind(folder, config)
    try:
        yield engine
    finally:
        engine.stop()


def series(one: dict[str, Any], points: list[list[Any]]) -> Series:
    """A series as the engines' API tells it."""
    labels = dict(one["metric"])
    return Series(labels.pop("__name__", ""), labels, [(time, float(value)) for time, value in points])


def added_up(found: list[Series]) -> dict[float, float]:
    """The sum of some series at each time at which all of them have a sample."""
    at: dict[float, list[float]] = defaultdict(list)
    for one in found:
        for time, value in one.points:
            at[time].append(value)
    return {time: sum(values) for time, values in sorted(at.items()) if len(values) == len(found)}


def free_port() -> int:
    """A port that nobody uses now: VictoriaMetrics does not tell which one it has chosen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
