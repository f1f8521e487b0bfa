"""A page of the documentation, followed to the letter: its files, its command, and what is asked of its server."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from apps.serving import Values
from helpers import Shell, key, wait_for
from pages import DOCS, blocks, commands
from prometheus_client.parser import text_string_to_metric_families

T = TypeVar("T")
Sample = tuple[str, tuple[tuple[str, str], ...]]
PORTS = (8000, 9200, 9201, 9464)
"""The ports of the pages: that of the app, and those of the metrics where they have ports of their own."""
_THREADS = 8
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Row:
    """One way to run one page: the command below a heading.

    page: such as ``servers/gunicorn.md``. heading: of the section that has the command.
    target: what is requested. metrics: where it is scraped; both begin with ``:9200`` if that is the port.
    samples: what each answered request adds to these samples of a scrape.
    supervised: the server ends when a worker is killed, and its supervisor starts it again.
    counts_late: a request is counted after its answer was sent, so a scrape that follows may be too early.
    change: (old, new): what the page says may be changed in the command.
    """

    page: str
    heading: str
    target: str = "/"
    metrics: str = "/metrics"
    samples: Mapping[Sample, float] = field(default_factory=lambda: {("requests_total", (("path", "/"),)): 1.0})
    supervised: bool = False
    counts_late: bool = False
    change: tuple[str, str] = ("", "")

    @property
    def path(self) -> Path:
        """The page."""
        return DOCS / "how-to" / self.page

    def command(self) -> str:
        """The command that starts a server. Fails unless the section has exactly one."""
        found = dict(started(self.path))
        assert self.heading in found, f"{self.page} has no command below {self.heading!r}, but {sorted(found)}"
        assert self.change[0] in found[self.heading]
        return found[self.heading].replace(*self.change, 1)

    def multiproc_dir(self) -> str | None:
        """The folder that the command names to `prometheus_client`, which an existing deployment has already."""
        named = re.search(r"\bPROMETHEUS_MULTIPROC_DIR=(\S+)", self.command(), re.I)  # it has an older name, too
        return named[1] if named else None

    def store(self) -> str:
        """Where the command has the store."""
        named = re.search(r"--path (\S+)", self.command())
        return named[1] if named else f"{self.multiproc_dir()}/metrics.sqlite3"


def started(page: Path) -> Iterator[tuple[str, str]]:
    """(heading, command) of each command in a page that starts something under `sqlmetrics run`."""
    for section in re.split(r"^#+ (?=[^\n]*\n)", outside_code(page), flags=re.M)[1:]:
        heading, _, text = section.partition("\n")
        for kind, shown in re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S):
            for command, _ in commands(shown) if kind == "console" else ():
                if "sqlmetrics run" in command:
                    yield heading, command


def outside_code(page: Path) -> str:
    """A page whose comments in code cannot be taken for headings."""
    return re.sub(r"^```(?!console)(\w+)\n.*?^```$", r"```\1\n```", page.read_text("utf-8"), flags=re.M | re.S)


def parse(text: str) -> Values:
    """The samples of a scrape; fails where a series or a family is there twice, as Prometheus does."""
    families = re.findall(r"^# TYPE (\S+)", text, flags=re.M)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {key(sample): sample.value for sample in samples}
    assert len(families) == len(set(families)), text
    assert len(samples) == len(values), text
    return values


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_COUNTING = """
SELECT DISTINCT os_pid AS pid FROM processes JOIN samples USING (pid)
 WHERE state = 'unsettled' AND NOT (metric GLOB 'process_*' OR metric GLOB 'python_*')
