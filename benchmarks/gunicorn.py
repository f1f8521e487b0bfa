"""A real gunicorn with four workers under load: requests in each second, and how late the latest hundredth is.

The load comes from `wrk` (Debian: ``apt-get install wrk``). A scrape in each second comes from here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from .comparison import expect
from .sizes import Sizes
from .table import Row

SERVED = ("none", "memory", "mmap", "sqlmetrics")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@contextlib.contextmanager
def server(side: str, folder: str) -> Iterator[str]:
    """Serve `served` with one side's library; gives the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "BENCHMARK_SIDE": side}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if side == "mmap":
        environment["PROMETHEUS_MULTIPROC_DIR"] = folder
    if side == "sqlmetrics":
        environment["SQLMETRICS_PATH"] = folder
    hooks = ["-c", "python:sqlmetrics.gunicorn"] if side == "sqlmetrics" else []
    command = [sys.executable, "-m", "gunicorn", "-w", "4", "-b", address, "--log-level", "error", *hooks]
    with subprocess.Popen([*command, "benchmarks.served:app"], env=environment) as process:
        try:
            _wait_until_up(f"http://{address}/")
            yield f"http://{address}"
        finally:
            process.terminate()


def _wait_until_up(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"{url} does not answer")


def load(url: str, seconds: int, *, scraped: bool) -> tuple[float, float, int]:
    """Requests in each second, the 99th percentile of their seconds, and how many requests were answered."""
    command = ["wrk", "-t1", "-c4", f"-d{seconds}s", "--latency", f"{url}/page"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while scraped and process.poll() is None:
            urllib.request.urlopen(f"{url}/metrics", timeout=20).read()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        assert process.stdout is not None
        said = process.stdout.read()
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    answered = re.search(r"(\d+) requests in", said)
    assert rate is not None
    assert answered is not None
    return float(rate[1]), float(number) * _UNITS[unit], int(answered[1])


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """The four servers take turns, each round with and without scrapes."""
    if not shutil.which("wrk"):
        print("gunicorn is left out: there is no wrk; Debian has it (apt-get install wrk)")
        return
    rates: dict[str, list[float]] = {side: [] for side in SERVED}
    late: dict[bool, dict[str, list[float]]] = {scraped: {side: [] for side in SERVED} for scraped in (False, True)}
    with contextlib.ExitStack() as stack:
        urls, sent = {}, dict.fromkeys(SERVED, 0)
        for side in SERVED:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"served-{side}", dir=folder))
            urls[side] = stack.enter_context(server(side, place))
            load(urls[side], 1, scraped=False) if side == "none" else None
        for number in range(2 * sizes.served_rounds):
            scraped = number % 2 == 1
            for side, url in urls.items():
                rate, p99, answered = load(url, sizes.served_seconds, scraped=scraped and side != "none")
                late[scraped][side].append(p99)
                sent[side] += answered
                if scraped:
                    rates[side].append(rate)
        for side in ("mmap", "sqlmetrics"):
            _check(urls[side], side, sent[side])
    yield Row("gunicorn, 4 workers: requests/s", rates, "1/s", target=1.0, larger=True)
    yield Row("no metrics at all: requests/s", {**rates, "none": rates["none"]}, "1/s", to="none", larger=True)
    for scraped, what in ((False, "without"), (True, "with")):
        yield Row(f"99th percentile {what} a scrape each second", late[scraped], "ms")
    both = {"sqlmetrics": late[True]["sqlmetrics"], "no scrape": late[False]["sqlmetrics"]}
    yield Row("the one with scrapes by that without", both, "ms", to="no scrape", target=1.05)
    theirs = {"sqlmetrics": late[True]["mmap"], "no scrape": late[False]["mmap"]}
    yield Row("the same of mmap mode", theirs, "ms", to="no scrape")


def _check(url: str, side: str, sent: int) -> None:
    """Every request that was answered is in a scrape; wrk drops those that are under way at its end."""
    text = urllib.request.urlopen(f"{url}/metrics", timeout=20).read().decode()
    shown = float(next(line for line in text.splitlines() if line.startswith("requests_total{")
                       and 'path="/page"' in line).split()[-1])  # fmt: skip
    expect(f"whether {side} shows {sent} requests, it shows {shown}", sent <= shown <= sent + 1000, True)
