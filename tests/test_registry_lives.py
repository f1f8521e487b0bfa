"""What becomes of a registry that is made while the app runs: at a fork, after its last use, and of thousands."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from helpers import Shell, ask, child, in_child
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Summary, generate_latest
from registry_programs import shown, use_all_kinds

import sqlmetrics

pytestmark = pytest.mark.promise(12)


def test_a_registry_that_exists_at_a_fork_is_shared_with_the_children(store: sqlmetrics.Store) -> None:
    """It lives in several processes; what it had counted is not lost, and not counted twice."""
    registry = CollectorRegistry()
    metrics = use_all_kinds(registry)

    def show() -> float | None:
        return ask(registry, "counter_total", of="a")

    with child(count=lambda: metrics[0].labels("a").inc(10), show=show) as one:
        one.do("count")
        metrics[0].labels("a").inc(100)
        assert one.do("show") == show() == 111
    assert ask(registry, "histogram_bucket", le="2.0") == 1
    assert ask(registry, "task", task="off") == 1
    assert ask(registry, "info_info", version="7") == 1
    assert ask(registry, "function", pid=str(os.getpid())) == 5


def test_what_another_thread_is_at_during_a_fork_stays_private(store: sqlmetrics.Store) -> None:
    """A request, most likely."""
    registries: list[CollectorRegistry] = []

    def view() -> None:
        registries.append(CollectorRegistry())
        Counter("jobs", "Jobs", registry=registries[0]).inc()

    thread = threading.Thread(target=view)
    thread.start()
    thread.join()
    in_child(lambda: Counter("jobs", "Jobs").inc())

    assert ask(registries[0], "jobs_total") == 1


def test_a_family_that_comes_again_stays_private_at_a_fork(store: sqlmetrics.Store) -> None:
    """It would be added up with the earlier one's."""

    def task() -> float | None:
        registry = CollectorRegistry()
        rows = Counter("rows", "Rows", registry=registry)
        rows.inc()
        in_child(lambda: rows.inc(10))
        return ask(registry, "rows_total")

    assert [task(), task(), task()] == [11, 1, 1]


def test_registries_that_a_script_makes_in_a_loop_begin_at_zero(folder: Path, path: str) -> None:
    """Each has its own numbers, from zero, also from the first that the script has pushed."""
    loop = """
for _ in range(3):
    registry = CollectorRegistry()
    jobs = count(registry)
    jobs.inc()
    show(registry)
"""
    assert shown(folder, path, loop, "") == ["2.0", "2.0", "2.0"]
    with_collector = loop.replace("jobs = count", "multiprocess.MultiProcessCollector(registry)\n    jobs = count")
    assert shown(folder, path, with_collector, "") == ["4.0", "6.0", "8.0"]


def test_a_metric_that_is_used_after_its_registry_is_gone_counts_for_all(store: sqlmetrics.Store) -> None:
    """As one that was made for no registry: libraries make a registry only because a metric wants one (dramatiq)."""

    def boot() -> list[Any]:
        given: dict[str, Any] = {"registry": CollectorRegistry()}
        labelled, plain = Counter("labelled", "L", ["of"], **given), Counter("plain", "P", **given)
        gauge, summary = Gauge("gauge", "G", multiprocess_mode="max", **given), Summary("summary", "S", **given)
        histogram, task = Histogram("histogram", "H", **given), Enum("task", "T", states=["on", "off"], **given)
        labelled.labels("early").inc()
        return [labelled, plain, gauge, summary, histogram, task]

    def use() -> None:
        labelled, plain, gauge, summary, histogram, task = boot()
        labelled.labels("a").inc()
        labelled.labels("early").inc()
        plain.inc(2)
        plain.inc(2)
        gauge.set(3)
        summary.observe(4)
        histogram.observe(5)
        task.state("off")
        labelled.labels("b").inc()
        labelled.remove("b")

    in_child(use)
    use()

    assert {name: store.get_sample_value("labelled_total", {"of": name}) for name in ("a", "b", "early")} == {
        "a": 2,
        "b": None,
        "early": 4,
    }
    assert store.get_sample_value("plain_total") == 8
    assert store.get_sample_value("gauge") == 3
    assert store.get_sample_value("summary_sum") == 8
    assert store.get_sample_value("histogram_count") == 2
    assert store.get_sample_value("task", {"task": "off"}) == 1
    mine = Counter("mine", "Mine", registry=sqlmetrics.private(CollectorRegistry()))
    mine.inc()
    assert store.get_sample_value("mine_total") is None


_MANY = """
import gc, os, resource, sys
import sqlmetrics
store = sqlmetrics.install()
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, write_to_textfile
def task(number):
    registry = CollectorRegistry()
    Gauge("success", "Success", ["target"], registry=registry).labels(f"host {number}").set(1)
    Histogram("seconds", "Seconds", ["target"], registry=registry).labels(f"host {number}").observe(1)
    Counter("bytes", "Bytes", registry=registry).inc(number)
    write_to_textfile(sys.argv[1], registry)
    return generate_latest(registry)
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
for number in range(400):
    task(number)
before = resident()
for number in range(2000):
    lines = task(number).decode().splitlines()
store.flush()
print(resident() - before, len([line for line in lines if "host 1999" in line]), lines.count("bytes_total 1999.0"))
"""


@pytest.mark.slow
def test_two_thousand_registries_leave_nothing_behind(folder: Path, path: str) -> None:
    """No series, row or cell in the store, and no memory in the process."""
    command = [sys.executable, "-c", _MANY, str(folder / "out.prom")]
    environment = {**os.environ, "SQLMETRICS_PATH": path}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    grown, lines, own = map(int, done.stdout.split())

    assert (lines, own) == (19, 1)
    assert grown < 1_000_000
    assert Shell(path)("SELECT * FROM samples") == []
    assert Shell(path).value("SELECT count(*) FROM series") == 0


def test_a_registry_goes_with_its_last_reference(store: sqlmetrics.Store) -> None:
    """Without a garbage collection, as ever."""
    gc.disable()
    try:
        registry = CollectorRegistry()
        metric = weakref.ref(Counter("jobs", "Jobs", registry=registry))
        watched = weakref.ref(registry)
        generate_latest(registry)
        del registry
        assert watched() is None
        assert metric() is None
    finally:
        gc.enable()
