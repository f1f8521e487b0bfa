"""Thousands of new label sets at once, in several processes: they are rows soon, each once, and nobody is held up."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from apps.serving import APPS, serving
from forking import in_a_thread, timed_fork
from helpers import Shell, child, flush_all, scrape, unflushed, wait_for
from prometheus_client import Counter, Histogram

import sqlmetrics
from sqlmetrics.process import waits
from sqlmetrics.rows import slices
from sqlmetrics.store import flush

pytestmark = pytest.mark.promise(10)

MANY = 3000
COUNTED = "SELECT count(*) AS series, total(value) AS value FROM samples WHERE metric = 'visits_total'"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many slices for little work."""
    monkeypatch.setattr(slices, "PORTION", 4096)
    monkeypatch.setattr(slices, "SECONDS", 0)
    monkeypatch.setattr(flush, "_BLOCKS_AT_ONCE", 1)
    monkeypatch.setattr(slices, "leave_turn", slices.leave_turn)  # the tests replace it


def busily(seconds: float) -> None:
    """Compute, and leave the interpreter's lock to others every 5 ms only."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def make(visits: Counter, who: str, many: int = MANY) -> float:
    """New label sets; returns what they have counted."""
    for number in range(many):
        visits.labels(f"{who}/{number}").inc(number)
    return sum(range(many))


@pytest.mark.slow
def test_rows_of_a_burst_in_four_processes_are_complete_and_exact(path: str, shell: Shell) -> None:
    """Some label sets are of one process, others of all; the processes compute meanwhile."""
    sqlmetrics.install(path)
    visits = Counter("visits", "Visits", ["user"])

    def burst(who: str) -> None:
        make(visits, who)
        make(visits, "everybody", 500)
        busily(1)

    with child(burst=burst) as one, child(burst=burst) as two, child(burst=burst) as three, child(burst=burst) as four:
        crew = [one, two, three, four]
        orders = [threading.Thread(target=each.do, args=("burst", str(each.pid))) for each in crew]
        for order in orders:
            order.start()
        for order in orders:
            order.join()
        rows, value = 4 * (MANY + 500), 4 * (sum(range(MANY)) + sum(range(500)))

        wait_for(lambda: shell(COUNTED) == [{"series": rows, "value": value}])
        assert shell.value("SELECT count(DISTINCT labels) FROM samples WHERE metric = 'visits_total'") == 4 * MANY + 500
        assert shell.value("SELECT count(*) FROM processes WHERE behind > 0") == 0
        shown = {labels: number for (name, labels), number in scrape(path).items() if name == "visits_total"}
        assert (len(shown), sum(shown.values())) == (4 * MANY + 500, value)


@pytest.mark.slow
def test_rows_of_a_burst_in_gunicorns_workers_are_complete_and_exact(folder: Path, path: str, shell: Shell) -> None:
    """Each worker computes on, and then they are all killed."""
    with serving(folder, "exploding:app", "-w", "2", "--chdir", str(APPS), SQLMETRICS_PATH=path) as server:
        crew = {one.worker for one in server.get_all([f"/burst?{MANY}"] * 4)}
        value = sum(range(MANY)) * 4
        wait_for(lambda: shell.value(f"SELECT value FROM ({COUNTED})") == value)
        assert shell.value(f"SELECT series FROM ({COUNTED})") == MANY * len(crew)
        for worker in crew:
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: all(f"(pid:{worker})" in server.log() for worker in crew))
        text = server.get("/metrics").text
        assert sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("visits_total{")) == value
        assert shell(COUNTED) == [{"series": MANY * len(crew), "value": value}]


@pytest.mark.parametrize("where", ["between two slices", "in the middle of one", "before the values"])
def test_a_process_killed_in_the_middle_of_its_flush_is_counted_once(
    small: None, path: str, shell: Shell, where: str
) -> None:
    """What is rows by then is not told twice, and what is not is read from its journal."""
    store = unflushed(path)
    visits = Counter("visits", "Visits", ["user"])

    def flush_until_killed() -> None:
        unflushed(path)
        make(visits, "one", 500)
        left = [3]

        def step(original: Callable[..., object]) -> Callable[..., object]:
            def stepping(*arguments: object, **named: object) -> object:
                left[0] -= 1
                result = original(*arguments, **named)
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return stepping

        if where == "between two slices":
            slices.leave_turn = step(slices.leave_turn)  # type: ignore[assignment]
        elif where == "in the middle of one":
            slices.ingest = step(slices.ingest)  # type: ignore[assignment]
        else:
            left[0] = 1
            flush._write = step(lambda *_: None)
        sqlmetrics.install().flush()

    with child(flush=flush_until_killed) as one:
        with pytest.raises(AssertionError, match="failed in flush"):
            one.do("flush")
        rows = shell.value("SELECT count(*) FROM samples WHERE metric = 'visits_total'")
        assert 0 < int(str(rows)) < (501 if where == "before the values" else 500)
        assert shell.value("SELECT count(*) FROM instance WHERE partial") == 1
        one.kill()

        assert sum(scrape(path).values()) == sum(range(500))
        store.flush()
    assert shell(COUNTED) == [{"series": 500, "value": sum(range(500))}]
    assert shell.value("SELECT count(*) FROM samples WHERE pid IS NOT NULL") == 0


def noting_slices(reached: Callable[[], object]) -> list[float]:
    """Have this process note when each of its slices was done, and say when there were three."""
    leave, done = slices.leave_turn, list[float]()

    def leaving() -> None:
        done.append(time.monotonic())
        if len(done) == 3:
            reached()
        leave()

    slices.leave_turn = leaving
    return done


@pytest.mark.slow
def test_others_get_their_turn_in_the_middle_of_a_flush(small: None, path: str, shell: Shell) -> None:
    """A removal, and another process's flush: both are done when the one that has much to write has slices left."""
    store = unflushed(path)
    wide = Histogram("wide", "Wide", ["of"], buckets=range(300))  # many blocks of cells
    visits = Counter("visits", "Visits", ["user"])
    visits.labels("gone").inc()
    visits.labels("stays").inc()
    store.flush()
    reading, writing = os.pipe()

    def touch() -> str:
        unflushed(path)
        for number in range(60):
            wide.labels(str(number)).observe(1)
        return sqlmetrics.install().flush().name

    def flush_slowly() -> float:
        done = noting_slices(lambda: os.write(writing, b"!"))
        touch()
        assert len(done) > 20
        return done[-1]

    with child(touch=touch, slowly=flush_slowly) as one:
        unflushed(path)  # the fork has allowed a flusher again
        assert one.do("touch") == "DONE"
        with in_a_thread(lambda: one.do("slowly")) as ended:
            poll = select.poll()  # select() takes no descriptor beyond 1,023
            poll.register(reading, select.POLLIN)
            assert poll.poll(20_000), "it has no three slices"
            visits.remove("gone")
            removed = time.monotonic()
            visits.labels("stays").inc()
            assert store.flush() is flush.Outcome.DONE
            flushed = time.monotonic()
        (last,) = ended
        assert removed < flushed < last  # type: ignore[operator]
    assert shell("SELECT labels, value FROM metrics WHERE metric = 'visits_total'") == [
        {"labels": '{"user":"stays"}', "value": 2}
    ]
    assert scrape(path)["wide_count", (("of", "7"),)] == 2


