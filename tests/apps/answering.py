"""An app that answers with 200, 404 or an exception, and counts nothing itself."""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, generate_latest


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise ValueError(path)
    start_response("404 Not Found" if path == "/missing" else "200 OK", [("X-Worker", str(os.getpid()))])
    return [generate_latest(REGISTRY) if path == "/metrics" else b"done\n"]
