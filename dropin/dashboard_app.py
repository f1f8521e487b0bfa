"""An app with something to see in each panel of the dashboard: it answers, takes its time, fails, and is in trouble."""

from __future__ import annotations

import os
import time
from urllib.parse import parse_qs

from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics

LATENCY = Histogram("latency_seconds", "How long the client says that it took")
USERS = Counter("users", "Requests by user", ["user"])


def broken() -> float:
    """A function that raises at each flush: trouble of the cause `app`."""
    raise ValueError("no value today")


Gauge("broken", "A function that raises", multiprocess_mode="livesum").set_function(broken)
metrics = sqlmetrics.make_wsgi_app()


def app(environ, start_response):
    """``/?seconds=0.03&user=17`` takes 10 ms, and observes what it is told."""
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start_response)
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("as it was asked to")
    said = parse_qs(environ["QUERY_STRING"])
    LATENCY.observe(float(said["seconds"][0]))
    USERS.labels(said["user"][0]).inc()
    time.sleep(0.01)
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [b"done\n"]
