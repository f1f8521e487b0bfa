"""The examples of the official page on multiprocess mode run as they stand there, but for one import line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from apps.serving import APPS, HOOKS, Server, parse, serving
from helpers import wait_for

pytestmark = [pytest.mark.promise(12), pytest.mark.slow]

CONFIG = str(APPS / "official_config.py")
TOTAL, IN_PROGRESS = ("my_counter_total", ()), ("inprogress_requests", ())


def assert_it_works(server: Server) -> None:
    """What the page promises: all workers are one, and a gauge of mode livesum forgets the dead."""
    first = server.workers(2)
    server.get_all(["/"] * 20)
    for values in server.scrapes(first):
        assert values[TOTAL] == 20
        assert values[IN_PROGRESS] == 0
    victim, cut_off = server.hold()
    assert parse(server.get("/metrics").text)[IN_PROGRESS] == 1

    os.kill(victim, signal.SIGKILL)
    cut_off()
    wait_for(lambda: f"(pid:{victim})" in server.log())
    for values in server.scrapes(server.workers(2)):
        assert values[TOTAL] == 20
        assert values[IN_PROGRESS] == 0


def assert_no_peers_files(folder: Path) -> None:
    """Nothing is left for the peer to merge."""
    assert not list(folder.glob("*.db"))


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "SQLMETRICS_PATH"])
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_the_examples_are_exact_under_the_hooks_of_this_package(
    folder: Path, variable: str, preload: list[str]
) -> None:
    """With `-c python:sqlmetrics.gunicorn` the app's code needs its import line changed and nothing else."""
    with serving(folder, "official_site:app", "-w2", *preload, config=HOOKS, **{variable: str(folder)}) as server:
        assert_it_works(server)
    assert_no_peers_files(folder)


def test_the_pages_own_configuration_marks_workers_dead(folder: Path) -> None:
    """Its `child_exit` marks workers dead from a master that has not installed anything; the app calls `install()`."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with serving(folder, "installed:app", "-w2", config=CONFIG, **environment) as server:
        assert_it_works(server)
    assert_no_peers_files(folder)


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "SQLMETRICS_PATH"])
def test_the_import_line_is_all_that_changes(folder: Path, variable: str) -> None:
    """As with the peer, the environment variable switches the store on: no call, and no hook of this package."""
    with serving(folder, "official_site:app", "-w2", config=CONFIG, **{variable: str(folder)}) as server:
        assert_it_works(server)
    assert_no_peers_files(folder)


def test_an_explicit_path_is_read_without_any_variable(folder: Path) -> None:
    """A program with no variable set reads the folder that it names."""
    with serving(folder, "official_site:app", "-w2", SQLMETRICS_PATH=str(folder)) as server:
        server.get_all(["/"] * 20)

        assert parse(read(folder))[TOTAL] == 20
    assert parse(read(folder))[TOTAL] == 20
    assert_no_peers_files(folder)


def read(folder: Path) -> str:
    """What the page's program with a path prints."""
    command = [sys.executable, str(APPS / "official_path.py"), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
