"""Stores in trouble, for alerts to tell of: ``python states.py STATE PATH`` brings one about, and keeps it so.

``python states.py serve PATH…`` serves these stores, and what they tell of themselves, each on a port of its own.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator

from helpers import delete
from outsiders import Operator
from prometheus_client import Counter, Gauge

import sqlmetrics

Going = Iterator[None]
"""What a state does to go on; it is asked every tenth of a second."""
SERIES = 10_001
SLOTS = 3_300


def well(path: str) -> Going:
    """A process that counts."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests")
    while True:
        requests.inc()
        yield


def no_workers(path: str) -> Going:
    """All that counted have been killed."""
    if os.fork() == 0:
        sqlmetrics.install(path)
        Counter("requests", "Requests").inc()
        os.kill(os.getpid(), 9)
    os.wait()
    yield from itertools.repeat(None)


def crash_loop(path: str) -> Going:
    """Each worker ends with its first request."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests")
    requests.inc()
    while True:
        if os.fork() == 0:
            requests.inc()
            os._exit(1)
        os.wait()
        yield


def rows_behind(path: str) -> Going:
    """Another program holds the write lock, and a process has new series."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()
    with Operator(path, "BEGIN IMMEDIATE"):
        requests.labels("/new").inc()
        yield from itertools.repeat(None)


def near_limit(path: str) -> Going:
    """Each process has a slot of the cells file for each of its names: here it is one of many names."""
    current = [0]
    sqlmetrics.install(path, process_identifier=lambda: str(current[0]))
    requests = Counter("requests", "Requests")
    for current[0] in range(SLOTS):
        requests.inc()
    yield from itertools.repeat(None)


def pid_clash(path: str) -> Going:
    """All processes are called the same."""
    sqlmetrics.install(path, process_identifier=lambda: "web")
    requests = Counter("requests", "Requests")
    requests.inc()
    if os.fork() == 0:
        requests.inc()
        sys.stdin.read()
        os._exit(0)
    yield from itertools.repeat(None)


def errors(path: str) -> Going:
    """Somebody deletes the files while the app runs, not before it was scraped."""
    for number, _ in enumerate(well(path)):
        if number % 100 == 99:
            delete(path)
        yield


def limited(path: str) -> Going:
    """A label with more values than it may have."""
    sqlmetrics.install(path, max_series=5)
    requests = Counter("requests", "Requests", ["path"])
    for number in itertools.count():
        requests.labels(str(number)).inc()
        yield


def cardinality(path: str) -> Going:
    """A label with too many values."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests", ["path"])
    for number in range(SERIES):
        requests.labels(str(number)).inc()
    yield from itertools.repeat(None)


def wal_grows(path: str) -> Going:
    """A shell has forgotten to end its transaction, and values change all the time."""
    store = sqlmetrics.install(path, flush_interval=0.05)
    gauges = [Gauge(name, "Sizes", ["path"], multiprocess_mode="max") for name in ("sizes", "lengths")]
    children = [gauge.labels(str(number)) for gauge in gauges for number in range(SERIES - 2)]
    store.flush()
    with Operator(path, "BEGIN", "SELECT count(*) FROM series"):
        while True:
            for child in children:
                child.inc()
            yield


STATES: dict[str, Callable[[str], Going]] = {
    "well": well,
    "SqlmetricsNoWorkers": no_workers,
    "SqlmetricsCrashLoop": crash_loop,
    "SqlmetricsRowsBehind": rows_behind,
    "SqlmetricsDiskNearlyFull": well,  # on a small disk
    "SqlmetricsCellsNearLimit": near_limit,
    "SqlmetricsPidClash": pid_clash,
    "SqlmetricsErrors": errors,
    "SqlmetricsSeriesLimited": limited,
    "SqlmetricsCardinality": cardinality,
    "SqlmetricsWalGrows": wal_grows,
}


def bring_about(state: str, path: str) -> None:
    """Bring a state about, say so, and keep it until the standard input ends."""
    ended = threading.Event()
    going = STATES[state](path)
    next(going)
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.wait(0.1):
        next(going)
    going.close()


def serve(paths: list[str]) -> None:
    """Serve each store, and say on which ports, until the standard input ends."""
    servers = [sqlmetrics.start_http_server(0, "127.0.0.1", path, self_metrics=True)[0] for path in paths]
    print(*(server.server_port for server in servers), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        bring_about(*sys.argv[1:])
