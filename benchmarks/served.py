"""The app that gunicorn serves in `gunicorn`: five metrics for each request; ``/metrics`` answers a scrape."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

SIDE = os.environ["BENCHMARK_SIDE"]
registry = CollectorRegistry()
if SIDE == "sqlmetrics":
    import sqlmetrics

    sqlmetrics.install()
    metrics_app: Any = sqlmetrics.make_wsgi_app()
elif SIDE == "mmap":
    from prometheus_client.multiprocess import MultiProcessCollector

    scraped = CollectorRegistry()
    MultiProcessCollector(scraped)  # type: ignore[no-untyped-call]
    metrics_app = prometheus_client.make_wsgi_app(scraped)
else:
    metrics_app = prometheus_client.make_wsgi_app(registry)

REQUESTS = Counter("requests", "Requests", ["method", "path", "status"], registry=registry)
BYTES = Counter("bytes_sent", "Bytes", ["path"], registry=registry)
BUSY = Gauge("busy", "Requests under way", registry=registry, multiprocess_mode="livesum")
LATENCY = Histogram("latency", "Latency", ["method", "path"], registry=registry)
SIZES = Summary("sizes", "Sizes", ["path"], registry=registry)
ANSWER = [b"hello\n" * 10]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer, and count what is usually counted."""
    path = environ["PATH_INFO"]
    if path == "/metrics":
        answer: Iterable[bytes] = metrics_app(environ, start_response)
        return answer
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "60")])
    if SIDE != "none":
        start = time.perf_counter()
        BUSY.inc()
        REQUESTS.labels("GET", path, "200").inc()
        BYTES.labels(path).inc(60)
        SIZES.labels(path).observe(60)
        LATENCY.labels("GET", path).observe(time.perf_counter() - start)
        BUSY.dec()
    return ANSWER
