"""Exemplars under interruptions, without room, and when files or rows are gone: nothing raises, nothing hangs."""

from __future__ import annotations

import itertools
import os
import signal
import threading

import pytest
from exemplified import App, quiet, stop_flusher, traces
from helpers import Shell, child, in_child, scrape, value, wait_for
from interruption import Interruption
from outsiders import Operator

import sqlmetrics
from sqlmetrics import values
from sqlmetrics.cells import journal, layout, part, writer
from sqlmetrics.client import binder
from sqlmetrics.rows import exemplars
from sqlmetrics.store import resets

pytestmark = pytest.mark.promise(4)

TRACED = (part, writer, binder, exemplars, journal, values)


@pytest.mark.slow
def test_an_observation_may_be_interrupted_at_every_line(path: str) -> None:
    """By a handler that observes with exemplars too: none waits for the other, and all are there after the flush."""
    store = quiet(path)
    store.flusher.stop()
    for line in itertools.count(1, 2):
        app = App()
        sqlmetrics.reset(force=True)
        app.count("known", "before")

        def handle(app: App = app) -> None:
            for who in ("known", "now", "new"):
                app.count(who, f"handler {who}")

        interruption = Interruption(line, TRACED, handle)
        with interruption.watching():
            app.count("known", "main")
            app.count("now", "main")
            app.observe(1.5, "main")
            store.part.tell_exemplars(0)
        app.count("now", "after")
        store.flush()
        found = traces()
        assert found.pop("known") in ("main", "handler known"), interruption.where
        expected = {"now": "after", "2.0": "main"} | ({"new": "handler new"} if interruption.where else {})
        assert found == expected, interruption.where
        if not interruption.where:
            break
    assert line > 100


def test_observations_in_signal_handlers_neither_hang_nor_raise(path: str) -> None:
    """In the middle of anything else: nothing hangs or raises, and every number is right."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    app = App()
    handled = itertools.count()
    before = signal.signal(signal.SIGALRM, lambda *_: app.count(f"signal {next(handled) % 20}", "handler"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
    try:
        for number in range(1500):
            app.count(f"main {number % 50}", str(number))
            app.observe(1.5, str(number))
            if number % 100 == 0:
                traces()
                store.flush()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    store.flush()
    found = traces()
    assert found["2.0"] == "1499"
    assert [found[f"main {number}"] for number in range(50)] == [str(1450 + number) for number in range(50)]
    by_handler = sum(count for (_, labels), count in scrape().items() if "signal" in str(labels))
    assert by_handler == next(handled) > 50


def test_the_newest_exemplar_of_eight_threads_is_one_that_was_given(path: str) -> None:
    """Eight at once on a few series, while the flusher runs: the newest of each is one that was given."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    app = App()

    def work(thread: int) -> None:
        for number in range(500):
            app.count(f"{number % 5}", f"{thread} {number}")

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert {int(trace.split()[1]) for trace in traces().values()} <= set(range(490, 500))
    assert sum(count for (name, _), count in scrape().items() if name == "requests_total") == 4_000


