"""Tools for tests: forked children that run steps, waiting with a limit, and a reader in another process."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

import sqlmetrics

FILES = ("", "-wal", "-shm", "-cells")
"""The suffixes of a store's files."""

_STDLIB_READER = """
import json, sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute(sys.argv[2])]))
"""


def let_children_hear_signals() -> None:
    """Make programs that the tests start receive signals that `nohup`, or a script's ``&``, makes this process ignore.

    A program inherits ignored signals, but no handlers. So a handler that does nothing has the same effect, but only
    in this process.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


class Shell:
    """Reads a store as an operator does, read-only and in another process.

    It uses the sqlite3 shell or, if that is not installed, Python's sqlite3.
    """

    def __init__(self, path: str):
        self.path = path

    def __call__(self, sql: str) -> list[dict[str, object]]:
        """Return the rows of a query as dicts."""
        if shutil.which("sqlite3"):
            # The first process that opens a closed store keeps others waiting while it reads the WAL.
            command = ["sqlite3", "-readonly", "-json", "-cmd", ".timeout 2000", self.path, sql]
        else:
            command = [sys.executable, "-c", _STDLIB_READER, self.path, sql]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
        return json.loads(output) if output.strip() else []

    def value(self, sql: str) -> object:
        """Return the only value of the only row of a query."""
        (row,) = self(sql)
        (value,) = row.values()
        return value

    def wait_for_row(self, sql: str) -> None:
        """Wait until a query has a row, even while the files are being made anew and some are missing."""

        def has_row() -> bool:
            try:
                return bool(self(sql))
            except subprocess.CalledProcessError:
                return False

        wait_for(has_row)


def delete(path: str, suffixes: Iterable[str] = FILES) -> None:
    """Delete a store's files, or some of them; processes of the store may delete some first."""
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def unflushed(path: str) -> sqlmetrics.Store:
    """Install a store that this process flushes only if the test calls `flush`; a fork ends that."""
    store = sqlmetrics.install(path, flush_interval=1000)
    store.flusher.stop()
    return store


def flush_all(store: sqlmetrics.Store) -> None:
    """Flush until there is nothing to write. What a flush counts of itself is an operation, too."""
    wait_for(lambda: store.flush().name == "NOTHING_CHANGED")


@contextlib.contextmanager
def hasty_threads(seconds: float = 1e-6) -> Iterator[None]:
    """Make the interpreter switch threads at every chance, or after so many seconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> object:
    """Wait until a condition is true, and return its result; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{condition} stayed false for {seconds} s"
        time.sleep(0.005)
    return result


class Child:
    """A forked child that runs one step at each `do`, so that a test and its processes stay in lockstep."""

    def __init__(self, fork: Callable[[], int] = os.fork):
        to_child, self._orders = os.pipe()
        self._answers, to_parent = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.steps: dict[str, Callable[..., object]] = {}
        self.pid = fork()
        self.in_child = self.pid == 0
        if self.in_child:
            os.close(self._orders)
            os.close(self._answers)
            self._in, self._out = os.fdopen(to_child), os.fdopen(to_parent, "w")
        else:
            os.close(to_child)
            os.close(to_parent)
            self._in, self._out = os.fdopen(self._answers), os.fdopen(self._orders, "w")

    def serve(self, **steps: Callable[..., object]) -> None:
        """In the child: run the steps that `do` names, until `end`; then leave at once."""
        status = 0
        try:
            for line in self._in:
                name, arguments = json.loads(line)
                if name == "end":  # end of file would not do: children forked later hold the pipe open too
                    break
                print(json.dumps(steps[name](*arguments)), file=self._out, flush=True)
        except BaseException:
            traceback.print_exc()
            status = 1
        os._exit(status)

    def do(self, name: str, *arguments: object) -> object:
        """In the parent: make the child run a step, and return its result."""
        print(json.dumps([name, arguments]), file=self._out, flush=True)
        answer = self._in.readline()
        assert answer, f"the child {self.pid} failed in {name}{arguments}; see its traceback"
        return json.loads(answer)

    def end(self) -> int:
        """Let the child leave by `os._exit`, wait for it, and return its status."""
        print(json.dumps(["end", []]), file=self._out, flush=True)
        self.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """Kill the child with SIGKILL, and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Close the pipes."""
        for pipe in (self._out, self._in):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def child(**steps: Callable[..., object]) -> Iterator[Child]:
    """Fork a child that can run these steps, and kill it at the end."""
    one = Child()
    if one.in_child:
        one.serve(**steps)
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            one.kill()
        one.close()


def in_child(action: Callable[[], object]) -> object:
    """Run an action in a forked child that ends by `os._exit`, and return its result."""
    with child(act=action) as one:
        return one.do("act")


def scrape(path: str | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what a scrape shows: {(sample name, sorted labels): value}."""
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry, path)
    return {key(sample): sample.value for metric in registry.collect() for sample in metric.samples}


def key(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a sample's name and labels, hashable."""
    return sample.name, tuple(sorted(sample.labels.items()))


def value(name: str, /, **labels: str) -> float | None:
    """Return the value of one sample of a scrape, None if it is not shown."""
    return scrape().get((name, tuple(sorted(labels.items()))))


def watching(path: str | None = None) -> CollectorRegistry:
    """Return a registry that shows the families about the store itself, too."""
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry, path, self_metrics=True)
    return registry


def own(name: str, /, **labels: str) -> float | None:
    """Return the value of a sample about the store itself, without the prefix ``sqlmetrics_`` in its name."""
    return watching().get_sample_value(f"sqlmetrics_{name}", labels)


def names_of(registry: Any) -> list[str]:
    """Return the names of a registry's samples, as often as they are yielded."""
    return [sample.name for metric in registry.collect() for sample in metric.samples]


def ask(registry: Any, name: str, **labels: str) -> float | None:
    """Return the value of one sample of a registry, or of a restricted one."""
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return next((sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)), None)


_RESTARTS = """
import _thread, os
gate = _thread.allocate_lock()
gate.acquire()
os.register_at_fork(after_in_parent=lambda: _thread.start_new_thread(gate.acquire, ()))
os._exit(0) if os.fork() == 0 else os.wait()
"""


@functools.cache
def sparing_restarts() -> list[str]:
    """Return options against a warning that some Pythons give about any thread that starts right after a fork.

    They count threads after the hooks, see the limits: https://github.com/python/cpython/issues/137109
    """
    tried = subprocess.run([sys.executable, "-c", _RESTARTS], check=True, capture_output=True, text=True, timeout=60)
    return ["-W", "ignore:This process (pid"] if "multi-threaded" in tried.stderr else []
