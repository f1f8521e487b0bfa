"""Runs tests of `prometheus_client`'s own suite one at a time, each in a process and with a store of its own.

Run it by `sqlmetrics run`, in the folder of the suite, with a folder for the stores and the tests as pytest names them.
Each test runs in a fork of this process, which has imported pytest and nothing of `prometheus_client`: so each begins
as a program does, and starts in a tenth of the time. Prints a line of JSON for each: its name, and whether it passed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile

import pytest

_SECONDS = 60
"""After so many a test is ended, by SIGALRM."""


def main(folder: str, tests: list[str]) -> None:
    """Run the tests; the stores are in `folder`."""
    assert "prometheus_client" not in sys.modules, "it would have been switched to one store for all tests"
    for test in tests:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            child = os.fork()
            if child == 0:
                _run(test, own)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([test, status == 0]), flush=True)


def _run(test: str, folder: str) -> None:
    """Run one test in this process, which ends with it."""
    signal.alarm(_SECONDS)
    status = 1
    try:
        os.environ["SQLMETRICS_PATH"] = f"{folder}/metrics.sqlite3"
        os.dup2(2, 1)
        status = int(pytest.main(["-q", "--assert=plain", "-p", "no:cacheprovider", *options(), test]))
    finally:
        os._exit(status)


def options() -> list[str]:
    """How pytest finds the tests: with no configuration of anybody's."""
    return ["-c", os.devnull, "--rootdir", os.curdir]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