"""
"""What they take of the machine is said by all processes of a run, also by those that count nothing."""


class Deployment:
    """A server that runs as a page says, in a folder that stands for /dev/shm too, on ports that stand for `PORTS`."""

    def __init__(self, row: Row, folder: Path, change: Mapping[str, str] | None = None, **environment: str):
        self.row = row
        self.folder = folder
        folder.chmod(0o1777)  # as /dev/shm is
        self.ports = {port: free_port() for port in PORTS}
        self.store = Path(self.here(row.store()))
        self.shell = Shell(str(self.store))
        self.sent = 0
        self._log = folder / "server.log"
        self._environment = {**inherited(), **environment, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        if multiproc_dir := row.multiproc_dir():
            Path(self.here(multiproc_dir)).mkdir()
        for block in blocks(row.path):
            if block.file:
                file = folder / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self.here(_changed(block.text, change or {})))

    def here(self, text: str) -> str:
        """A text of the page with the places of this run in it."""
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text.replace("/dev/shm/", f"{self.folder}/")

    def start(self) -> None:
        """Start the server; returns when it answers a scrape."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", self.here(self.row.command())],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, _START_SECONDS)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask(self.row.metrics)[0] == 200
        return False

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def ask(self, target: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Send one request; returns the status and the text. Raises OSError or HTTPException."""
        port, path = re.fullmatch(r"(?::(\d+))?(/.*)", target).groups()  # type: ignore[union-attr]
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[int(port or PORTS[0])], timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()

    def request(self, number: int) -> None:
        """Have a number of requests answered, several at a time."""

        def one(_: int) -> None:
            status, text = self.ask(self.row.target)
            assert status == 200, (status, text, self.log())

        _in_threads(one, number)
        self.sent += number

    def scrapes(self, number: int = 2 * _THREADS, target: str | None = None) -> list[Values]:
        """Several scrapes, which several workers answer."""
        return [parse(text) for text in self.texts(number, target)]

    def texts(
        self, number: int = 2 * _THREADS, target: str | None = None, headers: Mapping[str, str] | None = None
    ) -> list[str]:
        """The texts of several scrapes."""
        answers = _in_threads(lambda _: self.ask(target or self.row.metrics, headers), number)
        assert {status for status, _ in answers} == {200}, (answers, self.log())
        return [text for _, text in answers]

    def counting(self) -> set[int]:
        """The processes that count and live, the launched one excepted, as the shell sees them."""
        return self._pids(_COUNTING) - {self.process.pid}

    def counting_in(self, metric: str) -> set[int]:
        """Those of them that have counted in a metric."""
        counted = self._pids(f"SELECT pid FROM samples WHERE metric = '{metric}' AND value > 0 AND pid IS NOT NULL")
        return counted & self.counting()

    def _pids(self, sql: str) -> set[int]:
        """The pids that a query finds; it tries again if a process that is the last to close keeps others out."""
        found: list[set[int]] = []

        def look() -> bool:
            with contextlib.suppress(subprocess.CalledProcessError):
                found.append({int(str(row["pid"])) for row in self.shell(sql)} if self.shell_has_store() else set())
            return bool(found)

        wait_for(look)
        return found[0]

    def shell_has_store(self) -> bool:
        """Whether there is a store to look into."""
        return self.store.exists()

    def until(self, condition: Callable[[], object]) -> None:
        """Send requests until a condition is true, a few at a time."""
        wait_for(lambda: self.request_if_possible() or condition())

    def request_if_possible(self) -> None:
        """Send some requests, those that a dying worker's socket refuses left out: nobody can have counted them."""

        def one(_: int) -> bool:
            with contextlib.suppress(ConnectionError, http.client.RemoteDisconnected):
                return self.ask(self.row.target)[0] == 200
            return False

        self.sent += sum(_in_threads(one, _THREADS))

    def kill(self, victim: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, and wait until the kernel has nothing of the process left but its exit status."""
        assert os.getsid(victim) == self.process.pid, f"{victim} is none of its processes"
        os.kill(victim, number)
        wait_for(lambda: not is_running(victim))

    def stop(self) -> None:
        """End the server with all its processes; what hangs is killed, and is a failure."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def inherited() -> dict[str, str]:
    """This environment, with the programs beside this Python first and nothing that names a store."""
    bins = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    names = ("SQLMETRICS_", "PROMETHEUS_", "PYTHONPATH")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(names)}, "PATH": bins}


def _changed(text: str, change: Mapping[str, str]) -> str:
    for old, new in change.items():
        text = text.replace(old, new)
    return text


def _in_threads(act: Callable[[int], T], number: int) -> list[T]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(act, range(number)))


def is_running(pid: int) -> bool:
    """Whether it may still hold its sockets: its first thread can be gone while others are on their way."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        return state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def deployed(
    row: Row, folder: Path, change: Mapping[str, str] | None = None, **environment: str
) -> Iterator[Deployment]:
    """A server that runs as its page says, until the end of the block; change: what its files have instead of what."""
    deployment = Deployment(row, folder, change, **environment)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
