"""What the processes of `multiprocessing` do in the tests; importable, as spawn and forkserver need it."""

from __future__ import annotations

import os

from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics


def count(path: str | None, times: int) -> None:
    """Install the store, named or from the environment, and count."""
    sqlmetrics.install(path)
    jobs = Counter("jobs", "Jobs", ["kind"])
    for _ in range(times):
        jobs.labels("any").inc()
    Histogram("job_seconds", "Seconds").observe(0.5)
    Gauge("job_pid", "Pid", multiprocess_mode="all").set(os.getpid())