def test_exemplars_wait_in_memory_until_the_cells_file_has_room(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait in memory without a word, with the children that count there, and are told when there is room."""
    store = quiet(path)
    app = App()
    app.count("known", "a")
    with monkeypatch.context() as full:
        for region in (store.file.blocks, store.file.extents):
            full.setattr(region, "count", 0)
            full.setattr(region, "_take", lambda *_: False)
        for number in range(3_000):
            app.count("known", f"{number} {'x' * 100}")
            app.count(f"new {number}", "b")
        store.flush()
        assert value("requests_total", who="known") == 3_001
    store.flush()
    store.flush()
    found = traces()
    assert found["known"].startswith("2999 ")
    assert len(found) == 3_001
    assert value("requests_total", who="new 2999") == 1


def test_exemplars_leave_room_for_new_children_while_flushes_are_held_up(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program keeps the lock, exemplars leave the room of the journals to new children."""
    monkeypatch.setattr("sqlmetrics.cells.arenas.SHARE", layout.EXTENTS // 20)
    store = quiet(path)
    app = App()
    app.count("/", "first")
    store.flush()
    with Operator(path, "BEGIN IMMEDIATE"):
        for round_ in range(5):
            for number in range(300):
                app.count(f"/{number}", f"{round_} {'x' * 100}")
            store.part.tell_exemplars(0)
        (arena,) = store.part.arenas()
        assert store.file.extents.used() < 45
        assert arena.backlog() < 150_000
        assert value("requests_total", who="/299") == 5
    store.flush()
    store.flush()
    assert {trace[:2] for who, trace in traces().items() if who != "/"} == {"4 "}


def test_reset_drops_them(path: str, shell: Shell) -> None:
    """Those of the dead and those of the living, in rows, in journals and in memory."""
    store = quiet(path)
    app = App()
    with child(count=app.count, stop=stop_flusher(store)) as one:
        one.do("count", "dead", "a")
        one.kill()
    with child(count=app.count, flush=lambda: store.flush() and None) as one:
        one.do("count", "child", "a")
        one.do("flush")
        one.do("count", "child", "b")
        app.count("parent", "a")
        app.count("parent", "b")
        assert set(traces()) == {"dead", "child", "parent"}
        sqlmetrics.reset(force=True)
        assert traces() == {}
        assert shell("SELECT * FROM exemplar") == []
        one.do("flush")
        store.flush()
        assert traces() == {}
        one.do("count", "other", "c")
        app.requests.labels("parent").inc()
        one.do("flush")
        store.flush()
        assert traces() == {"other": "c"}


def test_a_launchers_reset_drops_exemplars_and_keeps_its_counts(path: str) -> None:
    """What it counts itself stays, but no exemplar of any process does."""
    store = quiet(path)
    app = App()
    app.requests.labels("shared").inc()
    with child(count=app.count) as one:
        one.do("count", "shared", "a")
        one.kill()
    assert traces() == {"shared": "a"}
    resets.begin_at_zero(store)
    assert traces() == {}
    assert in_child(traces) == {}
    assert value("requests_total", who="shared") == 1


@pytest.mark.parametrize("lost", [("",), ("-cells",), ("", "-wal", "-shm", "-cells")], ids=" ".join)
def test_exemplars_of_living_processes_are_in_the_new_files(path: str, lost: tuple[str, ...]) -> None:
    """What living processes have is in the new files, and so is what of the old ones can be read."""
    store = quiet(path)
    app = App()
    with child(count=app.count) as one:
        one.do("count", "dead", "a")
        one.kill()
    app.count("living", "b")
    store.flush()
    app.count("living", "c")
    app.observe(0.5, "d")
    for suffix in lost:
        os.unlink(path + suffix)
    for _ in range(4):
        store.flush()
    assert value("requests_total", who="dead") == 1  # from the connection that was open
    assert traces() == {"dead": "a", "living": "c", "1.0": "d"}


NONSENSE = {
    "no labels": "UPDATE exemplar SET labels = '[1]'",
    "a label that is a number": """UPDATE exemplar SET labels = '{"trace":1}'""",
    "no JSON": "PRAGMA ignore_check_constraints = ON; UPDATE exemplar SET labels = '{'",
    "no series": "PRAGMA foreign_keys = OFF; INSERT INTO exemplar VALUES (99999, '{}', 1.0, 1.0, 1)",
}


@pytest.mark.parametrize("statement", NONSENSE.values(), ids=NONSENSE)
def test_a_check_drops_damaged_exemplars_and_keeps_the_counts(
    path: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check finds them; what ended processes have counted is not lost with them."""
    monkeypatch.setattr("sqlmetrics.rows.checkup.SECONDS", 0.05)
    monkeypatch.setattr("sqlmetrics.rows.checkup.SHARE", 1.0)
    store = sqlmetrics.install(path, flush_interval=0.02)
    app = App()
    with child(count=app.count) as one:
        one.do("count", "dead", "a")
        one.kill()
    app.count("living", "b")
    store.flush()
    damaged = store.file
    with Operator(path) as operator:
        operator.run(*statement.split("; "))
    wait_for(lambda: store.file is not damaged)
    app.count("living", "c")
    wait_for(lambda: store.flush() and traces(path).get("living") == "c")
    assert value("requests_total", who="dead") == 1
    assert value("requests_total", who="living") == 2
