"""One process at a time makes the files, and nobody can hold up the others: no stopped process, no other user."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import FILES, child, in_child, scrape, value, wait_for
from outsiders import as_root, drop_rights, error_of, unprivileged
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics import config
from sqlmetrics.process import fork
from sqlmetrics.rows.making import LOCK_SUFFIX, making

pytestmark = pytest.mark.promise(4)

MAKE = """
import os, signal, sys
from sqlmetrics import config
from sqlmetrics.rows.making import making
with making(sys.argv[1], config.Settings(), 5):
    os.kill(os.getpid(), signal.SIGSTOP)
"""

SOON = 10.0
"""Seconds; the stopped process goes on being stopped for as long as a test wants."""


def seconds_of(action: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


@contextmanager
def stopped_maker(path: str) -> Iterator[None]:
    """Another process that was stopped in the middle of making the files, and is killed at the end."""

    with subprocess.Popen([sys.executable, "-c", MAKE, path]) as maker:
        os.waitpid(maker.pid, os.WUNTRACED)
        try:
            yield
        finally:
            maker.kill()


@contextmanager
def folder_locked_by_another(folder: Path) -> Iterator[None]:
    """Another user has the folder's lock, as anybody can who may read it."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        drop_rights()
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        yield
    finally:
        os.write(done[1], b"x")
        os.waitpid(pid, 0)
        for end in (*ready, *done):
            os.close(end)


@pytest.mark.promise(11)
def test_another_users_lock_on_the_folder_holds_up_nobody(folder: Path, path: str) -> None:
    """Neither at set-up nor where the files have to be made anew."""
    folder.chmod(0o1777)
    with folder_locked_by_another(folder):
        store = sqlmetrics.install(path, flush_interval=0.02)
        requests = Counter("requests", "Requests", ["path"])
        requests.labels("/").inc(5)
        assert store.is_open()
        for suffix in FILES:
            os.unlink(path + suffix)
        requests.labels("/").inc(5)
        wait_for(lambda: error_of(scrape)[0] == "" and value("requests_total", path="/") == 10)
        assert sorted(os.listdir(folder)) == sorted(os.path.basename(path) + suffix for suffix in FILES)


