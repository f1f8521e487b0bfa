"""`sqlmetrics run`: the command is as if it were started alone, and what keeps it from starting is told."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_for
from launching import jobs, launched, run, write

from sqlmetrics import config
from sqlmetrics.rows.making import LOCK_SUFFIX, making

pytestmark = pytest.mark.slow


def test_streams_and_status_are_the_commands_own(path: str) -> None:
    """Byte for byte, as the command takes the launcher's place."""
    done = run("sh", "-c", "cat; echo trouble >&2; exit 7", path=path, input="in\nput")

    assert (done.stdout, done.stderr, done.returncode) == ("in\nput", "trouble\n", 7)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGINT])
def test_signals_reach_the_command(path: str, number: signal.Signals) -> None:
    """It has the launcher's pid, and the signal's usual effect."""
    program = f"trap 'echo got {number}; exit 3' {number.value}; echo $$; while :; do sleep 0.01; done"
    command = launched("sh", "-c", program, path=path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(number)
        try:
            assert process.communicate(timeout=20) == (f"got {number}\n", None)
        finally:
            process.kill()
        assert process.returncode == 3


def test_a_launcher_that_is_interrupted_ends_without_a_traceback(path: str) -> None:
    """It waits for another process that makes the files when Ctrl-C comes."""
    with making(path, config.Settings(), 5), subprocess.Popen(launched("true", path=path), stderr=-1) as process:
        lock = os.path.realpath(path + LOCK_SUFFIX)
        seen = Path(f"/proc/{process.pid}/fd")
        wait_for(lambda: lock in [os.readlink(one) for one in seen.iterdir() if os.path.lexists(one)])
        process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=20) == (None, b"")
        finally:
            process.kill()
        assert process.returncode == -signal.SIGINT


def test_a_killed_command_looks_killed(path: str) -> None:
    """The status is that of a process that a signal has ended, which supervisors look at."""
    assert run("sh", "-c", "kill -KILL $$", path=path).returncode == -signal.SIGKILL


def test_a_closed_pipe_ends_the_command(path: str) -> None:
    """Python ignores SIGPIPE; a command that inherits that would complain instead of ending."""
    assert run("sh", "-c", "kill -PIPE $$; echo still here", path=path).returncode == -signal.SIGPIPE


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_keep_nothing_from_starting(path: str, script: Path, closed: str) -> None:
    """As some init scripts and cron leave them."""
    command = shlex.join(launched(sys.executable, str(script), path=path))

    assert subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, timeout=60).returncode == 0
    assert jobs(path) == {"it": 1}


def test_an_inherited_socket_is_still_there(path: str) -> None:
    """As socket activation hands it over."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket; print(socket.socket(fileno={server.fileno()}).getsockname()[1])"
        done = run(sys.executable, "-c", program, path=path, pass_fds=[server.fileno()])

        assert done.stdout.strip() == str(server.getsockname()[1])


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["nosuchprogram"], 127, "nosuchprogram: no such command in PATH, and no such file"),
        (["/"], 126, "/ cannot be run: it is a folder, or not executable by this user"),
        ([], 2, "no command was given; for example: sqlmetrics run -- gunicorn -w 4 app:app"),
    ],
)
def test_a_command_that_cannot_run_is_told_and_empties_nothing(
    path: str, script: Path, command: list[str], status: int, said: str
) -> None:
    """With the status that a shell has for it."""
    run(sys.executable, str(script), path=path)
    done = run(*command, path=path)

    assert done.returncode == status
    assert said in done.stderr
    assert jobs(path) == {"it": 1}


def test_a_program_of_the_current_folder_is_named_with_the_folder(folder: Path, path: str) -> None:
    """As shells want it."""
    write(folder, "program", "#!/bin/sh").chmod(0o755)
    done = run("program", path=path, cwd=folder)

    assert (done.returncode, done.stdout) == (127, "")
    assert (
        done.stderr == "sqlmetrics: program: no such command in PATH; for the file of that name here write ./program\n"
    )
    assert run("./program", path=path, cwd=folder).returncode == 0


def test_a_file_that_is_no_program_is_told(folder: Path, path: str) -> None:
    """The kernel refuses what has neither a format that it knows nor a first line with an interpreter."""
    file = write(folder, "text", "no program")
    file.chmod(0o755)
    done = run(str(file), path=path)

    assert done.returncode == 126
    assert done.stderr == f"sqlmetrics: {file} cannot be run: Exec format error\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "no store was named"),
        ({"SQLMETRICS_PATH": "/nowhere/metrics.sqlite3"}, "does not exist; create it first"),
        ({"SQLMETRICS_PATH": "/tmp/sqlmetrics.sqlite3", "SQLMETRICS_KEEP_DEAD": "few"}, "SQLMETRICS_KEEP_DEAD='few'"),
    ],
)
def test_a_store_that_cannot_be_is_told_before_the_command_starts(environment: dict[str, str], said: str) -> None:
    """In one line, without a traceback."""
    done = run("echo", "started", env=os.environ | environment)

    assert (done.stdout, done.returncode) == ("", 1)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
