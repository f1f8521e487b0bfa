"""Removals that are disturbed: removers are killed, the store is locked, processes are stopped or forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from helpers import child, flush_all, in_child, value, wait_for
from prometheus_client import Counter, Gauge

import sqlmetrics
from sqlmetrics.cells import marks
from sqlmetrics.rows import removal

pytestmark = pytest.mark.promise(4)


def _kill_in(where: object, name: str, *, after: bool) -> Callable[[], None]:
    """Have this process die before or after the next call of a function."""

    def arm() -> None:
        inside = getattr(where, name)

        def fatal(*args: object, **kwargs: object) -> object:
            result = inside(*args, **kwargs) if after else None
            os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(where, name, fatal)

    return arm


@pytest.mark.parametrize(
    ("where", "name", "after", "is_removed"),
    [
        (removal, "note_cells", False, False),
        (removal, "note_cells", True, False),
        (marks, "set_mark", False, True),
        (marks, "set_mark", True, True),
        (sqlmetrics.cells.cellsfile.CellsFile, "notify", False, True),
        (sqlmetrics.cells.cellsfile.CellsFile, "notify", True, True),
    ],
)
def test_a_remover_that_is_killed_leaves_all_or_nothing(
    path: str, shell, where: object, name: str, after: bool, is_removed: bool
) -> None:
    """Before the COMMIT, before, in and after the marks: the others go on with what the rows say."""
    # The others have nothing to flush at that moment: else they may bring the marks before the remover does.
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["path"])
    held = requests.labels("/")

    def die() -> None:
        requests.labels("/").inc(3)
        _kill_in(where, name, after=after)()
        requests.remove("/")

    def count() -> None:
        held.inc()
        flush_all(store)

    with child(count=count, rest=lambda: store.flusher.stop()) as holder, child(die=die) as remover:
        holder.do("count")
        holder.do("rest")
        held.inc(100)
        flush_all(store)
        store.flusher.stop()
        with pytest.raises(AssertionError, match="failed in die"):
            remover.do("die")
        os.waitpid(remover.pid, 0)
        store.flush()
        holder.do("count")
        held.inc()
        store.flush()

        assert value("requests_total", path="/") == (2 if is_removed else 106)
        assert shell("SELECT * FROM removed") == []
        holder.kill()
        assert value("requests_total", path="/") == (2 if is_removed else 106)


# --- when it cannot be done at once --------------------------------------------------------------------------------

_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def _locker(path: str) -> subprocess.Popen[str]:
    locker = subprocess.Popen(
        [sys.executable, "-c", _LOCK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert locker.stdout is not None
    assert locker.stdout.readline() == "locked\n"
    return locker


@pytest.mark.slow
def test_a_locked_store_delays_a_removal(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """It does not raise; what this process counts meanwhile stays, and the log has one line."""
    caplog.set_level("INFO", "sqlmetrics")
    sqlmetrics.install(path, flush_interval=0.05)
    requests = Counter("requests", "Requests", ["path"])

    def count() -> None:
        for one in "abc":
            requests.labels(one).inc(5)

    with child(count=count) as one:
        one.do("count")
        count()
        locker = _locker(path)
        for label in "abc":
            requests.remove(label)
        requests.labels("a").inc(2)
        locker.communicate("\n")

        wait_for(lambda: any("series are gone" in record.message for record in caplog.records))
        assert value("requests_total", path="b") is None
        assert value("requests_total", path="a") == 2
        assert value("requests_total", path="c") is None
        one.do("count")
        assert value("requests_total", path="a") == 7
    assert sum("cannot go yet" in record.message for record in caplog.records) == 1


@pytest.mark.slow
def test_a_forked_child_does_not_inherit_what_waits(path: str) -> None:
    """Else it would remove what is made later."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()
    locker = _locker(path)
    requests.remove("/")

    assert in_child(lambda: sqlmetrics.install(path).rounds.has_notices()) is False
    locker.communicate("\n")
    wait_for(lambda: value("requests_total", path="/") is None)


def test_a_removal_in_a_signal_handler_in_the_middle_of_a_flush_does_not_hang(store: sqlmetrics.Store) -> None:
    """It waits for the flush that it has interrupted, without a deadlock."""
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()
    before = signal.signal(signal.SIGUSR1, lambda *_: requests.remove("/"))
    try:
        with store.writing():
            signal.raise_signal(signal.SIGUSR1)
            assert value("requests_total", path="/") == 1
        with store.part.binding():
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    store.flush()

    assert value("requests_total", path="/") is None


