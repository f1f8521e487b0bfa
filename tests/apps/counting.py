"""An app that has a counter, a histogram and gauges about its requests, and tells which worker answered."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REQUESTS = Counter("requests", "Requests answered", ["path"])
LATENCY = Histogram("latency_seconds", "Time to answer", ["path"])
BUSY = Gauge("busy", "Requests being worked on", multiprocess_mode="livesum")
LAST = Gauge("last", "Each worker's newest request", multiprocess_mode="liveall")
EVER = Gauge("ever", "Whether a worker was ever asked", multiprocess_mode="all")


def app(environ, start_response):
    path, number = environ["PATH_INFO"], float(environ.get("QUERY_STRING") or 0)
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    EVER.set(1)  # so that each worker that is asked has an operation: with --preload, the master made the metrics
    if path == "/metrics":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return [generate_latest(registry)]
    return hold(path) if path == "/hold" else [work(path, number)]


def work(path: str, number: float) -> bytes:
    with BUSY.track_inprogress(), LATENCY.labels(path).time():
        LAST.set(number)
    REQUESTS.labels(path).inc()
    return b"done\n"


def hold(path: str) -> Iterator[bytes]:
    with BUSY.track_inprogress():
        yield b"held\n"
        time.sleep(20)  # longer than any test holds it: the worker is killed meanwhile
    REQUESTS.labels(path).inc()