@pytest.mark.slow
def test_install_does_not_wait_for_ever_for_a_stopped_process(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """It counts in memory after five seconds, says why once, and all of it is in the store when the other is gone.

    Also if it forks meanwhile, and does nothing any more.
    """
    with stopped_maker(path):
        took = seconds_of(lambda: sqlmetrics.install(path, flush_interval=0.05))
        requests = Counter("requests", "Requests")
        requests.inc(7)
        assert seconds_of(lambda: in_child(lambda: None)) < SOON
        assert 4 < took < 8
        assert [f"{path}{LOCK_SUFFIX} is locked" in text for text in caplog.messages].count(True) == 1

    wait_for(sqlmetrics.install(path).is_open)
    wait_for(lambda: value("requests_total") == 7)
    assert not os.path.exists(path + LOCK_SUFFIX)


@pytest.mark.slow
def test_a_running_app_does_not_wait_for_a_stopped_process(path: str) -> None:
    """Its files are deleted, and who makes new ones is stopped: everything goes on, and nothing is lost."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["path"])
    for name in ("/", "/other"):
        requests.labels(name).inc(5)
    store.flush()
    with stopped_maker(path):
        for suffix in FILES:
            os.unlink(path + suffix)
        wait_for(lambda: store.trouble.counts["replaced"] > 2)  # the flusher meets it
        assert max(seconds_of(requests.labels("/").inc) for _ in range(100)) < SOON
        assert seconds_of(requests.labels("/new").inc) < SOON
        assert seconds_of(lambda: in_child(lambda: None)) < SOON
        assert seconds_of(lambda: error_of(scrape)) < SOON
        assert seconds_of(lambda: requests.remove("/other")) < SOON
        assert seconds_of(store.flush) < SOON

    wait_for(lambda: error_of(scrape)[0] == "" and value("requests_total", path="/new") == 1)
    assert value("requests_total", path="/") == 5 + 100
    assert ("requests_total", (("path", "/other"),)) not in scrape()


def test_what_ended_processes_left_is_kept_for_as_long_as_another_makes_files(path: str) -> None:
    """Only the connection that is open can still read it, so it stays open until the lock can be had."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    with child(use=lambda: requests.inc(100)) as gone:
        gone.do("use")
    requests.inc(5)
    assert value("requests_total") == 105
    store.flush()
    with stopped_maker(path):
        for suffix in FILES:
            os.unlink(path + suffix)
        wait_for(lambda: store.trouble.counts["replaced"] > 2)

    wait_for(lambda: error_of(scrape)[0] == "" and value("requests_total") == 105)


def test_a_crash_in_the_middle_leaves_no_lock(path: str) -> None:
    """The kernel lets go of it; whoever comes next takes the file that is left, and removes it."""
    with stopped_maker(path):
        pass
    assert os.path.exists(path + LOCK_SUFFIX)

    assert seconds_of(lambda: sqlmetrics.install(path)) < SOON

    assert sqlmetrics.install(path).is_open()
    assert not os.path.exists(path + LOCK_SUFFIX)


def test_a_child_that_is_forked_in_the_middle_does_not_keep_the_lock(path: str) -> None:
    """It has its parent's open file, and may live for long after it."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        with making(path, config.Settings(), 5):
            if not os.fork():
                os.write(ready[1], b"x")
                os.read(done[0], 1)
                os._exit(0)
            os.read(ready[0], 1)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        assert seconds_of(lambda: sqlmetrics.install(path)) < SOON
        assert sqlmetrics.install(path).is_open()
    finally:
        os.write(done[1], b"x")
        for end in (*ready, *done):
            os.close(end)


def test_of_many_that_start_at_once_one_makes_the_files(folder: Path, path: str) -> None:
    """All count in the same store, and the lock is gone afterwards."""
    gate = os.pipe()
    pids = []
    for _ in range(12):
        if not (pid := os.fork()):
            os.read(gate[0], 1)
            sqlmetrics.install(path)
            Counter("requests", "Requests").inc()
            os._exit(0)
        pids.append(pid)
    os.write(gate[1], b"x" * len(pids))
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)
    for end in gate:
        os.close(end)

    assert sum(scrape(path).values()) == len(pids)
    assert sorted(os.listdir(folder)) == sorted(os.path.basename(path) + suffix for suffix in FILES)


@as_root
@pytest.mark.parametrize("kind", ["file", "fifo", "symlink", "folder"])
@pytest.mark.promise(11)
def test_a_lock_that_another_user_has_put_there_is_refused(folder: Path, path: str, kind: str) -> None:
    """Refused by name at once: who has put it there could hold it for ever."""
    folder.chmod(0o1777)
    name = path + LOCK_SUFFIX
    plant = {"file": Path(name).touch, "fifo": lambda: os.mkfifo(name), "folder": lambda: os.mkdir(name)}
    unprivileged(plant.get(kind, lambda: os.symlink("/etc/passwd", name)))

    errors: list[tuple[str, str]] = []
    assert seconds_of(lambda: errors.append(error_of(lambda: sqlmetrics.install(path)))) < SOON
    assert errors[0][0] == "ForeignFileError"
    assert name in errors[0][1]


def test_members_of_a_group_share_the_lock(folder: Path, path: str) -> None:
    """Also the one that a crash of another member has left."""
    group = 65534 if os.geteuid() == 0 else os.getegid()
    settings = config.Settings(mode=0o660, group=group)
    folder.chmod(0o2777)
    pid = os.fork()
    if not pid:
        with making(path, settings, 5):
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.path.exists(path + LOCK_SUFFIX)

    assert unprivileged(lambda: sqlmetrics.install(path, mode=0o660, group=group).is_open())
    assert not os.path.exists(path + LOCK_SUFFIX)


def test_forks_while_another_process_makes_the_files_leave_no_descriptor_open(path: str) -> None:
    """A thread that waits for the other process gives way to each fork, and tries again."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def wait() -> None:
        try:
            with making(path, config.Settings(), 20):
                pass
        except fork.GaveWayError:
            gave_way.append(True)

    class Slow(fork.ForkAware):
        """Makes a fork take some time, as a busy app does."""

        def before_fork(self) -> None:
            time.sleep(0.03)

    gave_way: list[bool] = []
    slow = Slow()
    fork.register(slow)
    with stopped_maker(path):
        before = descriptors()
        for times in range(1, 4):
            waiting = threading.Thread(target=wait)
            waiting.start()
            wait_for(lambda: descriptors() > before)
            while waiting.is_alive():
                assert in_child(lambda: True)
            assert len(gave_way) == times
        assert descriptors() == before
