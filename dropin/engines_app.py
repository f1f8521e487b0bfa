"""An app for an engine to scrape: it counts what its clients say, and serves its metrics in each way that there is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from urllib.parse import parse_qsl

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.multiprocess import MultiProcessCollector

import sqlmetrics

REQUESTS = Counter("requests", "Requests answered", ["path"])
LATENCY = Histogram("latency_seconds", "How long the client says that it took", ["path"])
SIZE = Summary("size_bytes", "Length of the query")
BUSY = Gauge("busy", "Requests being worked on", multiprocess_mode="livesum")
LAST = Gauge("last_request", "Number of each worker's newest request", multiprocess_mode="liveall")


def text(environ, start_response):
    """As an app does it that knows of one format only."""
    start_response("200 OK", [("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)])
    return [sqlmetrics.generate_latest()]


def collector():
    """As the documentation of prometheus_client's multiprocess mode does it."""
    registry = CollectorRegistry(support_collectors_without_names=True)
    MultiProcessCollector(registry)
    return prometheus_client.make_wsgi_app(registry)


METRICS = {
    "/metrics": sqlmetrics.make_wsgi_app(self_metrics=True),
    "/metrics/text": text,
    "/metrics/registry": prometheus_client.make_wsgi_app(),
    "/metrics/collector": collector(),
}


def app(environ, start_response):
    """Answer a request, which is counted before its answer leaves."""
    path = environ["PATH_INFO"]
    if path in METRICS:
        return METRICS[path](environ, start_response)
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return hold() if path == "/hold" else [work(path, environ["QUERY_STRING"])]


def work(path: str, query: str) -> bytes:
    """``?seconds=0.25&number=17``: what the client says is what is observed, so that the client knows the quantiles."""
    said = dict(parse_qsl(query))
    trace = {"trace_id": said["number"]}
    with BUSY.track_inprogress():
        LAST.set(float(said["number"]))
        SIZE.observe(len(query))
        LATENCY.labels(path).observe(float(said["seconds"]), trace)
    REQUESTS.labels(path).inc(exemplar=trace)
    return b"done\n"


def hold() -> Iterator[bytes]:
    """Begin an answer that takes too long: its worker is killed meanwhile, and has nothing else in hand then."""
    with BUSY.track_inprogress():
        yield b"held\n"
        time.sleep(60)
