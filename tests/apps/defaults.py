"""An app whose endpoint is `prometheus_client`'s own, on the default registry."""

from __future__ import annotations

import os

from prometheus_client import Counter, make_wsgi_app

REQUESTS = Counter("requests", "Requests answered", ["path"])
METRICS = make_wsgi_app()


def app(environ, start_response):
    def start(status, headers, *rest):
        return start_response(status, [*headers, ("X-Worker", str(os.getpid()))], *rest)

    if environ["PATH_INFO"] == "/metrics":
        return METRICS(environ, start)
    sum(range(200_000))  # takes some CPU time
    REQUESTS.labels(environ["PATH_INFO"]).inc()
    start("200 OK", [])
    return [b"done\n"]
