"""What a fleet brings to an engine, by arithmetic, and a fleet of as many stores as fit to compare that with.

``python capacity.py FOLDER HOSTS WORKERS PATHS`` is the fleet: one process that answers the scrapes of all stores, and
the workers of each. It prints the port and the pid of the first. At each line that it reads, it replaces all workers,
and prints ``done``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import ThreadingWSGIServer

import sqlmetrics
from sqlmetrics import install  # with it the whole package is loaded, before the forks

PAUSE = 5
"""Seconds between two requests that a worker serves: hundreds of workers share two processors."""
STATUSES = ("200", "404", "500")
BUCKETS = 15
"""Of a histogram with `prometheus_client`'s own bounds, +Inf included."""
PUBLISHED = 6 + 3 * 3
"""Series of each worker with its pid: `process_*`, and three of each of the three generations of `python_gc_*`."""
SELF = 4
"""Cells of each worker for what sqlmetrics tells of itself: two for errors, two for flushes."""
REPORTED = 5
"""Series that Prometheus adds for each target: up, two of the scrape, and two of what relabelling and churn did."""


@dataclass(frozen=True)
class Fleet:
    """So many hosts, with so many workers each, which serve so many paths.

    Every second host names its workers by numbers that stay when they are replaced, the others by their pids.
    """

    hosts: int
    workers: int
    paths: int

    def shared(self) -> int:
        """Samples of a host without a pid: it has them once, however many workers count in them."""
        requests, sent, seconds, sizes = len(STATUSES), 1, BUCKETS + 2, 2
        busy = python_info = 1
        return self.paths * (requests + sent + seconds + sizes) + busy + python_info

    def own(self) -> int:
        """Samples of a host's workers, with their pids."""
        return self.workers * PUBLISHED

    def samples(self) -> int:
        """Of a scrape of a host."""
        return self.shared() + self.own()

    def churned(self) -> int:
        """New series at the engine when each worker has been replaced once; none of workers with names that stay."""
        return (self.hosts + 1) // 2 * self.own()

    def cells(self) -> int:
        """In a host's store: each worker has its own. Buckets tell a histogram's count."""
        requests, sent, seconds, sizes = len(STATUSES), 1, BUCKETS + 1, 2
        busy = python_info = 1
        published = busy + python_info + PUBLISHED + SELF
        return self.workers * (self.paths * (requests + sent + seconds + sizes) + published)


def path_of(folder: str, host: int) -> str:
    """Where the store of a host is."""
    return f"{folder}/host{host}/metrics.sqlite3"


def work(folder: str, host: int, number: int, paths: int, begun: int) -> None:
    """Be a worker: count every series once, write to a pipe, and then serve one path now and then."""
    names: dict[str, Any] = {"process_identifier": lambda: str(number)} if host % 2 else {}
    install(path_of(folder, host), **names)
    requests = Counter("requests", "Requests", ["method", "path", "status"])
    sent = Counter("bytes_sent", "Bytes", ["path"])
    busy = Gauge("busy", "Requests under way", multiprocess_mode="livesum")
    seconds = Histogram("latency", "Latency", ["method", "path"])
    sizes = Summary("sizes", "Sizes", ["path"])

    def serve(path: str, statuses: Iterable[str]) -> None:
        with busy.track_inprogress():
            for status in statuses:
                requests.labels("GET", path, status).inc()
            sent.labels(path).inc(60)
            sizes.labels(path).observe(60)
            seconds.labels("GET", path).observe(0.01)

    every = [f"/api/v1/resource{one}" for one in range(paths)]
    for path in every:
        serve(path, STATUSES)
    os.write(begun, b".")
    while True:
        time.sleep(PAUSE)
        serve(every[int(time.monotonic()) % paths], STATUSES[:1])


def answer(folder: str) -> int:
    """Fork the process that answers for all hosts: ``/17`` is the store of the host with that number; its port."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    apps: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        host = environ["PATH_INFO"].strip("/")
        if host not in apps:
            apps[host] = sqlmetrics.make_wsgi_app(path_of(folder, int(host)))
        return apps[host](environ, start_response)

    server = make_server("127.0.0.1", 0, app, ThreadingWSGIServer, Quiet)
    if forked() == 0:
        server.serve_forever()
    server.server_close()
    return server.server_port


_children: list[int] = []


def forked() -> int:
    """Fork a process that ends with this one."""
    pid = os.fork()
    if pid:
        _children.append(pid)
    return pid


def main(folder: str, hosts: int, workers: int, paths: int) -> None:
    """Be the fleet until the input ends."""
    for host in range(hosts):
        Path(path_of(folder, host)).parent.mkdir()
    os.environ["SQLMETRICS_PUBLISH"] = "process,gc,platform"
    port = answer(folder)
    pids = start(folder, hosts, workers, paths)
    print(port, _children[0], flush=True)
    for _ in sys.stdin:
        end(pids)
        pids = start(folder, hosts, workers, paths)
        print("done", flush=True)


def start(folder: str, hosts: int, workers: int, paths: int) -> list[int]:
    """Fork the workers, and return their pids. One host begins after the other, not hundreds of processes at once."""
    pids = []
    begun, begins = os.pipe()
    for host in range(hosts):
        for number in range(workers):
            pids.append(forked())
            if pids[-1] == 0:
                work(folder, host, number, paths, begins)
        for _ in range(workers):
            os.read(begun, 1)
    os.close(begun)
    os.close(begins)
    return pids


def end(pids: list[int]) -> None:
    """End processes."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
        _children.remove(pid)


if __name__ == "__main__":
    try:
        main(sys.argv[1], *map(int, sys.argv[2:]))
    finally:
        end(list(_children))
