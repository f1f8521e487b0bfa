"""The demo from beginning to end: a gunicorn, the requests that it gets, and every number that is checked."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gunicorn.config  # fails here, before anything is shown, if it is not installed
from prometheus_client.parser import text_string_to_metric_families

MODES = ["all", "min", "max", "sum", "mostrecent", "liveall", "livemin", "livemax", "livesum", "livemostrecent"]
ROWS_SECONDS = 5  # for rows to show everything: a flush comes once a second, and the machine may be busy
TIMEOUT = 20
"""Seconds that the demo waits for anything before it gives up."""
NOT_INHERITED = ("SQLMETRICS_", "GUNICORN_", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir", "WEB_CONCURRENCY")
# For another process: a second SQLite in one that uses sqlmetrics would drop the locks of the first.
READER = """
import json, sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
print(json.dumps(connection.execute(sys.argv[2]).fetchall()))
"""

Values = dict[tuple[str, ...], Any]
"""The samples of one name by the values of their labels, or rows by all columns but the last."""
Scrape = dict[str, Values]
Settings = list[tuple[str, int]]
"""(pid, number) for each time that a worker has set its gauges, the newest last."""
say = partial(print, flush=True)


def run(*, requests: int, workers: int) -> int:
    """Run the demo and show it; returns the exit status, 0 if every number was right.

    requests: how many to send, besides the few that set gauges. workers: how many gunicorn starts, at least 2.
    """
    if workers < 2 or requests < 1:
        say("The demo stopped: it takes 1 request and 2 workers at least: one worker is killed while another is asked")
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, signal.default_int_handler)  # leaves as little behind as a Ctrl-C
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of its own is made in it
    try:
        with tempfile.TemporaryDirectory(prefix="sqlmetrics-demo-", dir=memory) as folder:
            store = os.path.join(folder, "store")
            os.mkdir(store)
            with serving(store, workers) as port:
                return Demo(port, store, workers).tell(requests)
    except KeyboardInterrupt:
        say("The demo stopped: gunicorn and the temporary folder are gone")
        return 130
    except OSError as error:
        say(f"The demo stopped: {error}")
        return 1


@contextmanager
def serving(store: str, workers: int) -> Iterator[int]:
    """Yield the port of a gunicorn with the example app, and kill all its processes in the end.

    store: SQLMETRICS_PATH; the log is beside it. An OSError while it serves gets the end of the log.
    """
    command = [sys.executable, "-m", "gunicorn", "-c", "python:sqlmetrics.gunicorn", "-w", str(workers)]
    if any(setting.name == "control_socket_disable" for setting in gunicorn.config.KNOWN_SETTINGS):
        command.append("--no-control-socket")  # it would be in the home folder, one for all gunicorns
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    log = Path(f"{store}.log")
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "-b", f"fd://{listener.fileno()}", "sqlmetrics.demo.app:app"],
            # CPU and memory are others at each moment, and here the texts of several workers are compared.
            env=environment | {"SQLMETRICS_PATH": store, "SQLMETRICS_PUBLISH": ""},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # a Ctrl-C in the terminal is for the demo
        )
        port = listener.getsockname()[1]
    try:
        yield port
    except (OSError, http.client.HTTPException) as error:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise OSError(f"{error}; the end of gunicorn's log:\n{tail}") from error
    finally:
        with suppress(ProcessLookupError):  # all ended by themselves
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Demo:
    """The requests to the server, and the results of all checks.

    answered: answers by path and status. victim: the pid of the worker that is killed.
    """

    def __init__(self, port: int, store: str, workers: int):
        self.port, self.store, self.workers = port, store, workers
        self.answered: Counter[tuple[str, ...]] = Counter()
        self.settings: Settings = []
        self.victim = ""
        self.results: list[bool] = []

    def tell(self, requests: int) -> int:
        """Do everything in order, and print the results; returns the exit status."""
        say(f"One gunicorn on port {self.port}, {self.workers} workers, one SQLite store")
        say(f"$ export SQLMETRICS_PATH={self.store}")
        say(f"$ gunicorn -c python:sqlmetrics.gunicorn -w {self.workers} sqlmetrics.demo.app:app")
        say(f"\n{requests:,} requests; halfway, a worker is killed. Every number is checked.")
        targets = ["/missing" if n % 10 == 9 else "/" for n in range(requests)]
        self.ask(*targets[: requests // 2])
        self.set_gauges()
        self.kill_a_worker()
        self.ask(*targets[requests // 2 :])
        self.judge()
        if not all(self.results):
            say(f"{self.results.count(False)} of {len(self.results)} checks failed.")
            return 1
        say(f"\nAll {len(self.results)} checks hold. Now try it yourself, from any folder:")
        for line in self.own_try():
            say(f"$ {line}")
        say(f"The app, to copy: {Path(__file__).with_name('app.py')}")
        return 0

    def own_try(self) -> Iterator[str]:
        """Yield lines for a shell that start the same app, send it a request, and show what it has counted."""
        python = shlex.quote(sys.executable)
        store = Path(self.store).parent.with_name("sqlmetrics-try") / "metrics.sqlite3"
        yield f"export SQLMETRICS_PATH={shlex.quote(str(store))}"
        yield f"{python} -m gunicorn -c python:sqlmetrics.gunicorn -w {self.workers} sqlmetrics.demo.app:app &"
        yield "curl -s --retry 9 --retry-connrefused http://127.0.0.1:8000/"
        yield f"{python} -m sqlmetrics show demo_requests"
        yield "kill %1"

    def set_gauges(self) -> None:
        """Make each worker set its gauges to a number of its own; chance decides which worker answers."""
        for _ in tries("one of the workers never answered"):
            number = len(self.settings) + 1
            self.settings.append((self.ask(f"/gauges?{query(number)}"), number))
            if len(dict(self.settings)) == self.workers:
                return

    def kill_a_worker(self) -> None:
        """Kill a worker in the middle of a request, and wait for its successor."""
        with self.request(f"/slow?{query(90)}") as response:
            response.readline()
            self.victim = response.headers["X-Worker"]
            self.settings.append((self.victim, 90))
            say(f"Worker {self.victim} is in the middle of a request that sets its gauges to 90.")
            self.check_gauges(self.scrape(), self.settings, 1, "before the kill")
            os.kill(int(self.victim), signal.SIGKILL)
            complete = []
            with suppress(OSError, http.client.HTTPException):
                complete.append(response.read())
            self.check("complete answers of the killed worker", 0, len(complete))
        for _ in tries("gunicorn replaced the killed worker by none"):
            successor = self.ask("/gauges")
            if successor not in dict(self.settings):
                break
        self.settings.insert(0, (successor, 0))  # where a gauge starts
        say(f"It was killed (SIGKILL), and gunicorn started worker {successor} in its place.")

    def judge(self) -> None:
        """Check what a scrape shows, what another program reads, and the files."""
        shown = self.scrape()
        counted = shown["demo_requests_total"]
        self.check("requests counted", self.answered, counted)
        observed = sum(shown["demo_latency_seconds_count"].values())
        self.check("observations in the histogram", self.answered.total(), observed)
        living = [(pid, number) for pid, number in self.settings if pid != self.victim]
        self.check_gauges(shown, living, 0, "after the kill")
        states: Values = {(pid,): "remembered" if pid == self.victim else "unsettled" for pid in dict(self.settings)}
        self.check_rows("SELECT pid, state FROM processes", states)
        total = sum(counted.values())
        self.check_rows("SELECT sum(value) FROM samples WHERE metric = 'demo_requests_total'", {(): total})
        self.check_rows(
            "SELECT json_extract(labels, '$.path'), json_extract(labels, '$.status'), value"
            " FROM metrics WHERE metric = 'demo_requests_total'",
            counted,
        )
        self.check_files()

    def check_files(self) -> None:
        """Check that there are at most four files, and none that `prometheus_client` would take for its own."""
        names = sorted(os.listdir(self.store))
        self.check("files beyond four in the store's folder", 0, max(len(names) - 4, 0))
        self.check("files that end in .db", [], [name for name in names if name.endswith(".db")])

    def check_gauges(self, shown: Scrape, living: Settings, in_progress: int, when: str) -> None:
        """Check that ten gauges show what their modes say, and another one the requests in progress."""
        for mode in MODES:
            settings = living if mode.startswith("live") else self.settings
            self.check(f"gauge of mode {mode} {when}", gauge(mode, settings), shown[f"demo_{mode}"])
        self.check(f"in progress {when}", {(): in_progress}, shown["demo_in_progress"])

    def check_rows(self, sql: str, expected: Values) -> None:
        """Check that a view shows the same as a scrape, as soon as all changes are in rows."""
        deadline = time.monotonic() + ROWS_SECONDS
        while (found := read(self.store, sql)) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        self.check(sql, expected, found)

    def check(self, what: str, expected: object, found: object) -> None:
        """Print one number, and whether it is right."""
        self.results.append(found == expected)
        wrong = f"WRONG {what}: expected {plain(expected)}, found {plain(found)}"
        line = f"   ok {what}: {plain(found)}" if self.results[-1] else wrong
        say(textwrap.fill(line, 80, subsequent_indent=" " * 8))

    def scrape(self) -> Scrape:
        """Scrape until every worker but the victim has answered; all answers must have the same lines, in any order."""
        texts: dict[str, str] = {}
        for _ in tries("one of the workers was never scraped"):
            answers = self.fetch(["/metrics"] * 2 * self.workers)
            texts.update((response.headers["X-Worker"], text) for response, text in answers)
            if texts.keys() >= dict(self.settings).keys() - {self.victim}:
                break
        self.check("different answers to one scrape", 1, len({frozenset(text.splitlines()) for text in texts.values()}))
        found: Scrape = defaultdict(dict)
        for family in text_string_to_metric_families(next(iter(texts.values()))):
            for sample in family.samples:
                found[sample.name][tuple(sample.labels.values())] = sample.value
        return found

    def ask(self, *targets: str) -> str:
        """Send requests, and count their answers; returns the pid of the worker that answered the last."""
        for target, (response, _) in zip(targets, self.fetch(targets), strict=True):
            path = target.partition("?")[0]
            self.answered["other" if path == "/missing" else path, str(response.status)] += 1
        return str(response.headers["X-Worker"])

    def fetch(self, targets: Sequence[str]) -> Iterator[tuple[http.client.HTTPResponse, str]]:
        """Send requests from several threads; yields the answers with their bodies."""

        def fetch_one(target: str) -> tuple[http.client.HTTPResponse, str]:
            with self.request(target) as response:
                return response, response.read().decode()

        with ThreadPoolExecutor(2 * self.workers) as pool:
            yield from pool.map(fetch_one, targets)  # its end, a Ctrl-C too, cancels those not yet sent

    def request(self, target: str) -> http.client.HTTPResponse:
        """Send a request, and return as soon as its answer begins."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        connection.request("GET", target)
        return connection.getresponse()


