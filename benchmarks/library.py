"""One side's library in this process, and the metrics that are measured. Only its own side imports sqlmetrics."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families


class Library:
    """One of `table.SIDES`, with its files in `folder`.

    memory, mmap: `prometheus_client` alone, or with its mmap files. mpmetrics: shared memory, through a C extension.
    distributed: `prometheus-distributed-client`, a SQLite file and one commit for each value.
    """

    def __init__(self, side: str, folder: str):
        if hasattr(prometheus_client, "disable_created_metrics"):  # the multiprocess modes have no _created samples
            prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.own = CollectorRegistry()
        self.side = side
        self.classes: Any = prometheus_client
        self.scraped = CollectorRegistry() if side in ("mmap", "sqlmetrics") else self.own
        self.collector: Any = self.own
        getattr(self, f"_use_{side}")(folder)
        assert side == "sqlmetrics" or "sqlmetrics" not in sys.modules

    def _use_memory(self, _folder: str) -> None:
        pass

    def _use_mmap(self, folder: str) -> None:
        from prometheus_client.multiprocess import MultiProcessCollector

        assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == folder
        self.collector = MultiProcessCollector(self.scraped)  # type: ignore[no-untyped-call]

    def _use_sqlmetrics(self, folder: str) -> None:
        import sqlmetrics

        sqlmetrics.install(folder)
        self.collector = sqlmetrics.MultiProcessCollector(self.scraped)

    def _use_mpmetrics(self, _folder: str) -> None:
        import mpmetrics

        self.classes = mpmetrics

    def _use_distributed(self, folder: str) -> None:
        from prometheus_distributed_client import setup, sqlite

        setup(sqlite=f"{folder}/metrics.sqlite3")
        self.classes = sqlite

    def gauge(self, name: str, mode: str, labels: tuple[str, ...] = ()) -> Any:
        """A gauge, with its mode where the library has modes."""
        which = {} if self.side in ("mpmetrics", "distributed") else {"multiprocess_mode": mode}
        return self.classes.Gauge(name, name.title(), labels, registry=self.own, **which)

    def collect(self) -> list[Metric]:
        """The families, by the collector alone."""
        return list(self.collector.collect())

    def note_death(self, pid: int) -> None:
        """Do what the library's documentation wants done when a process has ended."""
        if self.side == "mmap":
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def text(self) -> bytes:
        """The exposition text, by `prometheus_client.generate_latest`."""
        return generate_latest(self.scraped)

    def own_text(self) -> bytes:
        """The exposition text, by the library's own function where it has one."""
        if self.side != "sqlmetrics":
            return self.text()
        import sqlmetrics

        return sqlmetrics.generate_latest()

    def forget_sums(self) -> None:
        """Have the next scrape ask for the sums of all series."""
        from sqlmetrics.scrape.reading import Sums
        from sqlmetrics.store import installed as stores

        stores.reader()._remembered.sums = Sums()

    def content(self, family: str = "") -> dict[str, float | str]:
        """All that a scrape shows, or only one family, in a form that does not depend on the order."""
        families = text_string_to_metric_families(self.own_text().decode())
        # In memory, a family is shown even before it has a child.
        return flat(one for one in families if one.samples and family in ("", one.name))


def flat(families: Iterable[Metric]) -> dict[str, float | str]:
    """The families and samples as a dict: 'name type' leads to the help, 'sample labels' to the value."""
    found: dict[str, float | str] = {}
    for family in families:
        samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        if samples:
            found[f"{family.name} {family.type}"] = family.documentation
        for sample in samples:
            line = f"{sample.name} {json.dumps(sample.labels, sort_keys=True)}"
            assert line not in found, f"{line} is there twice"
            found[line] = sample.value
    return found


class Metrics:
    """The metrics of a program, registered as usual."""

    def __init__(self, library: Library):
        classes, registry = library.classes, library.own
        self.operated: dict[str, Any] = {
            "child": classes.Counter("calls", "Calls", ["by"], registry=registry).labels("all"),
            "counter": classes.Counter("requests", "Requests", ["method", "path"], registry=registry),
            "gauge": library.gauge("level", "sum"),
            "recent": library.gauge("recent", "mostrecent"),
            "histogram": classes.Histogram("seconds", "Seconds", registry=registry),
        }
        self.latency = classes.Histogram("latency", "Latency", ["path"], registry=registry)
        self.levels = library.gauge("levels", "all", ("of",))
        self.beats = classes.Counter("beats", "What was just counted", ["number"], registry=registry)
        self.hits = classes.Counter("hits", "Hits", ["path"], registry=registry)
