"""What was there before a reset, or a start that empties the store, cannot be read in any of the files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from erased import MARK, places, wait_until_erased
from helpers import child, in_child, scrape
from prometheus_client import Counter, Gauge

import sqlmetrics

pytestmark = [pytest.mark.promise(11), pytest.mark.store(flush_interval=0.05)]


def test_a_reset_erases_rows_cells_journals_and_damaged_files(store: sqlmetrics.Store, path: str) -> None:
    """Rows, cells, journals, the WAL and what earlier mending left."""
    logins = Counter("logins", "Logins", ["user"])
    in_child(lambda: logins.labels(MARK).inc(exemplar={"trace": MARK}))
    for suffix in ("-damaged", "-new"):  # put aside, and left by a process that was killed
        Path(path + suffix).write_text(MARK)
    assert places(path)
    sqlmetrics.uninstall()

    sqlmetrics.reset(path)

    assert places(path) == ""
    assert scrape(path) == {}


def test_a_reset_leaves_no_numbers(store: sqlmetrics.Store, path: str) -> None:
    """Cells of processes that ended are zero again, whenever that was."""
    amount = 1234567.890625
    counted = Gauge("counted", "Counted", ["user"], multiprocess_mode="sum")
    for _ in range(2):
        in_child(lambda: counted.labels("a").set(amount))
        store.flush()
    in_child(lambda: counted.labels("a").set(amount))
    assert "-cells" in places(path, struct.pack("=d", amount))
    sqlmetrics.uninstall()

    sqlmetrics.reset(path)

    assert places(path, struct.pack("=d", amount)) == ""


def test_a_forced_reset_erases_what_living_processes_had(store: sqlmetrics.Store, path: str) -> None:
    """One counts on, from zero, and one does nothing; neither has the text in its journal any more."""
    logins = Counter("logins", "Logins", ["user"])

    def count(user: str) -> None:
        logins.labels(user).inc()

    with child(count=count) as busy, child(count=count) as idle:
        for one in (busy, idle):
            one.do("count", MARK)
        assert places(path)
        in_child(lambda: sqlmetrics.reset(path, force=True))
        wait_until_erased(path)
        busy.do("count", "other")
        wait_until_erased(path)
        assert scrape(path) == {("logins_total", (("user", "other"),)): 1}


def test_a_reset_that_spares_its_own_process_may_follow_one_that_does_not(store: sqlmetrics.Store, path: str) -> None:
    """As in an app that empties the store before gunicorn's master does so."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    sqlmetrics.reset(force=True)

    for _ in range(2):
        store.reset(force=False, keep_own=True)
    assert scrape(path) == {}
    logins.labels("other").inc()
    store.reset(force=False, keep_own=True)

    assert scrape(path) == {("logins_total", (("user", "other"),)): 1}
    wait_until_erased(path)


_COUNT = f"""
import os, sys
import sqlmetrics
from prometheus_client import Counter, Gauge
sqlmetrics.install(sys.argv[1])
Counter("logins", "Logins", ["user"]).labels(sys.argv[2]).inc()
Gauge("busy", "Busy", ["user"], multiprocess_mode="max").labels("{MARK}").set(1)
os._exit(0)
"""
_ON_STARTING = f"""
from types import SimpleNamespace
import sqlmetrics.gunicorn
sqlmetrics.gunicorn.on_starting(SimpleNamespace(cfg=SimpleNamespace(uid={os.geteuid()}, gid={os.getegid()})))
"""


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "sqlmetrics", "run", "--path", "{path}", "--", "true"],
        ["-c", _ON_STARTING],
    ],
    ids=["run", "gunicorn"],
)
def test_a_start_that_empties_the_store_erases_the_last_run(path: str, start: list[str]) -> None:
    """`sqlmetrics run` and gunicorn's on_starting drop what the last run has left."""
    subprocess.run([sys.executable, "-c", _COUNT, path, MARK], check=True, timeout=60)
    assert places(path)

    command = [sys.executable, *(word.format(path=path) for word in start)]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"SQLMETRICS_PATH": path})

    assert places(path) == ""


def test_a_start_that_keeps_sums_erases_gauges(path: str) -> None:
    """The gauges of the last run are dropped with their label values, the sums are there."""
    subprocess.run([sys.executable, "-c", _COUNT, path, "ann"], check=True, timeout=60)
    assert places(path)

    environment = os.environ | {"SQLMETRICS_PATH": path, "SQLMETRICS_PERSIST": "1"}
    subprocess.run([sys.executable, "-c", _ON_STARTING], check=True, timeout=60, env=environment)

    assert places(path) == ""
    assert scrape(path) == {("logins_total", (("user", "ann"),)): 1}
