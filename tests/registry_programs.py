"""Programs of a script and a module of its own, which make registries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from launching import write
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest

_MODULE = """
    import os
    import sqlmetrics
    sqlmetrics.install()
    from prometheus_client import *
    from prometheus_client import multiprocess

    def count(registry):
        jobs = Counter("jobs", "Jobs", registry=registry)
        jobs.inc()
        return jobs

    def show(registry):
        print(registry.get_sample_value("jobs_total"), flush=True)

    class Metrics:
        def __init__(self, registry=None):
            self.registry = registry or CollectorRegistry()
            count(self.registry)

    def use():
        registry = CollectorRegistry()
        count(registry)
        show(registry)
"""


def shown(folder: Path, path: str, script: str, module: str, **environment: str) -> list[str]:
    """What a program prints that runs as a script and may import a module ``app``."""
    write(folder, "base.py", _MODULE)
    (folder / "app.py").write_text("from base import *\nfrom base import os, sqlmetrics, multiprocess\n" + module)
    (folder / "script.py").write_text("from base import *\nfrom base import sqlmetrics, multiprocess\n" + script)
    environment = {**os.environ, "SQLMETRICS_PATH": path, **environment}
    command = [sys.executable, str(folder / "script.py")]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def use_all_kinds(registry: CollectorRegistry) -> list[Any]:
    """One metric of each kind, with and without labels, all of them used; whoever holds them keeps them."""
    given: dict[str, Any] = {"registry": registry}
    counter = Counter("counter", "Counter", ["of"], **given)
    gauge, recent = Gauge("gauge", "Gauge", **given), Gauge("recent", "R", multiprocess_mode="mostrecent", **given)
    function, summary = Gauge("function", "Function", **given), Summary("summary", "Summary", ["of"], **given)
    histogram, info = Histogram("histogram", "Histogram", buckets=[1, 2], **given), Info("info", "Info", **given)
    task = Enum("task", "Task", states=["on", "off"], **given)
    unit = Counter("spent", "Spent", unit="seconds", **given)
    counter.labels("a").inc()
    counter.labels(of="b").inc(2.5)
    gauge.set(3)
    gauge.inc()
    gauge.dec(2)
    recent.set(4)
    function.set_function(lambda: 5)
    summary.labels("a").observe(6)
    histogram.observe(1.5)
    info.info({"version": "7"})
    task.state("off")
    unit.inc(8)
    return [counter, gauge, recent, function, summary, histogram, info, task, unit]


def text(registry: Any) -> list[str]:
    """A registry's text, without the times at which its metrics were made."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
