"""Processes that count and then end in a given way; importable, as spawn, forkserver and subprocess need it."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from subprocess import Popen

from helpers import scrape, wait_for
from prometheus_client import Counter, Gauge, Histogram, Summary

import sqlmetrics

LASTING = ("all", "min", "max", "sum", "mostrecent")
LIVE = ("liveall", "livemin", "livemax", "livesum", "livemostrecent")
FOREVER = 1000.0
"""Seconds between two flushes: nothing is in rows that a test has not flushed or settled itself."""
Scraped = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Metrics:
    """One metric of each kind and a gauge of each mode; by the label `x` a test makes new children of them."""

    def __init__(self) -> None:
        self.requests = Counter("requests", "Requests", ["x"], registry=None)
        self.latency = Histogram("latency", "Latency", ["x"], registry=None, buckets=(4.5,))
        self.size = Summary("size", "Size", ["x"], registry=None)
        self.gauges = {
            mode: Gauge(mode, mode, ["x"], registry=None, multiprocess_mode=mode)  # type: ignore[arg-type]
            for mode in LASTING + LIVE
        }

    def count(self, number: float, x: str = "") -> int:
        """Counters, histograms and summaries only."""
        self.requests.labels(x).inc(number)
        self.latency.labels(x).observe(number)
        self.size.labels(x).observe(number)
        return os.getpid()

    def use(self, number: float, x: str = "") -> int:
        """One operation on each."""
        for gauge in self.gauges.values():
            gauge.labels(x).set(number)
        return self.count(number, x)


def counted(numbers: list[float], x: str = "") -> Scraped:
    """What a scrape shows of the counter, the histogram and the summary that processes used with these numbers."""
    label = ("x", x)
    small = sum(number <= 4.5 for number in numbers)
    return {
        ("requests_total", (label,)): sum(numbers),
        ("latency_bucket", (("le", "4.5"), label)): small,
        ("latency_bucket", (("le", "+Inf"), label)): len(numbers),
        ("latency_count", (label,)): len(numbers),
        ("latency_sum", (label,)): sum(numbers),
        ("size_count", (label,)): len(numbers),
        ("size_sum", (label,)): sum(numbers),
    }


def gauged(values: dict[int, float], live: bool, x: str = "") -> Scraped:
    """What a scrape shows of the gauges with a live mode, or of those without, of {pid: value}, the newest last."""
    if not values:
        return {}
    label, prefix = ("x", x), "live" if live else ""
    one_each = {(prefix + "all", (("pid", str(pid)), label)): value for pid, value in values.items()}
    numbers = list(values.values())
    return {
        **one_each,
        (prefix + "min", (label,)): min(numbers),
        (prefix + "max", (label,)): max(numbers),
        (prefix + "sum", (label,)): sum(numbers),
        (prefix + "mostrecent", (label,)): numbers[-1],
    }


# --- a process that counts, is looked at, counts once more and ends -------------------------------------------


def live_and_end(path: str, end: str) -> None:
    """Use the metrics, wait until the test has looked at that, use them and new children of them, and end at once."""
    faulthandler.disable()  # pytest's would write its report of the crash into the output of the tests
    sqlmetrics.install(path, flush_interval=FOREVER)
    metrics = Metrics()
    metrics.use(5)
    signal_file(path, "looked_at", write=str(metrics.use(4)))
    metrics.use(7)
    metrics.use(9, "last words")
    ENDS[end](path)


def signal_file(path: str, other: str, write: str) -> None:
    """Say that this process is ready, and wait for the answer."""
    with open(path + ".ready.tmp", "w") as file:
        file.write(write)
    os.rename(path + ".ready.tmp", path + ".ready")
    wait_for(lambda: os.path.exists(f"{path}.{other}"))


def _segfault(_path: str) -> None:
    ctypes.string_at(0)


def _execute(path: str) -> None:
    """Another program in this very process, which says so and lives on."""
    os.execv("/bin/sh", ["sh", "-c", 'echo > "$0.executed"; exec sleep 60', path])


def _run_out_of_memory(_path: str) -> None:
    """As where a service manager limits it: the allocation fails, and nobody handles the MemoryError."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + (32 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    held = []
    while True:
        held.append(bytearray(1 << 20))


def _raise(_path: str) -> None:
    raise RuntimeError("nobody handles this one")


def _signal(number: signal.Signals) -> Callable[[str], None]:
    def send(_path: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return send


ENDS: dict[str, Callable[[str], object]] = {
    "return": lambda _path: None,
    "sys.exit": lambda _path: sys.exit(3),
    "os._exit": lambda _path: os._exit(3),
    "exception": _raise,
    "MemoryError": _run_out_of_memory,
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGKILL": _signal(signal.SIGKILL),
    "SIGABRT": lambda _path: os.abort(),
    "SIGSEGV": _segfault,
    "exec": _execute,
}
STATUS = {
    "return": 0,
    "sys.exit": 3,
    "os._exit": 3,
    "exception": 1,
    "MemoryError": 1,
    "SIGTERM": -15,
    "SIGKILL": -9,
    "SIGABRT": -6,
    "SIGSEGV": -11,
}
"""What the parent is told of each; of `exec` nothing: it is still there."""


# --- the ways to start one: each returns what ends the waiting for it -------------------------------------------


def _fork(path: str, end: str) -> Callable[[], int | None]:
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            live_and_end(path, end)
        os._exit(0)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _multiprocessing(method: str) -> Callable[[str, str], Callable[[], int | None]]:
    def start(path: str, end: str) -> Callable[[], int | None]:
        process = get_context(method).Process(target=live_and_end, args=(path, end))
        process.start()

        def status() -> int | None:
            process.join(30)
            return process.exitcode

        return status

    return start


def _subprocess(path: str, end: str) -> Callable[[], int]:
    here = os.path.dirname(__file__)
    program = "import sys, deaths_app; deaths_app.live_and_end(*sys.argv[1:])"
    process = Popen([sys.executable, "-c", program, path, end], cwd=here)
    return lambda: process.wait(30)


def _executor(path: str, end: str) -> Callable[[], None]:
    pool = ProcessPoolExecutor(1, mp_context=get_context("fork"))
    future = pool.submit(live_and_end, path, end)

    def wait() -> None:
        with suppress(BrokenProcessPool):
            future.result(30)
        pool.shutdown()

    return wait


STARTS: dict[str, Callable[[str, str], Callable[[], int | None]]] = {
    "os.fork": _fork,
    "fork": _multiprocessing("fork"),
    "spawn": _multiprocessing("spawn"),
    "forkserver": _multiprocessing("forkserver"),
    "subprocess": _subprocess,
    "executor": _executor,
}


# --- a process that only scrapes ------------------------------------------------------------------------------


def print_scrape(path: str) -> None:
    """Scrape a store, in a process that does nothing else."""
    print(json.dumps(list(scrape(path).items())))