def tries(failure: str) -> Iterator[None]:
    """Yield again and again, for a loop of tries. Raises TimeoutError(failure) if none ends the loop."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)
    raise TimeoutError(failure)


def query(number: int) -> str:
    """Return a query that sets a worker's ten gauges to a number; those of mode min to its negative."""
    return urlencode({mode: -number if mode.endswith("min") else number for mode in MODES})


def gauge(mode: str, settings: Settings) -> Values:
    """Return what the gauge of a mode must show. settings: of the processes that it shows."""
    kind = mode.removeprefix("live")
    values = {pid: -number if kind == "min" else number for pid, number in settings}
    if kind == "all":
        return {(pid,): value for pid, value in values.items()}
    numbers = values.values()
    return {(): {"min": min(numbers), "max": max(numbers), "sum": sum(numbers), "mostrecent": settings[-1][1]}[kind]}


def read(store: str, sql: str) -> Values:
    """Run a query in another process; return the last column by the columns before. Raises OSError."""
    command = [sys.executable, "-c", READER, os.path.join(store, "metrics.sqlite3"), sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise OSError(f"Python's sqlite3 in another process cannot read {store}: {done.stderr.strip()}")
    return {tuple(row[:-1]): row[-1] for row in json.loads(done.stdout)}


def plain(found: object) -> str:
    """Return a value as people read it."""
    if isinstance(found, Mapping):
        return ", ".join(" ".join([*labels, plain(value)]) for labels, value in found.items())
    return f"{found:.10g}" if isinstance(found, float) else str(found)
