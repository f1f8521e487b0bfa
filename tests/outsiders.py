"""Processes that are no part of the app: an operator at a SQLite shell, a user without rights, a second Python."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
from helpers import in_child, wait_for

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

_STDLIB_SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
for line in sys.stdin:
    for row in connection.execute(line):
        print("|".join(map(str, row)), flush=True)
"""


class Operator:
    """A SQLite shell that stays open, so that it can hold a lock: sqlite3, or else Python's in a process of its own."""

    def __init__(self, path: str, *statements: str):
        command = ["sqlite3", path] if shutil.which("sqlite3") else [sys.executable, "-c", _STDLIB_SHELL, path]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.run("PRAGMA busy_timeout = 5000", *statements)  # a flush may be under way

    def run(self, *statements: str) -> None:
        """Execute statements, and return when they are done; they must not fail."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("".join(f"{line};\n" for line in [*statements, "SELECT 'done'"]))
        self._process.stdin.flush()
        said = []
        while not said or said[-1] not in ("done\n", ""):
            said.append(self._process.stdout.readline())
        assert said[-1], f"the shell ended: {said}"
        assert not any("rror" in line for line in said), said

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=20)
        assert self._process.stdout
        self._process.stdout.close()


def unprivileged(action: Callable[[], object]) -> object:
    """Do something in a forked child that is not root, and return what it returned."""

    def act() -> object:
        drop_rights()
        return action()

    return in_child(act)


def drop_rights() -> bool:
    """Be no longer root, if this process was."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return True


def error_of(action: Callable[[], object]) -> tuple[str, str]:
    """(class name, message) of what an action raised, ('', '') if it raised nothing; fit for another process."""
    try:
        action()
    except Exception as error:  # whatever it is, the test looks at it
        return type(error).__name__, str(error)
    return "", ""


def python(script: str, *arguments: str, seconds: float = 60, **environment: str) -> str:
    """Run a script in a new interpreter and return what it printed; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ended(pid: int, seconds: float = 30) -> int:
    """Wait for a child and return its status; one that hangs is killed, and the test fails."""
    found: list[int] = []

    def is_over() -> bool:
        gone, status = os.waitpid(pid, os.WNOHANG)
        found.append(status)
        return gone == pid

    try:
        wait_for(is_over, seconds)
    except AssertionError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    return os.waitstatus_to_exitcode(found[-1])
