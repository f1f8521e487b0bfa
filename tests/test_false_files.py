"""An app's test that puts false files in the place of the real ones, as pyfakefs does: the store keeps to its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import scrape, sparing_restarts

pytestmark = pytest.mark.promise(12)

_FALSE = """
import builtins, contextlib, fcntl, genericpath, io, os, posix, posixpath, sys, types

FILES = set(
    "access chmod chown close fchmod fchown fcntl flock fstat fsync ftruncate link listdir lockf lstat mkdir open pread"
    " posix_fallocate pwrite readlink remove rename replace rmdir scandir stat symlink unlink write".split()
)

class False_:
    "A module of files in which there are none."
    def __init__(self, real): self.real = real
    def __getattr__(self, name):
        found = getattr(self.real, name)
        if name == "path": return False_(found)
        if name not in FILES and name not in ("exists", "isfile", "isdir", "islink"): return found
        def missing(*args, **kwargs): raise FileNotFoundError(2, "there is no such file in the test's", name)
        return missing

@contextlib.contextmanager
def false_files():
    "What pyfakefs does: it goes through all modules for those that have these, or functions of them."
    names, spared = {"os", "io", "fcntl", "shutil", "pathlib"}, (fcntl, genericpath, io, os, posix, posixpath)
    done = [(builtins, "open", open)]
    for module in list(sys.modules.values()):
        for name, value in vars(module).copy().items() if module not in spared else ():
            if isinstance(value, types.ModuleType) and value.__name__ in names:
                done.append((module, name, value))
                setattr(module, name, False_(value))
            elif name in FILES and getattr(value, "__module__", "") in ("posix", "_io"):
                done.append((module, name, value))
                setattr(module, name, getattr(False_(sys.modules[value.__module__]), value.__name__))
    builtins.open = getattr(False_(io), "open")
    try: yield
    finally:
        for module, name, value in done: setattr(module, name, value)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A program to its end, that has `false_files`."""
    command = [sys.executable, *sparing_restarts(), "-c", _FALSE + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_operations_scrapes_and_removals_go_on_among_false_files(path: str) -> None:
    """As in one process, where none of them has anything to do with files; no log line complains."""
    program = f"""
import logging, time
import prometheus_client, sqlmetrics
from prometheus_client import REGISTRY, CollectorRegistry
logging.basicConfig(level=logging.INFO)
store = sqlmetrics.install({path!r}, flush_interval=0.05)
jobs = prometheus_client.Counter("jobs", "Jobs", ["by"])
jobs.labels("it").inc()
ticks = prometheus_client.Gauge("ticks", "Ticks", multiprocess_mode="livesum")
watched = CollectorRegistry()
sqlmetrics.MultiProcessCollector(watched, self_metrics=True)
def flushes(): return watched.get_sample_value("sqlmetrics_flush_seconds_count") or 0
with false_files():
    try: print(os.stat({path!r}))
    except FileNotFoundError: print("false")
    jobs.labels("it").inc()
    jobs.labels("other").inc()
    jobs.labels("gone").inc()
    prometheus_client.Gauge("workers", "Workers", multiprocess_mode="livesum").set(1)
    before, deadline = flushes(), time.monotonic() + 30
    while flushes() < before + 2 and time.monotonic() < deadline:
        ticks.inc()
        time.sleep(0.01)
    print(flushes() >= before + 2)
    jobs.remove("gone")
    print(REGISTRY.get_sample_value("jobs_total", {{"by": "it"}}), store.get_sample_value("workers"))
    print(prometheus_client.generate_latest(REGISTRY).count(b"jobs_total{{"))
    sqlmetrics.mark_process_dead("1")
    print(b"workers 1.0" in sqlmetrics.generate_latest(), store.flush().name in ("DONE", "NOTHING_CHANGED"))
jobs.labels("it").inc()
print(sorted(os.listdir(os.path.dirname({path!r}))))
"""
    done = run(program)

    files = sorted("metrics.sqlite3" + suffix for suffix in ("", "-cells", "-shm", "-wal"))
    said = done.stdout.splitlines()
    assert (said[:-1], done.stderr) == (["false", "True", "2.0 1.0", "2", "True True"], "")
    assert [name for name in eval(said[-1]) if name in files] == files
    assert scrape(path) == {("jobs_total", (("by", "it"),)): 3, ("jobs_total", (("by", "other"),)): 1}


def test_a_process_that_is_forked_among_false_files_counts(path: str) -> None:
    """It opens the database anew, claims a slot of its own, and is settled when it ends."""
    program = f"""
import prometheus_client, sqlmetrics
store = sqlmetrics.install({path!r})
jobs = prometheus_client.Counter("jobs", "Jobs")
jobs.inc()
fork, end, wait = os.fork, os._exit, os.wait
with false_files():
    if fork() == 0:
        jobs.inc()
        store.flush()
        end(0)
    wait()
    print(store.get_sample_value("jobs_total"))
"""
    done = run(program)

    assert (done.stdout, done.stderr) == ("2.0\n", "")
    assert scrape(path) == {("jobs_total", ()): 2}


def test_an_error_that_is_put_into_a_system_call_reaches_the_store(path: str) -> None:
    """Who patches `os` itself means everybody: only what is put in the place of `os` is passed by."""
    program = """
import os
from sqlmetrics.cells import descriptors
def failing(*args): raise OSError(5, "put in")
os.fstat = failing
try: descriptors.status_of(0)
except OSError as error: print(error.strerror)
"""
    assert run(program).stdout == "put in\n"
