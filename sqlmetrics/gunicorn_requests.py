"""Metrics about requests from gunicorn's hooks, without code in the app: counts, durations, statuses, busy workers."""

from __future__ import annotations

import threading
import time
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Other methods share one series, because clients may send any word as a method."""
_UNKNOWN = "unknown"
"""The status that gunicorn's ASGI worker gives its hooks, unless it writes an access log."""


class Requests:
    """Counts the requests of one gunicorn. Its hooks call this, in any thread or greenlet that serves a request."""

    def __init__(self) -> None:
        self._requests = Counter(
            "gunicorn_requests", "Requests that gunicorn's workers have served.", ["method", "status"]
        )
        self._seconds = Histogram(
            "gunicorn_request_duration_seconds", "From a request's headers to the end of its answer.", ["method"]
        )
        self._workers = Gauge(
            "gunicorn_workers", "Workers that serve a request, or none.", ["state"], multiprocess_mode="livesum"
        )
        self._idle: Any = None
        self._busy: Any = None
        self._serving = 0
        self._begun: dict[int, float] = {}  # by id, as a request of gunicorn's ASGI worker takes no attribute
        self._lock = threading.Lock()  # so that the gauge is set to the newest count

    def begin_worker(self) -> None:
        """Note that this worker exists."""
        self._idle, self._busy = self._workers.labels("idle"), self._workers.labels("busy")
        self._idle.set(1)
        self._busy.set(0)

    def begin(self, request: Any) -> None:
        """Note that a request is being served."""
        if self._busy is None:  # a configuration without `post_fork`
            self.begin_worker()
        self._serve(1)
        self._begun[id(request)] = time.perf_counter()

    def end(self, request: Any, environ: Any, response: Any) -> None:
        """Count a request, even if its answer failed.

        response: None if there was none, or, if `environ` is None too, if gunicorn does not say what it was.
        """
        begun = self._begun.pop(id(request), None)
        if begun is None:
            return
        self._serve(-1)
        method = request.method if request.method in _METHODS else "other"
        status = _UNKNOWN if environ is None and response is None else _status(response)
        self._requests.labels(method, status).inc()
        self._seconds.labels(method).observe(time.perf_counter() - begun)

    def _serve(self, more: int) -> None:
        with self._lock:
            self._serving += more
            is_busy = self._serving > 0
            self._busy.set(is_busy)
            self._idle.set(not is_busy)


def _status(response: Any) -> str:
    """Return the code, such as ``200``; gunicorn answers 500 if the app has not begun an answer."""
    status = str(getattr(response, "status", None) or "500")[:3]
    return status if status.isdigit() else "other"
