"""The app that `sqlmetrics demo` serves: a plain WSGI app with `prometheus_client` metrics. Copy it.

Start it with four workers, and look at what they count::

    export SQLMETRICS_PATH=/dev/shm/demo.sqlite3
    gunicorn -c python:sqlmetrics.gunicorn -w 4 sqlmetrics.demo.app:app &
    curl http://127.0.0.1:8000/ http://127.0.0.1:8000/metrics
    sqlite3 -readonly -box $SQLMETRICS_PATH "SELECT * FROM processes"

The metrics are made as in a program of one process: it is gunicorn's configuration, `sqlmetrics.gunicorn`, that
brings them into the store. Under another server, call ``sqlmetrics.install()`` at the start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
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
PAGES = ("/", "/gauges", "/slow")


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterator[bytes]:
    """Answer one request; it is counted before the end of its answer leaves.

    ``/gauges?max=3&livesum=4`` sets gauges in the worker that is asked; ``/slow?max=3`` does so too, and takes long.
    """
    path = environ["PATH_INFO"]
    worker = ("X-Worker", str(os.getpid()))  # the demo wants to know which one it kills
    if path == "/metrics":  # what all workers together have counted, whichever of them is asked
        text = generate_latest()
        start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST), worker])
        yield text
        return
    # A path that is not known is not a label: anyone could make series without end.
    route, status = (path, "200 OK") if path in PAGES else ("other", "404 Not Found")
    with IN_PROGRESS.track_inprogress(), LATENCY.labels(route).time():
        if path in ("/gauges", "/slow"):
            for mode, value in parse_qsl(environ.get("QUERY_STRING", "")):
                GAUGES[mode].set(float(value))
        start_response(status, [("Content-Type", "text/plain"), worker])
        yield f"{path}: {status}\n".encode()
        if path == "/slow":
            time.sleep(20)  # its worker can be killed in the middle
    REQUESTS.labels(route, status[:3]).inc()
