"""Programs that become daemons when they have counted already: they fork, and close all that they inherited."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import scrape, wait_for

pytestmark = pytest.mark.promise(3, 12)

_DAEMON = """
import os, pathlib, sys, time, warnings
import sqlmetrics
from prometheus_client import REGISTRY, Counter

warnings.filterwarnings("ignore", "This process .* is multi-threaded")  # a fork, since Python 3.12
warnings.filterwarnings("ignore", category=ResourceWarning)  # in the development mode
sqlmetrics.install(flush_interval=0.02)
JOBS = Counter("jobs", "Jobs done")
JOBS.inc()
folder, files, is_deleted = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
if os.fork():
    os._exit(0)
os.setsid()
os.closerange(0, 256)
os.open(os.devnull, os.O_RDWR)
sys.stderr = (folder / "stderr").open("w")
taken = [(folder / f"taken{number}").open("w") for number in range(files)]
if is_deleted:
    for name in folder.glob("metrics.sqlite3*"):
        name.unlink()
JOBS.inc(10)
if not files:
    try:
        os.write(2, b"what the interpreter says at its end" * 100)
    except OSError:
        pass  # there is no such file, and none of the store's has its number
if os.fork() == 0:
    JOBS.inc(100)
    os._exit(0)
os.wait()
deadline = time.monotonic() + 30
while is_deleted and not (folder / "metrics.sqlite3-cells").exists() and time.monotonic() < deadline:
    JOBS.inc(0)  # an operation starts the flusher again, which the fork has stopped
    time.sleep(0.01)
(folder / "seen").write_text(str(REGISTRY.get_sample_value("jobs_total")))
(folder / "done").touch()
"""


@pytest.mark.parametrize("files", [0, 16])
def test_a_daemon_goes_on_with_the_store(folder: Path, path: str, files: int) -> None:
    """Also where its own files have got the numbers of those that were closed: they stay as they are."""
    run(folder, path, files, False)

    assert (folder / "stderr").read_text() == ""
    assert (folder / "seen").read_text() == "111.0"
    assert scrape(path)["jobs_total", ()] == 111
    assert [file.stat().st_size for file in folder.glob("taken*")] == [0] * files


@pytest.mark.parametrize("files", [0, 16])
def test_a_daemon_makes_a_deleted_store_anew(folder: Path, path: str, files: int) -> None:
    """The cells file cannot be opened again; what the daemon counts goes to the new one."""
    run(folder, path, files, True)

    assert "Traceback" not in (folder / "stderr").read_text()
    assert scrape(path)["jobs_total", ()] >= 10
    assert [file.stat().st_size for file in folder.glob("taken*")] == [0] * files


def run(folder: Path, path: str, files: int, is_deleted: bool) -> None:
    """The daemon, to its end."""
    command = [sys.executable, "-c", _DAEMON, str(folder), str(files), str(is_deleted)]
    subprocess.run(command, check=True, env=os.environ | {"SQLMETRICS_PATH": path}, timeout=60)
    wait_for((folder / "done").exists)
