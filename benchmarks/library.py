"""One side's library in this process, and the metrics that are measured. Only its own side imports sqlmetrics."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families


class Library:
    """`prometheus_client` in memory, with its mmap files, or with sqlmetrics' store in `folder`."""

    def __init__(self, side: str, folder: str):
        # The multiprocess modes have no _created samples.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.own = CollectorRegistry()
        self._side = side
        self.scraped = self.own if side == "memory" else CollectorRegistry()
        if side == "mmap":
            from prometheus_client.multiprocess import MultiProcessCollector

            assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == folder
            self.collector: Any = MultiProcessCollector(self.scraped)  # type: ignore[no-untyped-call]
        elif side == "sqlmetrics":
            import sqlmetrics

            sqlmetrics.install(folder)
            self.collector = sqlmetrics.MultiProcessCollector(self.scraped)
        assert side == "sqlmetrics" or "sqlmetrics" not in sys.modules

    def collect(self) -> list[Metric]:
        """The families, by the collector alone."""
        return list(self.collector.collect())

    def note_death(self, pid: int) -> None:
        """Do what the library's documentation wants done when a process has ended."""
        if self._side == "mmap":
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def text(self) -> bytes:
        """The exposition text, by `prometheus_client.generate_latest`."""
        return generate_latest(self.scraped)

    def fast_text(self) -> bytes:
        """The exposition text, by sqlmetrics' own `generate_latest` where there is one."""
        if self._side != "sqlmetrics":
            return self.text()
        import sqlmetrics

        return sqlmetrics.generate_latest()

    def content(self, family: str = "") -> dict[str, float | str]:
        """All that a scrape shows, or only one family, in a form that does not depend on the order."""
        families = text_string_to_metric_families(self.text().decode())
        # In memory, a family is shown even before it has a child.
        return flat(one for one in families if one.samples and family in ("", one.name))


def flat(families: Iterable[Metric]) -> dict[str, float | str]:
    """The families and samples as a dict: 'name type' leads to the help, 'sample labels' to the value."""
    found: dict[str, float | str] = {}
    for family in families:
        found[f"{family.name} {family.type}"] = family.documentation
        for sample in family.samples:
            line = f"{sample.name} {json.dumps(sample.labels, sort_keys=True)}"
            assert line not in found, f"{line} is there twice"
            found[line] = sample.value
    return found


class Metrics:
    """The metrics of a program, registered as usual."""

    def __init__(self, registry: CollectorRegistry):
        calls = Counter("calls", "Calls", registry=registry)
        requests = Counter("requests", "Requests", ["method", "path"], registry=registry)
        self.operated: dict[str, Any] = {
            "child": calls,
            "counter": requests,
            "gauge": Gauge("level", "Level", registry=registry, multiprocess_mode="sum"),
            "recent": Gauge("recent", "Recent", registry=registry, multiprocess_mode="mostrecent"),
            "histogram": Histogram("seconds", "Seconds", registry=registry),
        }
        self.latency = Histogram("latency", "Latency", ["path"], registry=registry)
        self.beats = Counter("beats", "What was just counted", ["number"], registry=registry)


class Nothing:
    """The do-nothing baseline: what the loop and the call of a method cost."""

    def labels(self, *_values: str) -> Nothing:
        """Return itself."""
        return self

    def inc(self, amount: float = 1) -> None:
        """Do nothing."""

    def set(self, value: float) -> None:
        """Do nothing."""

    def observe(self, amount: float) -> None:
        """Do nothing."""
