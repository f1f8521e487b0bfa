"""An app factory that makes a registry; its views make others, for a probe and for the whole store."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector


def create_app():
    """Return the app; gunicorn calls this in each worker."""
    registry = CollectorRegistry()
    work = Counter("work", "Requests of the app", registry=registry)

    def app(environ, start_response):
        start_response("200 OK", [("X-Worker", str(os.getpid()))])
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return [generate_latest(registry)]
        if path == "/all":
            everything = CollectorRegistry()
            MultiProcessCollector(everything)
            return [generate_latest(everything)]
        work.inc()
        return [probe(environ.get("QUERY_STRING", ""))]

    return app


def probe(target: str) -> bytes:
    """Answer a request like a multi-target exporter: with a registry of its own."""
    registry = CollectorRegistry()
    Gauge("probe_success", "Success", ["target"], registry=registry).labels(target).set(1)
    Counter("probe_bytes", "Bytes", registry=registry).inc(10)
    return generate_latest(registry)
