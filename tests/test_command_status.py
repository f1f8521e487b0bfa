"""`sqlmetrics status`: who lives, by the kernel's word, and what an operator should look at."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import Shell, delete, in_child, wait_for
from looking import Said, as_they_are, command, worker
from outsiders import as_root
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics.outside.usage import usage


def _may_unshare() -> bool:
    return shutil.which("unshare") is not None and subprocess.call(["unshare", "--pid", "--fork", "true"]) == 0


def status(path: str, *arguments: str, nobody: bool = False) -> Said:
    """The command."""
    return command("status", "--path", path, *arguments, nobody=nobody)


def states(path: str) -> dict[str, str]:
    """The state of each process."""
    return {one["pid"]: one["state"] for one in status(path, "--json").json()["processes"]}


def test_the_living_and_the_dead_are_told_apart_at_once(path: str) -> None:
    """Also of SIGKILL of all, where nobody is left who could note it: the status is 1 then."""
    with worker(path) as one, worker(path) as two:
        assert status(path).status == 0
        assert states(path) == {str(one.pid): "alive", str(two.pid): "alive"}
        two.kill()
        assert states(path) in ({str(one.pid): "alive", str(two.pid): "dead"}, {str(one.pid): "alive"})
        one.kill()
        assert set(states(path).values()) == {"dead"}
        assert status(path).status == 1


def test_each_process_is_described(path: str) -> None:
    """By its identifier, the kernel's pid, since when, its series, and what it takes of the machine."""
    with worker(path, process_identifier=lambda: "worker-1") as one:
        begun = time.time()
        one.do("count", "/", 1)
        (found,) = status(path, "--json").json()["processes"]

    assert (found["pid"], found["os_pid"], found["seen_pid"]) == ("worker-1", one.pid, one.pid)
    assert abs(found["started"] - begun) < 20
    assert found["series"] >= 4
    assert found["bytes"] >= 8192
    assert found["rss_bytes"] > 2**20
    assert found["cpu_seconds"] >= 0.0
    assert found["program"] == Path("/proc/self/comm").read_text().strip()  # python, or pytest


def test_cpu_and_memory_are_those_of_the_kernel() -> None:
    """A process that computes takes CPU; one of an odd name is read as well; one that is gone has none."""
    program = "open('/proc/self/comm', 'w').write('a) b (c'); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = usage(process.pid)
        assert first is not None
        assert first.name == "a) b (c"

        def has_computed() -> bool:
            now = usage(process.pid)
            return now is not None and now.cpu_seconds > first.cpu_seconds

        wait_for(has_computed)
        process.kill()
    assert usage(process.pid) is None


@pytest.mark.slow
def test_a_process_that_does_not_flush_is_trouble(path: str) -> None:
    """What it counts since is in no row; one that merely had nothing to count is none."""
    with worker(path, flush_interval=0.05) as one:
        one.do("count", "/", 1)
        one.do("flush")
        assert status(path, "--json").json()["trouble"] == []
        one.do("stop")
        one.do("count", "/", 1)
        _make_older(path)

        done = status(path, "--json")

    assert done.status == 2
    assert done.json()["trouble"] == [f"process {one.pid} counts, but does not flush"]


@pytest.mark.slow
def test_a_stopped_process_is_named_as_stopped(path: str) -> None:
    """It cannot say so itself; its state in /proc does."""
    with worker(path, flush_interval=1000) as one:
        one.do("count", "/", 1)
        one.do("flush")
        one.do("stop")  # else the first flush after the fork may come now
        one.do("count", "/", 1)
        _make_older(path)
        os.kill(one.pid, signal.SIGSTOP)
        try:
            done = status(path, "--json")
        finally:
            os.kill(one.pid, signal.SIGCONT)

    assert done.json()["trouble"] == [f"process {one.pid} is stopped, so it does not flush"]


def _make_older(path: str) -> None:
    """As if the last flush had been a minute ago."""
    statement = "UPDATE instance SET started = started - 60, flushed = flushed - 60"
    subprocess.run(["sqlite3", "-cmd", ".timeout 5000", path, statement], check=True, capture_output=True)


def test_a_process_that_has_just_counted_is_no_trouble(path: str) -> None:
    """Its last flush may be long ago: it is looked at again."""
    with worker(path, flush_interval=0.5) as one:
        one.do("count", "/", 1)
        one.do("flush")
        _make_older(path)
        one.do("count", "/", 1)

        assert status(path).status == 0