def test_a_stopped_process_loses_what_was_removed(store: sqlmetrics.Store) -> None:
    """It is marked while it is not running, and begins anew when it goes on."""
    requests = Counter("requests", "Requests", ["path"])

    with child(count=lambda: requests.labels("/").inc(5)) as one:
        one.do("count")
        os.kill(one.pid, signal.SIGSTOP)
        os.waitpid(one.pid, os.WUNTRACED)
        requests.remove("/")
        assert value("requests_total", path="/") is None
        os.kill(one.pid, signal.SIGCONT)
        one.do("count")

        assert value("requests_total", path="/") == 5


def test_a_removed_child_that_is_in_memory_only_is_forgotten(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child for which there was no room."""
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/other").inc()

    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sqlmetrics.cells.arenas.SharedArena, "allocate", no_room)
        held = requests.labels("/")
        held.inc(5)
        requests.remove("/")
        held.inc(2)
    store.flush()

    assert value("requests_total", path="/") == 2


# --- nothing is left -----------------------------------------------------------------------------------------------


def test_other_processes_drop_the_child_objects(path: str) -> None:
    """With the next flush, unless the child was used again."""
    sqlmetrics.install(path, flush_interval=0.05)
    requests = Counter("requests", "Requests", ["path"])

    def count() -> None:
        requests.labels("/").inc()
        requests.labels("/used").inc()

    with child(count=count, use=lambda: requests.labels("/used").inc(), show=lambda: sorted(requests._metrics)) as one:
        one.do("count")
        requests.clear()
        one.do("use")

        wait_for(lambda: one.do("show") == [["/used"]])
        assert value("requests_total", path="/used") == 1


def test_a_forked_child_does_not_bring_a_removed_gauge_back(store: sqlmetrics.Store) -> None:
    """Every process shows the gauges that it has inherited at zero, but not those that are gone."""
    depth = Gauge("depth", "Depth", ["queue"], multiprocess_mode="sum")
    events = Counter("events", "Events")
    for queue in "ab":
        depth.labels(queue).set(3)

    with child(work=events.inc) as one:
        depth.remove("a")
        one.do("work")
        assert value("depth", queue="a") is None
    in_child(events.inc)
    assert value("depth", queue="a") is None
    assert value("depth", queue="b") == 3


@pytest.mark.parametrize("whole", [True, False])
def test_a_gauge_that_a_forked_child_removes_is_not_its_own_a_moment_later(
    store: sqlmetrics.Store, *, whole: bool
) -> None:
    """Also where it removes it before any operation, and so before it has what it inherits."""
    depth = Gauge("depth", "Depth", ["queue"], multiprocess_mode="sum")
    asked = Gauge("asked", "Asked", ["queue"], multiprocess_mode="sum")
    events = Counter("events", "Events")
    depth.labels("a").set(3)
    asked.labels("a").set_function(lambda: 5)
    store.flush()

    def remove() -> None:
        for gauge in (depth, asked):
            if whole:
                gauge.remove("a")
            else:
                gauge.clear()
        events.inc()

    with child(remove=remove, flush=lambda: store.flush().name) as one:
        one.do("remove")
        assert one.do("flush") != "FAILED"

        assert value("events_total") == 1
        assert value("depth", queue="a") is None
        assert value("asked", queue="a") is None


def test_a_removal_that_meets_a_pid_used_again_leaves_nothing_of_the_first(path: str, shell) -> None:
    """It makes rows of journals, and so of the second process with that pid, without SQLite's checks of references."""
    names: list[str] = []
    store = sqlmetrics.install(path, flush_interval=1000, process_identifier=lambda: names[0] if names else "parent")
    level = Gauge("level", "Level", multiprocess_mode="all")
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()

    def use() -> None:
        names.append("a")
        level.set(1)
        requests.labels("/").inc()

    with child(use=use) as first:
        first.do("use")
    store.flush()
    assert shell.value("SELECT count(*) FROM kept") == 1

    with child(use=use) as second:
        second.do("use")
        requests.remove("/")

        assert shell("PRAGMA foreign_key_check") == []
        assert shell.value("SELECT count(*) FROM kept") == 0
        assert value("level", pid="a") == 1
