"""A pid that the kernel gives a second time, and two processes with one pid in two namespaces."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from helpers import Child, child, scrape, value, wait_for
from prometheus_client import Counter, Gauge

import sqlmetrics

LAST_PID = "/proc/sys/kernel/ns_last_pid"
MODES = ("all", "min", "max", "sum", "mostrecent", "liveall", "livemin", "livemax", "livesum", "livemostrecent")
CLONE_NEWPID = 0x20000000

pytestmark = [
    pytest.mark.promise(1, 3),
    pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="choosing the next pid needs root and ns_last_pid"),
]


def fork_as(pid: int) -> int:
    """Fork with the kernel giving the child that very pid; tried again if another process was faster."""
    with open(LAST_PID, "w") as file:
        file.write(str(pid - 1))
    return os.fork()


class Metrics:
    """A counter and a gauge of each mode, of which the parent has no child."""

    def __init__(self) -> None:
        self.requests = Counter("requests", "Requests", ["x"])
        self.gauges = {mode: Gauge(mode, mode, ["x"], multiprocess_mode=mode) for mode in MODES}  # type: ignore[arg-type]

    def use(self, number: int) -> int:
        """What a worker does."""
        self.requests.labels("").inc(number)
        for gauge in self.gauges.values():
            gauge.labels("").set(number)
        return os.getpid()


def reused(metrics: Metrics, pid: int) -> Child:
    """A child with a pid that was another's."""
    for _ in range(200):
        one = Child(lambda: fork_as(pid))
        if one.in_child:
            one.serve(use=metrics.use)
        if one.pid == pid:
            return one
        one.kill()
    pytest.skip(f"pid {pid} could not be had again in 200 tries")


BETWEEN: dict[str, Callable[[sqlmetrics.Store, int], object]] = {
    "nothing": lambda _store, _pid: None,
    "a notice": lambda _store, pid: sqlmetrics.mark_process_dead(pid),
    "a scrape": lambda _store, _pid: scrape(),
    "a flush": lambda store, _pid: store.flush(),
    "all of them": lambda store, pid: (sqlmetrics.mark_process_dead(pid), scrape(), store.flush()),
}


@pytest.mark.parametrize("late_notice", [False, True])
@pytest.mark.parametrize("between", BETWEEN)
def test_a_second_process_with_a_pid_adds_up_with_the_first(path: str, shell, between: str, late_notice: bool) -> None:
    """Sums add up, gauges are its own, no series is there twice; after a late notice its next operation mends that."""
    store = sqlmetrics.install(path, flush_interval=1000)
    metrics = Metrics()
    with child(use=metrics.use) as first:
        pid = first.do("use", 100)
        first.kill()
    BETWEEN[between](store, first.pid)

    second = reused(metrics, first.pid)
    try:
        assert second.do("use", 7) == pid
        if late_notice:
            sqlmetrics.mark_process_dead(pid)
            second.do("use", 7)
        total = 114 if late_notice else 107
        for flushed in (False, True):
            if flushed:
                store.flush()
            shown = scrape()
            assert shown[("requests_total", (("x", ""),))] == total
            assert shown[("sum", (("x", ""),))] == 107
            assert (shown[("min", (("x", ""),))], shown[("max", (("x", ""),))]) == (7, 100)
            for mode in ("mostrecent", "livemin", "livemax", "livesum", "livemostrecent"):
                assert shown[(mode, (("x", ""),))] == 7
            for mode in ("all", "liveall"):
                assert shown[(mode, (("pid", str(pid)), ("x", "")))] == 7
            assert len(shown) == 11
        text = sqlmetrics_text()
        assert len(text) == len(set(text)) == 11
    finally:
        second.kill()
        second.close()
    assert value("requests_total", x="") == total
    assert value("livesum", x="") is None
    store.flush()
    names = "SELECT metric FROM samples GROUP BY metric, labels, pid, mode HAVING count(*) > 1"
    assert shell(names) == []


def sqlmetrics_text() -> list[str]:
    """The samples' names and labels of a scrape as they are exposed."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)
    lines = generate_latest(registry).decode().splitlines()
    return [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]


_IN_NAMESPACE = """
import json, os, sys
import sqlmetrics
from prometheus_client import Counter, Gauge
sqlmetrics.install(sys.argv[1], flush_interval=0.02)
requests = Counter("requests", "Requests")
busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
for line in sys.stdin:
    if line == "use\\n":
        requests.inc(10)
        busy.set(1)
    if line == "notice\\n":
        sqlmetrics.mark_process_dead(os.getpid() + 1)
        sqlmetrics.mark_process_dead(1)
        requests.inc(0)
        busy.set(1)
    print(json.dumps(os.getpid()), flush=True)
"""


class Container:
    """A process that is number 1 of a pid namespace of its own, as in a container."""

    def __init__(self, path: str):
        command = [sys.executable, "-c", _IN_NAMESPACE, path]
        self.process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, step: str) -> object:
        """Have it do a step; returns its pid as it sees it."""
        assert self.process.stdin
        assert self.process.stdout
        print(step, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def _has_namespaces() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(ctypes.CDLL(None).unshare(CLONE_NEWPID) != 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not _has_namespaces(), reason="pid namespaces need CAP_SYS_ADMIN")
def test_one_pid_in_two_namespaces_is_two_processes(path: str, shell) -> None:
    """Both are counted, neither is dead for the other, whatever it is told; and each one's end is seen outside."""
    sqlmetrics.install(path, flush_interval=0.02)
    with Container(path) as one, Container(path) as two:
        assert one.do("use") == two.do("use") == 1
        for step in ("use", "notice", "use"):
            one.do(step)
            two.do(step)
        sqlmetrics.mark_process_dead(1)  # init, by the name that both have

        assert value("requests_total") == 60
        assert value("busy") == 2
        wait_for(lambda: shell.value("SELECT count(*) FROM processes WHERE pid = '1' AND state = 'unsettled'") == 2)
        one.process.kill()
        one.process.wait()
        wait_for(lambda: value("busy") == 1)
        assert value("requests_total") == 60
        two.do("use")
        assert value("requests_total") == 70
    wait_for(lambda: value("busy") in (None, 0))
    assert value("requests_total") == 70
