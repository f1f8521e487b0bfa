"""A test suite of an app, run by pytest-xdist with the store active: its workers share a store, or have one each."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from deployment import inherited
from helpers import Shell, scrape

pytestmark = pytest.mark.promise(3, 6, 12)

TESTS = 24
SUITE = f"""
import multiprocessing, os, signal
import pytest
from prometheus_client import REGISTRY, Counter, Gauge

JOBS = Counter("jobs", "Jobs done", ["test"])
TESTING = Gauge("testing", "Processes that test", multiprocess_mode="liveall")


@pytest.mark.parametrize("number", [str(number) for number in range({TESTS})])
def test_a_job_in_another_process_is_counted(number):
    TESTING.set(1)
    JOBS.labels(number).inc()
    child = multiprocessing.get_context("fork").Process(target=JOBS.labels(number).inc)
    child.start()
    child.join()
    assert REGISTRY.get_sample_value("jobs_total", {{"test": number}}) == 2
"""
KILLED = """

def test_that_is_killed():
    TESTING.set(1)
    JOBS.labels("killed").inc()
    os.kill(os.getpid(), signal.SIGKILL)
"""
INSTALL = """
import os, sqlmetrics
sqlmetrics.install(os.environ["STORE"])
"""
INSTALL_EACH = """
import pytest, sqlmetrics

@pytest.fixture(scope="session", autouse=True)
def store(tmp_path_factory):
    yield sqlmetrics.install(tmp_path_factory.mktemp("metrics"))
    sqlmetrics.uninstall()
"""
PYTEST = [sys.executable, "-m", "pytest", "-q", "-n", "4", "-p", "xdist", "-p", "no:cacheprovider"]


class Way(NamedTuple):
    """How the store is active: what bash runs before, in front of pytest, and the suite's conftest.py."""

    before: str = ""
    launcher: str = ""
    conftest: str = ""


LAUNCHER = Way(launcher='sqlmetrics run --path "$STORE" --')
WAYS = {
    "the launcher, PROMETHEUS_MULTIPROC_DIR is set": Way("export PROMETHEUS_MULTIPROC_DIR=$PWD;", "sqlmetrics run --"),
    "the variables": Way('eval "$(sqlmetrics env --path "$STORE")";'),
    "install() with one store": Way(conftest=INSTALL),
}


def run(way: Way, folder: Path, suite: str) -> subprocess.CompletedProcess[str]:
    """Run a suite by four workers, to its end."""
    (folder / "test_suite.py").write_text(suite)
    (folder / "conftest.py").write_text(way.conftest)
    environment = inherited() | {"STORE": str(folder / "metrics.sqlite3"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    line = f"{way.before} {way.launcher} {shlex.join(PYTEST)} --basetemp temporary"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def counted(store: Path) -> float:
    """The jobs in a store that no process uses any more; it is sound, and has no series of a process."""
    values = scrape(str(store))
    assert not [labels for _, labels in values if "pid" in dict(labels)]
    assert Shell(str(store)).value("PRAGMA integrity_check") == "ok"
    return sum(value for (name, _), value in values.items() if name == "jobs_total")


@pytest.mark.row("library", "pytest-xdist: one store for all workers", "pytest-xdist", "pytest")
@pytest.mark.parametrize("way", WAYS)
def test_workers_of_xdist_share_a_store(way: str, folder: Path) -> None:
    """Each test sees its own counts exactly, and the store has those of all."""
    done = run(WAYS[way], folder, SUITE)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"{TESTS} passed" in done.stdout
    assert "warning" not in done.stdout
    assert counted(folder / "metrics.sqlite3") == 2 * TESTS
    assert list(folder.rglob("*.db")) == []


@pytest.mark.row("library", "pytest-xdist: a worker is killed and replaced", "pytest-xdist", "pytest")
def test_a_worker_of_xdist_that_is_killed_is_replaced_and_nothing_is_lost(folder: Path) -> None:
    """Only the test that it was at fails."""
    done = run(LAUNCHER, folder, SUITE + KILLED)

    assert f"1 failed, {TESTS} passed" in done.stdout, done.stdout
    assert counted(folder / "metrics.sqlite3") == 2 * TESTS + 1


@pytest.mark.row("library", "pytest-xdist: a store for each worker", "pytest-xdist", "pytest")
def test_workers_of_xdist_may_have_a_store_each(folder: Path) -> None:
    """Each installs it in the folder that pytest gives to its session, and undoes that."""
    done = run(Way(conftest=INSTALL_EACH), folder, SUITE)
    stores = list((folder / "temporary").rglob("metrics.sqlite3"))

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(stores) == 4
    assert sum(map(counted, stores)) == 2 * TESTS