def test_two_processes_of_one_name_are_trouble(path: str) -> None:
    """A gauge of mode `all` shows one of them only."""
    with worker(path, process_identifier=lambda: "same"), worker(path, process_identifier=lambda: "same"):
        done = status(path)

    assert done.status == 2
    assert "1 living processes have the name (pid) of another" in done.out


def test_sizes_limits_and_versions_are_shown(path: str, shell: Shell) -> None:
    """As the file system and SQLite say."""
    with worker(path) as one:
        one.do("burst", 0, 2000)
        one.do("flush")
        found = status(path, "--json").json()

        assert found["files"]["database"] == os.stat(path).st_blocks * 512
        assert found["files"]["cells"] == os.stat(path + "-cells").st_blocks * 512
        assert found["limits"]["processes"] == {"used": 1, "of": 4096}
        assert found["limits"]["cell blocks"]["used"] >= 4
        assert found["versions"]["schema"] == str(shell.value("PRAGMA user_version"))
        assert time.time() - found["last_flush"] < 20
        for size in (*found["files"].values(), found["free_bytes"], found["journal_bytes_behind"]):
            assert type(size) is int


def test_the_last_flush_is_told_when_nobody_lives_any_more(path: str) -> None:
    """By what is known of those that have ended."""

    def work() -> int:
        store = sqlmetrics.install(path)
        Counter("jobs", "Jobs done.").inc()
        store.flush()
        return os.getpid()

    pid = in_child(work)
    in_child(lambda: sqlmetrics.mark_process_dead(pid, path))
    found = status(path, "--json").json()

    assert found["processes"] == []
    assert abs(time.time() - found["last_flush"]) < 20
    assert re.search(r"^flushes .*; the last \S+ s ago$", status(path).out, re.M)


def test_a_stopped_process_is_alive(path: str) -> None:
    """The kernel has its lock."""
    with worker(path) as one:
        os.kill(one.pid, signal.SIGSTOP)
        try:
            assert status(path).status == 0
        finally:
            os.kill(one.pid, signal.SIGCONT)


@as_root
@pytest.mark.skipif(not _may_unshare(), reason="this machine gives the tests no pid namespace")
def test_a_process_of_another_pid_namespace_is_named_as_here(path: str) -> None:
    """A container's process is number 1 or 2 there; CPU and memory are those of its number on this side."""
    program = (
        "import sys, time, sqlmetrics; from prometheus_client import Counter; sqlmetrics.install(sys.argv[1])\n"
        "Counter('jobs', 'Jobs').inc(); print(flush=True); time.sleep(60)"
    )
    arguments = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program, path]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = status(path, "--json").json()["processes"]
        process.kill()

    assert (found["state"], found["pid"], found["os_pid"]) == ("alive", "1", 1)
    assert found["seen_pid"] > 1
    assert found["rss_bytes"] > 2**20


@as_root
def test_another_user_sees_who_lives(path: str, folder) -> None:
    """The kernel's locks and /proc need no right of their own."""
    folder.chmod(0o755)
    with worker(path) as one:
        found = status(path, "--json", nobody=True).json()

    assert [(each["state"], each["seen_pid"]) for each in found["processes"]] == [("alive", one.pid)]


def test_a_look_leaves_the_store_as_it_is(path: str) -> None:
    """With dead processes that nobody has settled."""
    with worker(path) as one:
        one.do("count", "/", 1)
        one.kill()
    before = as_they_are(path)

    assert status(path).status == 1
    assert as_they_are(path) == before


def test_files_that_do_not_belong_together_are_trouble(path: str) -> None:
    """Without the cells file nobody can say who lives."""
    with worker(path):
        pass
    delete(path, ["-cells"])

    done = status(path)

    assert done.status == 2
    assert f"{path}-cells is missing" in done.err


def test_deaths_are_told_with_what_noticed_them(path: str) -> None:
    """The last ones, the last one first; how many in all is told, too."""
    with worker(path) as one:
        pids = []
        for _ in range(7):
            with worker(path) as another:
                another.do("count", "/", 1)
                another.kill()
                pids.insert(0, str(another.pid))
                one.do("count", "/", 1)
                one.do("flush")
        found = status(path, "--json").json()
        printed = status(path).out

    assert [death["pid"] for death in found["deaths"]] == pids
    assert {death["noticed"] for death in found["deaths"]} <= {"flush", "start"}
    assert sum(found["ended"].values()) == 7
    assert "(and 2 before them" in printed
    assert [line.split()[0] for line in printed.splitlines() if line.endswith("s") and "ago" in line][:5] == pids[:5]
