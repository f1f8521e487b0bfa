"""A wrong death notice: the process lives, and its next operation brings it back; nothing else is damaged."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from helpers import Shell, child, value
from interruption import Interruption
from prometheus_client import Counter, Gauge

import sqlmetrics
from sqlmetrics.cells import arenas

pytestmark = pytest.mark.promise(3)

LIVE = ("liveall", "livemin", "livemax", "livesum", "livemostrecent")


class App:
    """A counter, and a gauge of a live mode."""

    def __init__(self, mode: str):
        self.mode = mode
        self.requests = Counter("requests", "Requests")
        self.busy = Gauge("busy", "Busy", ["at"], multiprocess_mode=mode)  # nobody's but who uses it

    def use(self) -> None:
        """Count once."""
        self.requests.inc()
        self.busy.labels("work").set(4)

    def shown(self, pid: int) -> float | None:
        """The gauge of that process, which is the only one that has set it."""
        return value("busy", at="work", **({"pid": str(pid)} if self.mode == "liveall" else {}))


@pytest.mark.parametrize("mode", LIVE)
@pytest.mark.parametrize("by", ["another", "itself", "a sibling"])
def test_a_process_that_was_declared_dead_comes_back_with_its_next_operation(path: str, mode: str, by: str) -> None:
    """At its next operation, whoever was wrong about it, and however often."""
    store = sqlmetrics.install(path, flush_interval=1000)
    app = App(mode)
    with (
        child(use=app.use, mark=sqlmetrics.mark_process_dead, quiet=lambda: store.flusher.stop()) as one,
        child(mark=sqlmetrics.mark_process_dead) as sibling,
    ):
        one.do("quiet")  # its flusher counts its own work at times, which is an operation
        mark = {"another": sqlmetrics.mark_process_dead, "itself": lambda pid: one.do("mark", pid)}
        for round_ in range(1, 4):
            one.do("use")
            assert app.shown(one.pid) == 4
            mark.get(by, lambda pid: sibling.do("mark", pid))(one.pid)
            mark.get(by, lambda pid: sibling.do("mark", pid))(str(one.pid))
            assert app.shown(one.pid) is None
            assert value("requests_total") == round_
        one.do("use")
        assert app.shown(one.pid) == 4
        assert value("requests_total") == 4


def test_a_stopped_process_that_was_declared_dead_comes_back(path: str) -> None:
    """It goes on as if nothing had been."""
    store = sqlmetrics.install(path, flush_interval=1000)
    app = App("livesum")
    with child(use=app.use, rest=lambda: (store.flusher.stop(), None)[1]) as one:
        one.do("use")
        one.do("rest")  # stopped in the middle of a flush it would keep the others from writing
        os.kill(one.pid, signal.SIGSTOP)
        sqlmetrics.mark_process_dead(one.pid)
        assert value("busy", at="work") is None
        os.kill(one.pid, signal.SIGCONT)
        one.do("use")
        assert (value("busy", at="work"), value("requests_total")) == (4, 2)


@pytest.mark.parametrize("pid", [2**22 + 1, 0, -1, "web-1", "", None, 1.5, "'; DROP TABLE sample; --"])
def test_a_notice_for_an_unknown_process_changes_nothing(path: str, shell: Shell, pid: object) -> None:
    """Nobody by that name: nothing happens to anybody."""
    store = sqlmetrics.install(path, flush_interval=1000)
    app = App("livesum")
    app.use()
    store.flush()
    for _ in range(2):
        sqlmetrics.mark_process_dead(pid)
    sqlmetrics.mark_process_dead(pid, path)
    assert (value("busy", at="work"), value("requests_total")) == (4, 1)
    assert shell.value("SELECT count(*) FROM samples") == 2


def test_a_right_notice_is_seen_by_the_shell(path: str, shell: Shell) -> None:
    """At once: that is what the notice is for."""
    store = sqlmetrics.install(path, flush_interval=1000)
    app = App("liveall")
    with child(use=app.use) as one:
        one.do("use")
        store.flush()
        one.kill()
        sqlmetrics.mark_process_dead(one.pid)
    assert shell("SELECT metric, pid, value FROM samples WHERE value <> 0") == [
        {"metric": "requests_total", "pid": None, "value": 1.0}
    ]


def test_a_notice_in_the_middle_of_the_answer_to_another_one_is_not_lost(path: str) -> None:
    """The first one tells of a removal, the second one of a death. Its gauge is back in any case."""
    store = sqlmetrics.install(path, flush_interval=1000)
    app, others = App("livesum"), Counter("others", "Others", ["of"])
    (asked, ask), (answered, answer) = os.pipe(), os.pipe()

    def use(of: str, line: int) -> str:
        """Use both; at that line of the arena's, the other process takes this one for dead."""
        notice = Interruption(line, [arenas], lambda: (os.write(ask, b"x"), os.read(answered, 1)))
        with notice.watching():
            app.use()
        if not notice.where:
            os.write(ask, b" ")
        others.labels(of).inc()
        app.use()
        return notice.where

    def mark(pid: int) -> None:
        if os.read(asked, 1) == b"x":
            sqlmetrics.mark_process_dead(pid)
            os.write(answer, b"x")

    with child(use=use, rest=lambda: store.flusher.stop()) as one:
        one.do("use", "0", 0)
        os.read(asked, 1)
        one.do("rest")
        for line in range(1, 60):
            others.remove(f"{line - 1}")
            marking = threading.Thread(target=mark, args=(one.pid,))
            marking.start()
            where = one.do("use", f"{line}", line)
            marking.join(20)
            assert app.shown(one.pid) == 4, where
            if not where:
                break
        assert line > 20
