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
from turmoil.audit import Auditor
from turmoil.ledger import Ledger

pytestmark = pytest.mark.promise(2, 3, 8)

SEED = int(os.environ.get("SQLMETRICS_TEST_SEED") or time.time_ns() % 2**32)  # now: a fixture clears the variables
SECONDS = float(os.environ.get("SQLMETRICS_TEST_LONG") or 10)
_TIME_TO_END = 240


def test_the_account_tells_a_lost_count_a_doubled_one_and_a_step_back(folder: Path) -> None:
    """What the runs below rely on: each is found by the first scrape that shows it, and told once."""
    account = Ledger(str(folder))
    record = account.recorded(0)
    for _ in range(3):
        record("plain", lambda: None)
    auditor = Auditor(account, "reader")

    for shown in (3, 2, 2, 4):
        auditor.scrape(lambda shown=shown: f"turmoil_plain_total {shown}.0\n")

    wrong = [line[4:] for line in account.said() if line[1] == "WRONG"]
    assert wrong == [
        ["not between", "plain", 2, 3, 3],
        ["back", "turmoil_plain_total", "", 3, 2],
        ["not between", "plain", 4, 3, 3],
    ]


def test_an_operation_that_was_begun_may_count_or_not(folder: Path) -> None:
    """Its process was killed in the midst of it."""
    account = Ledger(str(folder))
    with pytest.raises(ZeroDivisionError):
        account.recorded(0)("plain", lambda: 1 / 0)
    auditor = Auditor(account, "reader")

    for shown in (0, 1, 2):
        auditor.scrape(lambda shown=shown: f"turmoil_plain_total {shown}.0\n")

    assert [line[4:] for line in account.said() if line[1] == "WRONG"] == [["not between", "plain", 2, 0, 1]]


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


@pytest.mark.slow
def test_counts_are_exact_while_processes_start_fork_stop_and_are_killed(folder: Path) -> None:
    """Threads, removals, exemplars, shells with locks and three ways of scraping beside them."""
    happened = _run(folder)

    for what in ("forked ended", "ends", "stopped", "removed", "many start", "shell", "reported dead"):
        assert happened[what] > 0, happened


@pytest.mark.skipif(not can_mount(), reason="mounting a small tmpfs needs root and CAP_SYS_ADMIN")
@pytest.mark.slow
def test_counts_are_exact_when_the_disk_is_full_now_and_then(folder: Path) -> None:
    """Nobody ends while it is; what was there goes on, and new children appear when there is room."""
    place = folder / "disk"
    place.mkdir()

    happened = _run(place, "--disk", "24m", "--account", str(folder / "account"))

    assert happened["full"] > 0
    assert happened["ends"] > 0


@pytest.mark.slow
def test_counts_are_exact_when_files_are_deleted_now_and_then(folder: Path) -> None:
    """All files, or some; what living processes counted is back soon, and what ended ones left as long as one lives."""
    happened = _run(folder, "--deletions")

    assert happened["spoilt"] > 0
    assert happened["ends"] > 0
