"""Celery, rq and a batch job, scraped by a real Prometheus through `sqlmetrics serve`, while their processes die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from deployment import free_port, inherited
from engines import Engine, Prometheus, running
from helpers import wait_for
from jobs import RUNNING, AtWork, Jobs, exporter, redis_server
from pages import DOCS, blocks

pytestmark = pytest.mark.promise(3, 6, 8)

PAGE = "export-beside-workers.md"
CONFIG = """
scrape_configs:
  - job_name: workers
    scrape_interval: 500ms
    scrape_timeout: 500ms
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""
_PATIENCE = 60.0


class Scraped:
    """What Prometheus has of the exporter's series."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def value(self, expression: str) -> float | None:
        """What it is now; None if there is nothing."""
        found = self._engine.query(expression, time.time())
        return found[0].points[-1][1] if found else None

    def until(self, expression: str, value: float) -> None:
        """Wait until it is that."""
        wait_for(lambda: self.value(expression) == value, _PATIENCE)

    def check(self) -> None:
        """No counter ever fell, every scrape since the first with series was answered, and there was no complaint."""
        counters = self._engine.query('{__name__=~".+_(total|count|bucket)"}[1h]', time.time())
        assert len(counters) > 10
        for one in counters:
            falls = [(before, after) for before, after in pairwise(one.values()) if after < before]
            assert falls == [], (one.name, one.labels)
        (up,) = self._engine.query("up[1h]", time.time())
        assert 0.0 not in up.values()[up.values().index(1.0) :]
        assert self._engine.complaints() == []


@contextlib.contextmanager
def scraped(port: int, folder: Path) -> Iterator[Scraped]:
    """A Prometheus that scrapes that port, twice a second."""
    with running(Prometheus, folder, CONFIG.format(port=port)) as engine:
        yield Scraped(engine)


@contextlib.contextmanager
def working_beside(
    row: Jobs, folder: Path, redis: int, change: Mapping[str, str] | None = None
) -> Iterator[tuple[AtWork, Scraped]]:
    """The command of a page, whose metrics the exporter serves, and Prometheus scrapes."""
    workers = AtWork(row, folder, redis, change)
    port = workers.ports[9464]
    with exporter(workers.store, port, folder), scraped(port, folder) as prometheus:
        try:
            workers.start()
            yield workers, prometheus
        finally:
            workers.stop()


@pytest.mark.row("exporter", "export-beside-workers: Celery", "celery", "uvicorn", "debian:prometheus")
def test_prometheus_sees_celery_through_the_exporter(folder: Path) -> None:
    """Children are killed, one in its job; then all of it is, and what was counted is still scraped."""
    row = Jobs(PAGE, "Celery", metrics=":9464/metrics")
    with working_beside(row, folder, redis=0) as (celery, prometheus):
        celery.work_off(100)
        prometheus.until("sum(jobs_total)", celery.sent)
        celery.kill(celery.at_work())
        assert celery.shown(RUNNING) == 0
        prometheus.until("sum(jobs_running)", 0)
        celery.work_off(50)
        prometheus.until("sum(jobs_total)", celery.sent)
        os.killpg(celery.process.pid, signal.SIGKILL)
        prometheus.until('sum(sqlmetrics_processes{state="alive"})', 0)
        assert celery.scrapes(1)[0]["jobs_total", (("task", "work"),)] == celery.sent
        assert prometheus.value("sum(jobs_total)") == celery.sent
        prometheus.check()


@pytest.mark.row(
    "exporter", "export-beside-workers: rq", "rq", "redis", "uvicorn", "debian:redis-server", "debian:prometheus"
)
def test_prometheus_sees_rq_through_the_exporter(folder: Path) -> None:
    """A process for each job, one of which is killed; no process answers HTTP but the exporter."""
    row = Jobs("servers/rq.md", "Work horses that are forked", metrics=":9464/metrics")
    change = {"\nstart_http_server(8000)": "\n"}
    with redis_server(folder) as redis, working_beside(row, folder, redis, change) as (rq, prometheus):
        rq.work_off(60)
        prometheus.until("sum(jobs_total)", rq.sent)
        rq.kill(rq.at_work())
        prometheus.until("sum(jobs_running)", 0)
        rq.work_off(30)
        prometheus.until("sum(jobs_total)", rq.sent)
        prometheus.check()


@pytest.mark.row("exporter", "export-beside-workers: A batch job", "Python", "uvicorn", "debian:prometheus")
def test_prometheus_sees_a_batch_job_through_the_exporter(folder: Path) -> None:
    """Before its first run, while it is killed in the midst of the second, and after the third; counts go on."""
    (program,) = [block.text for block in blocks(DOCS / "how-to" / PAGE) if block.file == "job.py"]
    slow = program.replace("        ROWS.", "        time.sleep(0.001)\n        ROWS.")
    (folder / "job.py").write_text(f"import time\n{slow}")
    store, port = folder / "jobs.sqlite3", free_port()
    with exporter(store, port, folder), scraped(port, folder) as prometheus:
        prometheus.until("up", 0)
        run_job(store, folder).wait(60)
        prometheus.until("sum(rows_total)", 3000)
        killed = run_job(store, folder)
        wait_for(lambda: (prometheus.value("sum(rows_total)") or 0) > 3100)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        prometheus.until('sum(sqlmetrics_processes{state="alive"})', 0)
        wait_for(lambda: prometheus.value("changes(sum(rows_total)[3s:500ms])") == 0)
        before = prometheus.value("sum(rows_total)")
        assert before
        assert 3000 < before < 6000
        run_job(store, folder).wait(60)
        prometheus.until("sum(rows_total)", before + 3000)
        prometheus.check()


def run_job(store: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The page's job, once."""
    command = [sys.executable, "-m", "sqlmetrics", "run", "--path", str(store), "--", sys.executable, "job.py"]
    environment = {**inherited(), "SQLMETRICS_PERSIST": "1"}
    return subprocess.Popen([*command, "users", "orders", "items"], cwd=folder, env=environment, start_new_session=True)
