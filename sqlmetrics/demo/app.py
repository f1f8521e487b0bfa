"""The app that `sqlmetrics demo` serves: a plain WSGI app with `prometheus_client` metrics. Copy it.

Start it with four workers, and look at http://127.0.0.1:8000/metrics::

    export SQLMETRICS_PATH=/dev/shm/demo.sqlite3
    gunicorn -c python:sqlmetrics.gunicorn -w 4 sqlmetrics.demo.app:app

The metrics are made as in a program of one process: it is gunicorn's configuration, `sqlmetrics.gunicorn`, that
brings them into the store. Under another server, call ``sqlmetrics.install()`` at the start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram

from sqlmetrics import generate_latest

REQUESTS = Counter("demo_requests", "Requests answered", ["path", "status"])
LATENCY = Histogram("demo_latency_seconds", "Time to answer a request", ["path"])
IN_PROGRESS = Gauge("demo_in_progress", "Requests being worked on", multiprocess_mode="livesum")

MODES = ("all", "min", "max", "sum", "mostrecent")
GAUGES = {
    mode: Gauge(f"demo_{mode}", f"A gauge of mode {mode}", multiprocess_mode=mode)  # type: ignore[arg-type]
    for mode in (*MODES, *(f"live{mode}" for mode in MODES))
}
SLOW_SECONDS = 20

Response = tuple[str, bytes]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request; it is counted before its answer leaves."""
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    if path == "/metrics":
        return metrics(start_response)
    if path == "/slow":
        return slow(query, start_response)
    # A path that is not known is not a label: anyone could make series without end.
    route, answer = (path, ROUTES[path]) if path in ROUTES else ("other", missing)
    with IN_PROGRESS.track_inprogress(), LATENCY.labels(route).time():
        status, body = answer(query)
    REQUESTS.labels(route, status[:3]).inc()
    start_response(status, headers("text/plain"))
    return [body]


def metrics(start_response: StartResponse) -> list[bytes]:
    """What all workers together have counted, whichever of them is asked."""
    text = generate_latest()
    start_response("200 OK", headers(CONTENT_TYPE_LATEST))
    return [text]


def hello(query: str) -> Response:
    """The page that is asked for most."""
    return "200 OK", f"hello {query or 'world'}\n".encode()


def missing(query: str) -> Response:  # noqa: ARG001 - all routes are called alike
    """Any other page."""
    return "404 Not Found", b"no such page\n"


def gauges(query: str) -> Response:
    """Set gauges in the worker that is asked: ``/gauges?max=3&livesum=4``."""
    for mode, value in parse_qsl(query):
        GAUGES[mode].set(float(value))
    return "200 OK", b"set\n"


def slow(query: str, start_response: StartResponse) -> Iterator[bytes]:
    """Set gauges too, and take so long over the answer that its worker can be killed in the middle."""
    with IN_PROGRESS.track_inprogress():
        status, body = gauges(query)
        start_response(status, headers("text/plain"))
        yield body
        time.sleep(SLOW_SECONDS)
    REQUESTS.labels("/slow", status[:3]).inc()


def headers(content_type: str) -> list[tuple[str, str]]:
    """The worker says who it is, so that the demo knows which one it kills."""
    return [("Content-Type", content_type), ("X-Worker", str(os.getpid()))]


ROUTES: dict[str, Callable[[str], Response]] = {"/": hello, "/gauges": gauges}
