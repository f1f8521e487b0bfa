"""Everything at once, beside an account that is kept outside of the store: no count is lost, none is there twice.

Each run takes 10 s; `SQLMETRICS_TEST_LONG` gives another number of seconds, `SQLMETRICS_TEST_SEED` repeats a choice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from disks import can_mount

SEED = int(os.environ.get("SQLMETRICS_TEST_SEED") or time.time_ns() % 2**32)  # now: a fixture clears the variables
SECONDS = float(os.environ.get("SQLMETRICS_TEST_LONG") or 10)
_TIME_TO_END = 240


def _run(place: Path, *options: str) -> dict[str, int]:
    """How often what happened; fails if anything was wrong, and says what had happened before it."""
    command = [sys.executable, "-m", "turmoil", str(place / "metrics.sqlite3"), str(SECONDS), "--seed", str(SEED)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    print(f"SQLMETRICS_TEST_SEED={SEED}")  # shown with a failure
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, env=environment, timeout=SECONDS + _TIME_TO_END
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["operations"] > 1000 * SECONDS
    assert figures["scrapes"] > 3 * SECONDS
    assert figures["unknown by seat"] <= figures["killed"]  # of each at most one: its last operation, half made
    happened: dict[str, int] = figures["happened"]
    return happened


def test_counts_are_exact_while_processes_start_fork_stop_and_are_killed(folder: Path) -> None:
    """Threads, removals, exemplars, shells with locks and three ways of scraping beside them."""
    happened = _run(folder)

    for what in ("forked ended", "ends", "stopped", "removed", "many start", "shell", "reported dead"):
        assert happened[what] > 0, happened


@pytest.mark.skipif(not can_mount(), reason="mounting a small tmpfs needs root and CAP_SYS_ADMIN")
def test_counts_are_exact_when_the_disk_is_full_now_and_then(folder: Path) -> None:
    """Nobody ends while it is; what was there goes on, and new children appear when there is room."""
    place = folder / "disk"
    place.mkdir()

    happened = _run(place, "--disk", "24m", "--account", str(folder / "account"))

    assert happened["full"] > 0
    assert happened["ends"] > 0


def test_counts_are_exact_when_files_are_deleted_now_and_then(folder: Path) -> None:
    """All files, or some; what living processes counted is back soon, and what ended ones left as long as one lives."""
    happened = _run(folder, "--deletions")

    assert happened["spoilt"] > 0
    assert happened["ends"] > 0
