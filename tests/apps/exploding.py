"""An app that makes as many label sets as a request asks for, and then computes for a while."""

from __future__ import annotations

import os
import time

from prometheus_client import Counter

import sqlmetrics

VISITS = Counter("visits", "Visits", ["user"])
_SECONDS = 2


def app(environ, start_response):
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    if environ["PATH_INFO"] == "/metrics":
        return [sqlmetrics.generate_latest()]
    for number in range(int(environ["QUERY_STRING"])):
        VISITS.labels(f"{os.getpid()}-{number}").inc(number)
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        pass
    return [b"done\n"]
