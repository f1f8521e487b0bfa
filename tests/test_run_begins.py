"""`sqlmetrics run`: when the store is emptied, and when it is not."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_for
from launching import jobs, launched, run, write
from outsiders import Operator

from sqlmetrics.cells import layout, locks

pytestmark = [pytest.mark.promise(8), pytest.mark.slow]


def test_each_run_begins_at_zero(path: str, script: Path) -> None:
    """As with the peer's directory that is wiped."""
    for name in ("first", "second"):
        assert run(sys.executable, str(script), name, path=path).returncode == 0
        assert jobs(path) == {name: 1}


def test_persist_keeps_the_sums(path: str, script: Path) -> None:
    """By the setting that gunicorn's hook obeys, too."""
    for _ in range(2):
        run(sys.executable, str(script), path=path, env=os.environ | {"SQLMETRICS_PERSIST": "1"})

    assert jobs(path) == {"it": 2}


def test_jobs_of_one_run_that_follow_one_another_add_up(path: str, script: Path) -> None:
    """Also where a script of the run uses the launcher again, and no process lives in between."""
    again = shlex.join(launched(sys.executable, str(script), "again", path=path))
    assert run("sh", "-c", f"{sys.executable} {script} first; {again}; {again}", path=path).returncode == 0

    assert jobs(path) == {"first": 1, "again": 2}


def test_a_second_run_empties_nothing_while_the_first_goes_on(path: str, script: Path) -> None:
    """Even if none of its processes has counted, or lives that did: the launcher's lock goes on through exec."""
    program = f"{sys.executable} {script} first; echo counted; read line"
    command = launched("sh", "-c", program, path=path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "counted\n"
        run(sys.executable, str(script), "second", path=path)
        assert jobs(path) == {"first": 1, "second": 1}
        first.stdin.close()
        first.wait(10)

    run(sys.executable, str(script), "third", path=path)
    assert jobs(path) == {"third": 1}


def test_a_second_run_waits_while_another_empties_the_store(path: str, script: Path) -> None:
    """As long as a large store takes; then it is a run of its own, whose lock goes on."""
    run(sys.executable, str(script), path=path)
    command = launched("sh", "-c", "echo started; read line", path=path)
    with open(path + "-cells", "r+b") as emptied:
        assert locks.try_lock(emptied.fileno(), layout.RUN_LOCK_AT)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            waiting = select.poll()  # not select(), which knows descriptors below 1024 only
            waiting.register(second.stdout, select.POLLIN)
            assert waiting.poll(2500) == []
            locks.unlock(emptied.fileno(), layout.RUN_LOCK_AT)
            assert second.stdout.readline() == "started\n"
            assert locks.is_locked(emptied.fileno(), layout.RUN_LOCK_AT)


def test_a_run_begins_while_another_program_has_the_write_lock(path: str, script: Path) -> None:
    """The command starts all the same, with the sums of the run before, and the log says why."""
    run(sys.executable, str(script), "first", path=path)

    with Operator(path, "BEGIN IMMEDIATE"):
        done = run(sys.executable, str(script), "second", path=path)

    assert done.returncode == 0
    assert "what earlier runs left cannot be removed now (BusyError" in done.stderr
    assert jobs(path) == {"first": 1, "second": 1}
    run(sys.executable, str(script), "third", path=path)
    assert jobs(path) == {"third": 1}


def assert_keeps_the_run_going(command: str, counted: str, path: str, script: Path) -> None:
    """A second run empties nothing while a daemon lives. command: prints its pid; it makes a file `ready` beside."""
    pid = int(run("sh", "-c", command, path=path).stdout)
    try:
        wait_for(script.with_name("ready").exists)
        run(sys.executable, str(script), "second", path=path)
        assert jobs(path) == {counted: 1, "second": 1}
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_daemon_that_the_command_left_behind_keeps_the_run_going(folder: Path, path: str, script: Path) -> None:
    """`gunicorn --daemon` and its like go on when the launched process has ended."""
    daemon = f"({sys.executable} {script} daemon; echo ready > {folder}/ready; exec sleep 60) >/dev/null 2>&1 & echo $!"
    assert_keeps_the_run_going(daemon, "daemon", path, script)


def test_a_daemon_that_closes_what_it_inherits_keeps_the_run_going(folder: Path, path: str, script: Path) -> None:
    """As `celery --detach` does, and Celery's SIGHUP; the launcher's open file is one of those that it closes."""
    program = write(
        folder,
        "daemon.py",
        """
        import os, pathlib, signal
        os.closerange(3, 256)
        import prometheus_client
        pathlib.Path(__file__).with_name("ready").touch()
        signal.pause()
        """,
    )
    daemon = f"{sys.executable} {script} first; {sys.executable} {program} >/dev/null 2>&1 & echo $!"
    assert_keeps_the_run_going(daemon, "first", path, script)
