"""An app that uses every feature at once: in memory with one process, and unchanged in the store with four."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.promise(12)

_APP = Path(__file__).parent / "apps" / "everything.py"
_INSTALLED = "import runpy, sys, sqlmetrics; sqlmetrics.install(sys.argv[2]); runpy.run_path(sys.argv[3])"
_VALUE = re.compile(r" (-?[0-9.]+(e[+-][0-9]+)?|\+Inf|NaN)(?= #|$)| [0-9.e+]+$")


def lines(*command: str) -> list[str]:
    """What an app prints, without the values."""
    shown = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, timeout=60).stdout
    return [_VALUE.sub("", line) for line in shown.split("\n")]


def shown_by_the_app(text: list[str]) -> list[str]:
    """Without what `prometheus_client` shows of the interpreter: who imports more has collected more garbage."""
    return sorted(line for line in text if "app_" in line or line == "# EOF")


def test_four_processes_show_what_one_shows_but_for_values(path: str) -> None:
    """Both formats, every family, help text, unit, series, `_created` sample and exemplar."""
    alone = lines(str(_APP), "1")
    four = lines("-c", _INSTALLED, "4", path, str(_APP))

    assert shown_by_the_app(four) == shown_by_the_app(alone)
    assert len(shown_by_the_app(alone)) > 100
    assert {line.split("{")[0] for line in four} == {line.split("{")[0] for line in alone}


def test_the_values_are_those_of_four_processes(path: str) -> None:
    """Spot checks of what the test above leaves out."""
    command = [sys.executable, "-c", _INSTALLED, "4", path, str(_APP)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    for line in (
        'app_requests_total{method="GET",path="/"} 4.0',
        'app_latency_seconds_bucket{le="1.0",path="/new"} 4.0',
        'app_size_bytes_sum{path="/"} 1.0',
        "app_failures_total 0.0",
        "app_busy 0.0",
        'app_level{pid="mine"} 7.0',
        "app_queue 3.0",
        'app_build_info{python="3",version="1"} 1.0',
        'app_task{app_task="running",job="a"} 1.0',
    ):
        assert f"\n{line}\n" in shown
