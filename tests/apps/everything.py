"""An app that uses everything in `prometheus_client`, with or without a store.

argv: how many processes serve; each counts the same. At the end, one of them prints the text in both formats.
"""

from __future__ import annotations

import os
import sys

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics

requests = Counter("app_requests", "Requests", ["method", "path"], unit="")
failures = Counter("app_failures_total", "Failures")
latency = Histogram("app_latency", "Latency", ["path"], unit="seconds", buckets=[0.1, 1])
size = Summary("app_size_bytes", "Sizes", ["path"])
busy = Gauge("app_busy", "Busy", multiprocess_mode="livesum")
level = Gauge("app_level", "Level", ["pid"], multiprocess_mode="max")
recent = Gauge("app_recent", "Recent", multiprocess_mode="mostrecent")
unset = Gauge("app_unset", "Never set", multiprocess_mode="mostrecent")
queue = Gauge("app_queue", "Asked for", multiprocess_mode="max")
build = Info("app_build", "Build")
task = Enum("app_task", "Task", ["job"], states=["starting", "running", "stopped"])
childless = Counter("app_childless", "Without a child", ["kind"])
private = Counter("app_private", "In a registry of its own", registry=CollectorRegistry())
queue.set_function(lambda: 3)


class Devices:
    """A custom collector."""

    def collect(self):
        """Yield one family."""
        family = GaugeMetricFamily("app_devices", "Devices", labels=["name"])
        family.add_metric(["a"], 1)
        yield family


REGISTRY.register(Devices())


def serve() -> None:
    """Count what each process counts."""
    for path in ("/", "/old", "/older", "/new"):
        requests.labels("GET", path).inc(exemplar={"trace": "1"})
        latency.labels(path).observe(0.5, {"trace": "2"})
        size.labels(path=path).observe(100)
    with failures.count_exceptions(KeyError), busy.track_inprogress():
        pass
    level.labels("mine").set(7)
    recent.set(5)
    build.info({"version": "1", "python": "3"})
    task.labels("a").state("running")
    private.inc()


def tidy() -> None:
    """Remove and reset what one process removes and resets when all have served."""
    requests.remove("GET", "/old")
    requests.remove_by_labels({"path": "/older"})
    size.clear()
    size.labels("/").observe(1)
    failures.inc(5)
    failures.reset()


children = []
for _ in range(int(sys.argv[1]) - 1):
    if pid := os.fork():
        children.append(pid)
    else:
        serve()
        os._exit(0)
serve()
for pid in children:
    os.waitpid(pid, 0)
tidy()
print(generate_latest().decode())
print(openmetrics.generate_latest(REGISTRY).decode())
