"""Write what a store of two processes looks like in each format that there is: ``python exposed.py FOLDER STORE``.

One file for each: NAME.prom in the text format, NAME.om in OpenMetrics.
"""

from __future__ import annotations

import gzip
import os
import sys
import urllib.request
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import prometheus_client
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, REGISTRY, CollectorRegistry
from prometheus_client import exposition as plain
from prometheus_client.openmetrics import exposition as openmetrics

import sqlmetrics

MODES = ("all", "min", "max", "sum", "mostrecent")
VALUES = (0.0, 1e6, 1e21, 1.5e-9, -3.25, float("inf"), float("-inf"), float("nan"))
NAMES = ["orders_total", "latency_seconds_bucket", "sqlmetrics_rows", "sqlmetrics_scrape_seconds_count"]
ESCAPINGS = ("underscores", "dots", "values")
TEXT = "text/plain;version=0.0.4"
NEWER_TEXT = "text/plain;version=1.0.0;escaping=underscores"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def count() -> None:
    """Metrics of all types, labels of all kinds, and all values that need care."""
    orders = prometheus_client.Counter("orders", "Orders that \\ came\nin", ["path", "who"])
    latency = prometheus_client.Histogram("latency", "Time", ["path"], unit="seconds")
    for path in ("/", 'quoted "path"', "back\\slash", "new\nline", "ünïcode ✓", "", "trailing \\"):
        orders.labels(path, "x" * 200).inc(exemplar={"trace_id": "4bf9", "what": path})
        latency.labels(path).observe(0.3, {"trace_id": "4bf9"})
    values = prometheus_client.Gauge("value", "Values that need care", ["kind"], multiprocess_mode="max")
    for value in VALUES:
        values.labels(repr(value)).set(value)
    for mode in (*MODES, *(f"live{mode}" for mode in MODES)):
        prometheus_client.Gauge(f"{mode}_level", f"A gauge of mode {mode}", multiprocess_mode=mode).set(2.5)
    prometheus_client.Summary("size_bytes", "Sizes").observe(1024)
    prometheus_client.Info("build", "Build").info({"version": "1.2.3"})
    prometheus_client.Enum("task", "Task", states=["starting", "running"]).state("running")
    prometheus_client.Counter("http.requests", "A name beyond the classic ones", ["http.method"]).labels("GET").inc()
    prometheus_client.Counter("never_used", "No sample at all", ["path"])


def in_a_child() -> None:
    """Count in a process that has ended, too, some of it in families that nobody else has."""
    pid = os.fork()
    if pid == 0:
        prometheus_client.Counter("left", "Left by one that has ended").inc()
        REGISTRY._names_to_collectors["orders"].labels("/", "child").inc()
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)


def collected(**options: object) -> CollectorRegistry:
    """A registry with a collector."""
    registry = CollectorRegistry(support_collectors_without_names=True)
    sqlmetrics.MultiProcessCollector(registry, **options)
    return registry


def fetched(port: int, accept: str, query: str = "") -> bytes:
    """What a server answers, unpacked."""
    headers = {"Accept": accept, "Accept-Encoding": "gzip"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics?{query}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        return gzip.decompress(answer.read())


def texts() -> dict[str, bytes]:
    """Each text by the name of its file."""
    latest, own = sqlmetrics.generate_latest, partial(collected, self_metrics=True)
    server, _ = sqlmetrics.start_http_server(0, "127.0.0.1", self_metrics=True)
    client, _ = prometheus_client.start_http_server(0, "127.0.0.1")
    ours, theirs = server.server_port, client.server_port
    query = urlencode({"name[]": NAMES}, doseq=True)
    found = {
        "ours.prom": latest(),
        "ours-own.prom": latest(self_metrics=True),
        "ours-names.prom": latest(self_metrics=True, names=NAMES),
        "ours-modes.prom": latest(modes={"all_level": "sum", "liveall_level": "livemax"}),
        **{f"ours-{escaping}.prom": latest(escaping=escaping) for escaping in ESCAPINGS},
        **{f"collector-{escaping}.prom": plain.generate_latest(collected(), escaping) for escaping in ESCAPINGS},
        "registry.prom": plain.generate_latest(REGISTRY),
        "registry-names.prom": plain.generate_latest(REGISTRY.restricted_registry(NAMES)),
        "collector.prom": plain.generate_latest(collected()),
        "collector-own.prom": plain.generate_latest(own()),
        "collector-own-names.prom": plain.generate_latest(own().restricted_registry(NAMES)),
        "collector-created.prom": plain.generate_latest(collected(created=True)),
        "ours.om": latest(openmetrics=True),
        "ours-own.om": latest(openmetrics=True, self_metrics=True),
        "ours-names.om": latest(openmetrics=True, self_metrics=True, names=NAMES),
        **{f"ours-{escaping}.om": latest(openmetrics=True, escaping=escaping) for escaping in ESCAPINGS},
        "registry.om": openmetrics.generate_latest(REGISTRY),
        "collector-created-own.om": openmetrics.generate_latest(own(created=True)),
    }
    for name, port in (("http", ours), ("client-http", theirs)):
        found[f"{name}.prom"] = fetched(port, TEXT)
        found[f"{name}-newer.prom"] = fetched(port, NEWER_TEXT)
        found[f"{name}-names.prom"] = fetched(port, TEXT, query)
        found[f"{name}.om"] = fetched(port, OPENMETRICS)
        found[f"{name}-names.om"] = fetched(port, OPENMETRICS, query)
    return found


def main(folder: str, path: str) -> None:
    """Count, and write all texts."""
    store = sqlmetrics.install(path)
    for collector in (PROCESS_COLLECTOR, GC_COLLECTOR):
        sqlmetrics.publish(collector)
    sqlmetrics.publish(PLATFORM_COLLECTOR, "max")
    count()
    in_a_child()
    store.flush()
    for name, text in texts().items():
        Path(folder, name).write_bytes(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
