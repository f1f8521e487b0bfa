"""Small tools of the tests: child processes that are waited for, conditions with a limit, a second reader."""

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
"""What the names of a store's files end in."""

_STDLIB_READER = """
import json, sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute(sys.argv[2])]))
"""


def let_children_hear_signals() -> None:
    """Have what the tests start hear the signals that `nohup`, or a script's ``&``, has made this process ignore.

    A program inherits what is ignored, but not a handler, so one that does nothing is ignorance that ends here.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


class Shell:
    """Reads a store as an operator does: the sqlite3 shell, or where it is not installed Python's sqlite3,
    in another process in either case, and read-only."""

    def __init__(self, path: str):
        self.path = path

    def __call__(self, sql: str) -> list[dict[str, object]]:
        """The rows of a query as dicts."""
        if shutil.which("sqlite3"):
            # Where nobody has had it open, the first one who opens it keeps others waiting while it reads the WAL.
            command = ["sqlite3", "-readonly", "-json", "-cmd", ".timeout 2000", self.path, sql]
        else:
            command = [sys.executable, "-c", _STDLIB_READER, self.path, sql]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
        return json.loads(output) if output.strip() else []

    def value(self, sql: str) -> object:
        """The only value of the only row of a query."""
        (row,) = self(sql)
        (value,) = row.values()
        return value

    def wait_for_row(self, sql: str) -> None:
        """Wait until a query has a row, also where the files are being made anew: one may meet half of them."""

        def has_row() -> bool:
            try:
                return bool(self(sql))
            except subprocess.CalledProcessError:
                return False

        wait_for(has_row)


def delete(path: str, suffixes: Iterable[str] = FILES) -> None:
    """Delete a store's files, or some of them; its processes may be faster with some of them."""
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def unflushed(path: str) -> sqlmetrics.Store:
    """A store that this process flushes only where a test says so, until there is a fork."""
    store = sqlmetrics.install(path, flush_interval=1000)
    store.flusher.stop()
    return store


@contextlib.contextmanager
def hasty_threads(seconds: float = 1e-6) -> Iterator[None]:
    """The interpreter changes threads at every chance, or after so many seconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> object:
    """Wait until a condition is true and return what it gave; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{condition} stayed false for {seconds} s"
        time.sleep(0.005)
    return result


class Child:
    """A forked child that runs steps when it is told to, so that a test and its processes stay in lockstep."""

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
        """In the child: obey until it is told to end, then leave at once."""
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
        """In the parent: have a step done, and return what it returned."""
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
        """SIGKILL, and wait for it."""
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
    """A forked child that can do the steps given; it is gone at the end."""
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
    """Do something in a forked child that ends by `os._exit`, and return what it returned."""
    with child(act=action) as one:
        return one.do("act")


def scrape(path: str | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape shows: {(sample name, sorted labels): value}."""
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry, path)
    return {key(sample): sample.value for metric in registry.collect() for sample in metric.samples}


def key(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A sample's name and labels, hashable."""
    return sample.name, tuple(sorted(sample.labels.items()))


def value(name: str, /, **labels: str) -> float | None:
    """The value of one sample of a scrape, None if it is not shown."""
    return scrape().get((name, tuple(sorted(labels.items()))))


def watching(path: str | None = None) -> CollectorRegistry:
    """A registry that shows what a store says of itself, too."""
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry, path, self_metrics=True)
    return registry


def own(name: str, /, **labels: str) -> float | None:
    """A sample of the store about itself."""
    return watching().get_sample_value(f"sqlmetrics_{name}", labels)


def names_of(registry: Any) -> list[str]:
    """The samples of a registry, as often as they are yielded."""
    return [sample.name for metric in registry.collect() for sample in metric.samples]


def ask(registry: Any, name: str, **labels: str) -> float | None:
    """One sample of a registry, or of a restricted one."""
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
    """An option against a warning that some Pythons give of any thread that is started right after a fork.

    They count threads after the hooks, see the limits: https://github.com/python/cpython/issues/137109
    """
    tried = subprocess.run([sys.executable, "-c", _RESTARTS], check=True, capture_output=True, text=True, timeout=60)
    return ["-W", "ignore:This process (pid"] if "multi-threaded" in tried.stderr else []