def test_a_removal_that_would_have_to_wait_for_a_burst_is_left_to_the_flusher(
    small: None, path: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First all that was announced has to become rows; what was removed is gone after the next flush."""
    store = unflushed(path)
    visits = Counter("visits", "Visits", ["user"])
    visits.labels("one/7").inc()
    store.flush()

    def burst() -> float:
        unflushed(path)
        return make(visits, "one", 500)

    with child(burst=burst) as one:
        value = one.do("burst")
        unflushed(path)
        with monkeypatch.context() as patched:
            patched.setattr(waits, "CALL", 0.0)
            visits.remove("one/7")
        assert store.rounds.remover.has_work()
        assert store.flush() is flush.Outcome.DONE
        assert not store.rounds.remover.has_work()
        assert value == sum(range(500))
        assert shell.value("SELECT count(*) FROM samples WHERE labels LIKE '%one/7\"%'") == 0
        assert sum(scrape(path).values()) == sum(range(500)) - 7


@pytest.mark.slow
def test_a_fork_in_the_middle_of_a_flush_waits_for_a_slice_at_most(small: None, path: str, shell: Shell) -> None:
    """The child finds no connection open, and the flush goes on afterwards."""
    store = unflushed(path)
    visits = Counter("visits", "Visits", ["user"])
    value = make(visits, "one")
    begun = threading.Event()
    done = noting_slices(begun.set)
    with in_a_thread(store.flush) as ended:
        assert begun.wait(20)
        assert timed_fork(path) < 1.5
        assert not ended
        at_fork = len(done)
    assert ended == [flush.Outcome.DONE]
    assert len(done) > at_fork + 10
    assert shell(COUNTED) == [{"series": MANY, "value": value}]


@pytest.mark.parametrize("of", ["journal", "values"])
@pytest.mark.slow
def test_a_flush_begins_again_when_the_files_are_replaced_between_two_slices(
    small: None, path: str, shell: Shell, of: str
) -> None:
    """The flush begins again, with the new files."""
    store = unflushed(path)
    visits = Counter("visits", "Visits", ["user"])
    wide = Histogram("wide", "Wide", ["of"], buckets=range(300))
    value = make(visits, "one", 1000)
    for number in range(60):
        wide.labels(str(number)).observe(1)
    left = [3]

    def replacing() -> None:
        left[0] -= (of == "values") != store.part.arenas()[0].has_news()
        if left[0] == 0:
            left[0] = -1
            for suffix in ("", "-wal", "-shm", "-cells"):
                os.unlink(path + suffix)
            wait_for(lambda: store.follower.follow() and os.path.exists(path))

    slices.leave_turn = replacing
    flush_all(store)
    assert left[0] < 0
    assert not store.trouble.counts.get("flush")
    assert shell(COUNTED) == [{"series": 1000, "value": value}]
    assert shell.value("SELECT total(value) FROM metrics WHERE metric = 'wide_count'") == 60


def test_a_view_says_how_far_the_rows_are_behind(small: None, path: str, shell: Shell) -> None:
    """Nothing before the first flush; since the last whole one while a flush has written a part; 0 else, also later."""
    store = unflushed(path)
    visits = Counter("visits", "Visits", ["user"])
    found: list[dict[str, object]] = []
    slices.leave_turn = lambda: found.extend(shell("SELECT flushed, behind FROM processes"))

    make(visits, "one", 100)
    store.flush()
    assert found[0]["flushed"] is None
    assert all(float(str(row["behind"])) > 0 for row in found)
    (row,) = shell("SELECT flushed, behind, flushed >= started AS is_later FROM processes")
    assert row["behind"] == 0
    assert row["is_later"] == 1
