"""The package without `assert` and docstrings (-O, -OO), and with all checks and warnings that Python has (-X dev)."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Shell, sparing_restarts

import sqlmetrics

pytestmark = [pytest.mark.promise(12), pytest.mark.slow]

PROGRAM = Path(__file__).parent / "apps" / "workers.py"
PACKAGE = Path(sqlmetrics.__file__).parent
HARMLESS_CALLS = {"all", "isinstance"}
IN_ALL_WAYS = {
    'requests_total{path="/"}': 400,
    'seconds_bucket{le="1.0"}': 0,
    'seconds_bucket{le="2.0"}': 400,
    "seconds_sum": 600,
    "size_count": 400,
    "size_sum": 4000,
    "early_total": 2,
    "recent": 5,
    "living": 4,
    "asked": 3,
    'build_info{version="1"}': 1,
    'task{task="running"}': 1,
    'task{task="starting"}': 0,
}


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ([], {}),
        (["-O"], {}),
        (["-OO"], {}),
        (["-W", "error"], {"PYTHONDEVMODE": "1"}),
        (["-O", "-W", "error"], {"PYTHONDEVMODE": "1"}),
    ],
    ids=["plain", "-O", "-OO", "dev", "dev -O"],
)
def test_a_program_is_exact_and_silent_under_every_option(
    path: str, shell: Shell, options: list[str], environment: dict[str, str]
) -> None:
    """Workers, one of which is killed, threads, every kind of metric and of scrape: exact, and nothing on stderr."""
    command = [sys.executable, *options, *sparing_restarts(), str(PROGRAM), path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)

    assert (done.returncode, done.stderr) == (0, "")
    shown, flushed, alone = json.loads(done.stdout)
    assert len(shown) == 5
    for samples in shown:
        assert {name: samples.get(name) for name in IN_ALL_WAYS} == IN_ALL_WAYS
        assert 'requests_total{path="/gone"}' not in samples
    assert flushed in ("DONE", "NOTHING_CHANGED")
    assert alone['requests_total{path="/"}'] == 201
    assert shell.value("""SELECT sum(value) FROM metrics WHERE labels = '{"path":"/"}'""") == 400


def test_no_assert_calls_anything_that_does_something() -> None:
    """Each only states what is so, for who reads and for the type checker: it calls nothing that does anything."""
    found = [node for file in PACKAGE.rglob("*.py") for node in asserts(file)]
    for node in found:
        calls = {ast.unparse(one.func) for one in ast.walk(node.test) if isinstance(one, ast.Call)}
        changes = [one for one in ast.walk(node.test) if isinstance(one, (ast.NamedExpr, ast.Await, ast.Yield))]
        assert calls <= HARMLESS_CALLS, ast.unparse(node)
        assert not changes, ast.unparse(node)
    assert found


def asserts(file: Path) -> list[ast.Assert]:
    """The `assert` statements of a module."""
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Assert)]


def test_nothing_needs_docstrings() -> None:
    """Nobody reads `__doc__`, which is None where docstrings are left out."""
    assert not [file for file in PACKAGE.rglob("*.py") if "__doc__" in file.read_text()]
