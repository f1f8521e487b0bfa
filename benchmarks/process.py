"""The processes of the sides, each with one library in it, and the commands that they are sent over pipes."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from . import environments


class Side:
    """A process of one side; see `worker` for what it can be told to do."""

    def __init__(self, name: str, folder: str, python: str):
        self.name = name
        self.folder = folder
        self._python = python
        environment = {key: value for key, value in os.environ.items() if not _names_a_store(key)}
        if name == "mmap":
            environment["PROMETHEUS_MULTIPROC_DIR"] = folder
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", name, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, task: str, **arguments: Any) -> Any:
        """Let the process do one thing and return its answer. Raises RuntimeError if it has ended."""
        self.tell(task, **arguments)
        return self.hear()

    def tell(self, task: str, **arguments: Any) -> None:
        """Let the process begin one thing; `hear` waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([task, arguments]) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """The answer to what it was told. Raises RuntimeError if it has ended."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {self.name} ended with status {self._process.wait()}")
        return json.loads(answer)

    def another(self) -> Side:
        """A second process with the same files, which has done nothing yet; the caller closes it."""
        return Side(self.name, self.folder, self._python)

    def close(self) -> None:
        """End the process, and with it those that it forked."""
        self._process.communicate()


@contextmanager
def sides(folder: str, *names: str) -> Iterator[dict[str, Side]]:
    """One process for each name that can be had, each with a new store of its own."""
    with ExitStack() as stack:
        running = {}
        for name in names:
            if python := environments.python(name):
                side = Side(name, stack.enter_context(tempfile.TemporaryDirectory(prefix=name, dir=folder)), python)
                stack.callback(side.close)
                running[name] = side
        yield running


def _names_a_store(variable: str) -> bool:
    return variable.upper() == "PROMETHEUS_MULTIPROC_DIR" or variable.startswith("SQLMETRICS_")
