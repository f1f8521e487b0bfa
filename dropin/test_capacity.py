"""The arithmetic of the page about capacity is exact, at one real Prometheus that scrapes a fleet of stores.

``SQLMETRICS_TEST_HOSTS`` is how many, 3 by default; with more, the test prints the figures that the page has, and takes
minutes: ``SQLMETRICS_TEST_HOSTS=150 python -m pytest -q -s dropin/test_capacity.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import capacity
import pytest
from deployment import inherited
from engines import Engine, Prometheus, running
from helpers import Shell, wait_for
from pages import DOCS

PAGE = DOCS / "how-to" / "capacity.md"
HOSTS = int(os.environ.get("SQLMETRICS_TEST_HOSTS", "3"))
IS_LARGE = HOSTS > 10
FLEET = capacity.Fleet(HOSTS, workers=4 if IS_LARGE else 2, paths=40 if IS_LARGE else 3)
INTERVAL = max(1, HOSTS // 10)
"""Seconds: ten hosts at most are scraped in one of them."""
PATIENCE = 30 + 20 * INTERVAL
CONFIG = f"""
global:
  scrape_interval: {INTERVAL}s
  scrape_timeout: {INTERVAL}s
scrape_configs:
  - job_name: fleet
    file_sd_configs: &hosts
      - files: [hosts.json]
        refresh_interval: 1s
    relabel_configs:
      - source_labels: [host]
        target_label: instance
  - job_name: without-pid
    file_sd_configs: *hosts
    relabel_configs:
      - source_labels: [host]
        regex: host0
        action: keep
      - source_labels: [host]
        target_label: instance
    metric_relabel_configs:
      - source_labels: [pid]
        regex: .+
        action: drop
"""
"""The second job scrapes one host, without what its workers have of their own."""
JOBS = {
    "fleet": (FLEET.hosts, FLEET.samples()),
    "without-pid": (1, FLEET.shared()),
}
"""Of each: its targets, and the samples that are kept of a scrape."""
SERIES = sum(hosts * (samples + capacity.REPORTED) for hosts, samples in JOBS.values())


class Machines:
    """The fleet: its workers and what answers for them, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        command = [sys.executable, capacity.__file__, *map(str, (folder, FLEET.hosts, FLEET.workers, FLEET.paths))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=inherited(), stdin=pipe, stdout=pipe, text=True)
        self.port, self.answering = map(int, self._line().split())
        self.wait_for_all()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def wait_for_all(self) -> None:
        """Wait until a scrape of each host has all that its workers bring."""
        for host in range(FLEET.hosts):
            wait_for(partial(self.has_all, host), PATIENCE)

    def has_all(self, host: int) -> bool:
        """Whether a scrape has as many samples as it should."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{host}", timeout=30) as answer:
                return len(re.findall(rb"^[^#\n]", answer.read(), re.M)) == FLEET.samples()
        except OSError:
            return False  # its store is not there yet

    def targets(self) -> str:
        """What Prometheus reads of the hosts."""
        address = f"127.0.0.1:{self.port}"
        hosts = [{"host": f"host{one}", "__metrics_path__": f"/{one}"} for one in range(FLEET.hosts)]
        return json.dumps([{"targets": [address], "labels": labels} for labels in hosts])

    def a_worker(self) -> int:
        """The pid of one of them."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[-1])

    def replace(self) -> None:
        """Kill all workers of all hosts, and start as many."""
        assert self.process.stdin is not None
        self.process.stdin.write("replace\n")
        self.process.stdin.flush()
        assert self._line() == "done\n"
        self.wait_for_all()

    def stop(self) -> None:
        """End it."""
        self.process.communicate(timeout=60)


@contextlib.contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """A fleet that is gone at the end."""
    fleet = Machines(folder)
    try:
        yield fleet
    finally:
        fleet.stop()


def own(engine: Engine, name: str) -> float:
    """What an engine shows of itself: the sum of a metric's series."""
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.port}/metrics", timeout=30) as answer:
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", answer.read().decode(), re.M)
    assert found
    return sum(map(float, found))


def series(engine: Engine) -> int:
    """The series of the head."""
    return int(own(engine, "prometheus_tsdb_head_series"))


def scrapes(engine: Engine, job: str) -> int:
    """How many scrapes of a job it has the samples of."""
    found = engine.query(f'sum(count_over_time(scrape_samples_scraped{{job="{job}"}}[1d]))', time.time())
    return int(found[0].points[-1][1]) if found else 0


def appended(engine: Engine) -> tuple[int, dict[str, int]]:
    """The samples that it has taken, and the scrapes of each job that brought them, at one moment."""
    while True:
        before = own(engine, "prometheus_tsdb_head_samples_appended_total")
        brought_by = {job: scrapes(engine, job) for job in JOBS}
        if own(engine, "prometheus_tsdb_head_samples_appended_total") == before:
            return int(before), brought_by
        time.sleep(0.02)


