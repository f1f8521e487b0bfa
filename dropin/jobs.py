"""A page about what works off jobs: its command runs, its program hands out jobs, and what they counted is scraped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from apps.serving import Values
from deployment import Deployment, Row, Sample, free_port, inherited
from helpers import wait_for

DONE: dict[Sample, float] = {
    ("jobs_total", (("task", "work"),)): 1.0,
    ("job_seconds_count", ()): 1.0,
    ("job_seconds_bucket", (("le", "+Inf"),)): 1.0,
}
"""What each job adds when it is done; while it is at work, `RUNNING` is one more."""
RUNNING: Sample = ("jobs_running", ())
_AT_WORK = "SELECT pid FROM samples WHERE metric = 'jobs_running' AND value = 1"
_LONG = 60.0
_PATIENCE = 60.0
_PAUSE = 0.1  # or the scrapes keep the jobs from running, on a small machine


@dataclass(frozen=True)
class Jobs(Row):
    """A section of a page about jobs.

    idle: samples that are 0 while no job is at work. options: what a page says to add to its command.
    """

    samples: dict[Sample, float] = field(default_factory=lambda: DONE)
    idle: tuple[Sample, ...] = (RUNNING,)
    options: str = ""

    def command(self) -> str:
        """The command with its options."""
        return f"{super().command()} {self.options}".rstrip()


class AtWork(Deployment):
    """Processes that work off what `enqueue.py` of the page hands out."""

    row: Jobs

    def __init__(
        self, row: Jobs, folder: Path, redis: int, change: Mapping[str, str] | None = None, **environment: str
    ):
        self._redis = redis
        super().__init__(row, folder, change, **environment)

    def here(self, text: str) -> str:
        """See `Deployment.here`; 6379 is where Redis usually is."""
        return re.sub(r"\b6379\b", str(self._redis), super().here(text))

    def hand_out(self, number: int, seconds: float = 0.0) -> None:
        """Have jobs of this length queued by the page's program, which is no process of the store."""
        command = [sys.executable, "enqueue.py", str(number), str(seconds)]
        subprocess.run(command, cwd=self.folder, env=self._environment, check=True, timeout=60)

    def request_if_possible(self) -> None:
        """Have some more jobs done."""
        self.hand_out(20)
        self.sent += 20
        self.finish()

    def work_off(self, number: int) -> None:
        """Have jobs done, and fail unless every scrape shows all that were ever done, and none at work."""
        self.hand_out(number)
        self.sent += number
        self.finish()
        for values in self.scrapes(4):
            assert {sample: values.get(sample) for sample in self.expected()} == self.expected(), self.log()

    def expected(self) -> Values:
        """What a scrape has to show when all jobs are done."""
        done = {sample: each * self.sent for sample, each in self.row.samples.items()}
        return {**done, **dict.fromkeys(self.row.idle, 0.0)}

    def finish(self) -> None:
        """Wait until as many jobs as were handed out, or more, are shown as done."""
        wait_for(self._is_finished, _PATIENCE)

    def _is_finished(self) -> bool:
        time.sleep(_PAUSE)
        (values,) = self.scrapes(1)
        done = all(values.get(sample, 0.0) >= each * self.sent for sample, each in self.row.samples.items())
        return done and not any(values.get(sample) for sample in self.row.idle)

    def shown(self, sample: Sample) -> float:
        """One sample of a scrape."""
        return self.scrapes(1)[0].get(sample, 0.0)

    def at_work(self) -> int:
        """Have a job begun that does not end; returns the process that is at work, which the shell knows."""
        wait_for(lambda: not self.shell(_AT_WORK))  # rows may still tell of the last job, in another process
        self.hand_out(1, _LONG)
        wait_for(lambda: self.shown(RUNNING) == 1)
        (victim,) = wait_for(lambda: self.shell(_AT_WORK))
        return int(victim["pid"])

    def stop(self) -> None:
        """Kill them all: a warm shutdown of Celery takes many seconds, with or without a store."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def start_again(self) -> None:
        """What a supervisor does with a command that has ended by itself."""
        self.process.wait(30)
        self.start()


@contextlib.contextmanager
def working(row: Jobs, folder: Path, redis: int, **environment: str) -> Iterator[AtWork]:
    """The page's command runs, until the end of the block."""
    deployment = AtWork(row, folder, redis, **environment)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()


@contextlib.contextmanager
def exporter(store: Path, port: int, folder: Path) -> Iterator[None]:
    """`sqlmetrics serve` of a store, which need not be there; it ends well."""
    command = [sys.executable, "-m", "sqlmetrics", "serve", "--path", str(store), "--listen", f"127.0.0.1:{port}"]
    log = folder / "exporter.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=inherited(), stderr=file)
    try:
        wait_for(lambda: "serving " in log.read_text())
        yield
        process.terminate()
        assert process.wait(20) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Debian's Redis on a port of its own, which keeps nothing; yields the port."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([*command, "--dir", str(folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: _is_ready(process, port))
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "redis-server has ended; its log is redis.log in the test's folder"
    ping = ["redis-cli", "-h", "127.0.0.1", "-p", str(port), "ping"]
    return subprocess.run(ping, capture_output=True, text=True).stdout == "PONG\n"
