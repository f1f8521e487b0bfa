"""`install()` after metrics exist and have counted: they go on in the store with what they had, wherever they are."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ask, child, key, scrape
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

import sqlmetrics

pytestmark = pytest.mark.promise(12)


class Latency(Histogram):
    """A class of somebody's own."""


def made(registry: CollectorRegistry | None) -> list[object]:
    """Metrics of all kinds that have counted, and a child that somebody holds."""
    requests = Counter("requests", "Requests", ["path"], registry=registry)
    jobs = Counter("jobs", "Jobs", registry=registry)
    load = Gauge("load", "Load", ["core"], multiprocess_mode="sum", registry=registry)
    size = Summary("size_bytes", "Sizes", registry=registry)
    latency = Latency("latency_seconds", "Latency", ["path"], buckets=[1, 2], registry=registry)
    held = requests.labels("/held")
    held.inc(2)
    jobs.inc(3)
    load.labels("0").set(0.5)
    size.observe(100)
    latency.labels("/").observe(1.5)
    return [held, requests, jobs, load, size, latency]


COUNTED = {
    ("requests_total", (("path", "/held"),)): 2.0,
    ("jobs_total", ()): 3.0,
    ("load", (("core", "0"),)): 0.5,
    ("size_bytes_count", ()): 1.0,
    ("size_bytes_sum", ()): 100.0,
    ("latency_seconds_bucket", (("le", "1.0"), ("path", "/"))): 0.0,
    ("latency_seconds_bucket", (("le", "2.0"), ("path", "/"))): 1.0,
    ("latency_seconds_bucket", (("le", "+Inf"), ("path", "/"))): 1.0,
    ("latency_seconds_count", (("path", "/"),)): 1.0,
    ("latency_seconds_sum", (("path", "/"),)): 1.5,
}


@pytest.mark.parametrize("where", [lambda: REGISTRY, CollectorRegistry, lambda: None], ids=["default", "own", "none"])
def test_values_are_taken_over_wherever_a_metric_is_registered(
    path: str, where: Callable[[], CollectorRegistry | None]
) -> None:
    """All kinds, with labels and without, also in no registry; another process sees them, and more of them."""
    metrics = made(where())
    sqlmetrics.install(path)
    assert scrape() == COUNTED

    with child(look=lambda: sorted(map(list, scrape().items())), count=lambda: metrics[0].inc()) as other:
        assert len(other.do("look")) == len(COUNTED)
        other.do("count")
        metrics[0].inc()

    assert scrape() == COUNTED | {("requests_total", (("path", "/held"),)): 4.0}


def test_one_line_says_what_was_done(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """With the number of children that had values; nothing where there was nothing, and not twice."""
    metrics = made(CollectorRegistry())
    with caplog.at_level(logging.INFO, "sqlmetrics"):
        sqlmetrics.install(path)
        sqlmetrics.install(path)

    assert len(metrics) == 6
    assert [record.message for record in caplog.records if "took over" in record.message] == [
        f"took over 5 metrics that existed before the store was installed (pid {os.getpid()})"
    ]


def test_exemplars_are_taken_over(path: str) -> None:
    """Those of counters and of buckets."""
    jobs = Counter("jobs", "Jobs", registry=None)
    latency = Histogram("latency_seconds", "Latency", buckets=[1, 2], registry=None)
    jobs.inc(1, {"trace": "a"})
    latency.observe(1.5, {"trace": "b"})
    sqlmetrics.install(path)

    samples = [sample for metric in sqlmetrics.MultiProcessCollector(None).collect() for sample in metric.samples]
    shown = {key(sample)[0]: sample.exemplar.labels for sample in samples if sample.exemplar}
    assert shown == {"jobs_total": {"trace": "a"}, "latency_seconds_bucket": {"trace": "b"}}


def test_a_gauge_of_before_is_as_new_as_the_install(path: str) -> None:
    """In memory a `mostrecent` gauge has no time; what any process sets from then on is newer."""
    leader = Gauge("leader", "Leader", multiprocess_mode="mostrecent", registry=None)
    leader.set(1)
    with child(look=lambda: scrape(path)[("leader", ())]) as other:
        sqlmetrics.install(path)
        assert other.do("look") == 1
    with child(lead=lambda: leader.set(2)) as other:
        other.do("lead")
        assert scrape() == {("leader", ()): 2}


_MMAP = """
    import os, sys, time
    from prometheus_client import REGISTRY, Counter, Gauge, generate_latest
    jobs = Counter("jobs", "Jobs", ["by"])
    leader = Gauge("leader", "Leader", multiprocess_mode="mostrecent")
    jobs.labels("before").inc(2)
    leader.set(1)
    old = sorted(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    sizes = [os.stat(os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], name)).st_mtime_ns for name in old]

    import sqlmetrics
    sqlmetrics.install()
    for number in range(100):
        jobs.labels("before").inc()
        jobs.labels(f"after {number}").inc()
    print(len(old), len([name for name in os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]) if name.endswith(".db")]))
"""


@pytest.mark.promise(7)
def test_values_in_mmap_files_are_taken_over(folder: Path, path: str) -> None:
    """An import that came too early has made the peer's files; from then on nothing goes there."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_MMAP)],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    files = {file.name: file.read_bytes() for file in folder.glob("*.db")}
    shown = scrape(path)

    assert done.stdout == "2 2\n"
    assert shown["jobs_total", (("by", "before"),)] == 102
    assert shown["leader", ()] == 1
    assert len(shown) == 102
    assert not any(b"after" in content for content in files.values())


def test_the_app_that_served_the_plain_registry_goes_on(path: str) -> None:
    """As long as there is one process, its text says the same as before, but when the children were made."""
    registry = CollectorRegistry()
    metrics = made(registry)
    before = lines(registry)
    sqlmetrics.install(path)

    assert metrics
    assert lines(registry) == before
    assert ask(registry, "jobs_total") == 3


def lines(registry: CollectorRegistry) -> list[str]:
    """The text of a scrape, without the values of `_created` samples."""
    return [re.sub(r"(_created.*) .*", r"\1", line) for line in generate_latest(registry).decode().split("\n")]