@pytest.fixture
def fleet(folder: Path) -> Iterator[Machines]:
    with machines(folder) as found:
        yield found


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    """With no targets yet."""
    with running(Prometheus, folder, CONFIG) as found:
        yield found


def test_a_fleet_makes_as_many_series_and_samples_as_the_page_says(fleet: Machines, engine: Engine) -> None:
    """In the stores and at the engine, also when all workers are replaced; names that stay, or go, take no part."""
    memory = own(engine, "process_resident_memory_bytes")
    (engine.folder / "hosts.json").write_text(fleet.targets())
    wait_for(lambda: all(scrapes(engine, job) >= 2 * hosts for job, (hosts, _) in JOBS.items()), PATIENCE)

    cells = [Shell(capacity.path_of(str(fleet.folder), one)).value("SELECT count(*) FROM cell_copy") for one in (0, 1)]
    assert cells == [FLEET.cells()] * 2
    assert engine.value('sum(scrape_samples_scraped{job="fleet"})', time.time()) == FLEET.hosts * FLEET.samples()
    assert series(engine) == SERIES
    samples, brought_by = appended(engine)
    assert samples == sum(brought_by[job] * (kept + capacity.REPORTED) for job, (_, kept) in JOBS.items())
    if IS_LARGE:
        tell(fleet, engine, memory)

    fleet.replace()
    wait_for(lambda: series(engine) >= SERIES + FLEET.churned(), PATIENCE)
    wait_for(partial(has_scraped_all_again, engine, time.time()), PATIENCE)

    assert series(engine) == SERIES + FLEET.churned()


def test_the_example_of_the_page_is_this_arithmetic() -> None:
    """Its samples, its cells, and its table of fleets from one host to ten thousand."""
    page = PAGE.read_text("utf-8")
    rows = [re.findall(r"[\d,]+", line)[:3] for line in page.splitlines() if re.match(r"\| [\d,]+ \|", line)]
    example = capacity.Fleet(1, workers=4, paths=40)

    assert f"shared + of_workers == {example.samples()}" in page
    assert f"cells == {example.cells()}" in page
    assert [row[0] for row in rows] == ["1", "10", "100", "1,000", "10,000"]
    for row in rows:
        hosts, series, rate = (int(one.replace(",", "")) for one in row)
        assert series == hosts * (example.samples() + capacity.REPORTED)
        assert rate == round(series / 15)


def has_scraped_all_again(engine: Engine, since: float) -> bool:
    """Whether each target has been scraped after a moment."""
    ages = engine.query("timestamp(up)", time.time())
    return len(ages) == FLEET.hosts + 1 and all(one.points[-1][1] > since for one in ages)


def tell(fleet: Machines, engine: Engine, memory: float) -> None:
    """Print what the page has: of the engine, of what answers for the stores, and of workers."""
    start, before = time.monotonic(), figures(fleet, engine)
    time.sleep(5 * INTERVAL)
    seconds, after = time.monotonic() - start, figures(fleet, engine)
    grown = {name: after[name] - before[name] for name in before}
    folder = Path(capacity.path_of(str(fleet.folder), 0)).parent
    expected = sum(hosts * (kept + capacity.REPORTED) for hosts, kept in JOBS.values()) / INTERVAL
    for name, value in {
        "hosts": FLEET.hosts,
        "workers of each": FLEET.workers,
        "samples of a scrape": FLEET.samples(),
        "cells of a store": FLEET.cells(),
        "KiB of a store's files": sum(one.stat().st_blocks for one in folder.iterdir()) / 2,
        "KiB of a worker's own memory": private(fleet.a_worker()) / 1024,
        "seconds between two scrapes of a host": INTERVAL,
        "series of the engine": series(engine),
        "samples/s by arithmetic": expected,
        "samples/s": grown["samples"] / seconds,
        "engine: bytes of memory for each series": (own(engine, "process_resident_memory_bytes") - memory) / SERIES,
        "engine: MiB of memory": own(engine, "process_resident_memory_bytes") / 2**20,
        "engine: % of a core": 100 * grown["engine"] / seconds,
        "engine: us of CPU for each sample": 1e6 * grown["engine"] / grown["samples"],
        "answers: ms of CPU for each scrape": 1e3 * grown["answering"] / grown["scrapes"],
        "answers: MiB of its own memory": private(fleet.answering) / 2**20,
    }.items():
        print(f"{name}: {value:,.5g}")


def figures(fleet: Machines, engine: Engine) -> dict[str, float]:
    """What grows: samples, scrapes, and seconds of CPU."""
    fields = Path(f"/proc/{fleet.answering}/stat").read_text().rpartition(")")[2].split()
    return {
        "samples": own(engine, "prometheus_tsdb_head_samples_appended_total"),
        "scrapes": sum(scrapes(engine, job) for job in JOBS),
        "engine": own(engine, "process_cpu_seconds_total"),
        "answering": sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK"),
    }


def private(pid: int) -> int:
    """Bytes of memory that are a process's own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
