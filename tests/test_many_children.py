"""A process with very many children: no operation waits for work that visits each of them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import FILES, Child, Shell, child, delete, scrape, unflushed, value, wait_for
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.cells import part
from sqlmetrics.cells.region import NoRoomError, Region
from sqlmetrics.store.flusher import Outcome

pytestmark = pytest.mark.promise(4, 10)

CHILDREN = 300


class Gate:
    """Stops whoever moves children, each time that others may have the lock, until it is told to go on."""

    def __init__(self, after: int):
        self._after = after
        self._breaks = 0
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self._breaks += 1
        if self._breaks == self._after:
            self.reached.set()
            assert self.opened.wait(30)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Gate]:
    """Makes a gate that is reached when so many children have moved, each in a slice of its own."""
    monkeypatch.setattr(part, "_SLICE_SECONDS", 0.0)

    def close(after: int) -> Gate:
        gate = Gate(after)
        monkeypatch.setattr(part, "take_break", gate)
        return gate

    return close


@contextmanager
def beside(store: sqlmetrics.Store, **steps: Callable[..., object]) -> Iterator[Child]:
    """A child; also from now on this process is flushed only where the test says so."""
    with child(**steps) as one:
        store.flusher.stop()
        yield one


def counted(requests: Counter, count: int = CHILDREN) -> list[Any]:
    """Children of a counter, one counted in each."""
    children = [requests.labels(f"/{number}") for number in range(count)]
    for one in children:
        one.inc()
    return children


@contextmanager
def going_over(store: sqlmetrics.Store, gate: Gate) -> Iterator[threading.Thread]:
    """Another thread that goes over to new files, and is in the middle of it; it is done at the end."""
    mover = threading.Thread(target=lambda: wait_for(lambda: store.follower.follow() and not store.part.is_moving()))
    mover.start()
    try:
        assert gate.reached.wait(30)
        assert store.part.is_moving()
        yield mover
    finally:
        gate.opened.set()
        mover.join(60)
    assert not mover.is_alive()
    assert not store.part.is_moving()


def total(path: str) -> float:
    """The sum of all series, as another process sees it in the rows."""
    return float(str(Shell(path).value("SELECT sum(value) AS total FROM metrics WHERE metric = 'requests_total'")))


def calls_of(action: Callable[[], object]) -> int:
    """How many functions are called while this thread does something."""
    calls = [0]

    def note(_: object, event: str, __: object) -> None:
        calls[0] += event == "call"

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls[0]


def test_operations_go_on_while_children_move_to_new_files(path: str, slow: Callable[[int], Gate]) -> None:
    """On a child that has moved, on one that has not, and on a new one; each counts once."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])
    children = counted(requests)
    store.flush()
    delete(path)
    gate = slow(CHILDREN // 2)

    with going_over(store, gate):
        for one in children:
            one.inc()
        requests.labels("/new").inc()
        assert not gate.opened.is_set()

    assert scrape()[("requests_total", (("path", "/7"),))] == 2
    assert sum(scrape().values()) == 2 * CHILDREN + 1
    store.flush()
    assert total(path) == 2 * CHILDREN + 1


def test_threads_that_count_during_a_move_are_exact(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count in children of every kind while the files are deleted twice, and an idle process reads the sum."""
    monkeypatch.setattr(part, "_SLICE_SECONDS", 0.0005)
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests, latency = Counter("requests", "Requests", ["path"]), Histogram("latency", "Latency", ["path"])
    children = counted(requests, 2000)
    timed = [latency.labels(f"/{number}") for number in range(200)]
    done, rounds = threading.Event(), [0, 0, 0]

    def work(which: int) -> None:
        while not done.is_set():
            children[(rounds[which] * 37) % len(children)].inc()
            timed[rounds[which] % len(timed)].observe(0.5)
            rounds[which] += 1

    threads = [threading.Thread(target=work, args=[which]) for which in range(len(rounds))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            before = store.file.identity
            delete(path)
            wait_for(lambda before=before: store.file.identity != before and not store.part.is_moving())
    finally:
        done.set()
        for thread in threads:
            thread.join()

    wait_for(store.follower.follow)
    store.flush()
    with child(read=lambda: [total(path), value("requests_total", path="/1")]) as other:
        assert other.do("read") == [2000 + sum(rounds), children[1]._value.get()]
    assert sum(one._sum.get() for one in timed) == 0.5 * sum(rounds)


def test_files_that_change_again_during_a_move_lose_nothing(path: str, slow: Callable[[int], Gate]) -> None:
    """Some children are in the new files by then, and the others still in the old ones."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])
    children = counted(requests)
    store.flush()
    delete(path)
    gate = slow(CHILDREN // 2)

    with going_over(store, gate):
        children[0].inc()
        children[-1].inc()
        delete(path)
    wait_for(lambda: store.follower.follow() and not store.follower.is_behind())
    children[0].inc()

    assert store.flush() is Outcome.DONE
    assert sum(scrape().values()) == total(path) == CHILDREN + 3


def test_a_fork_during_a_move_counts_for_itself(path: str, slow: Callable[[int], Gate]) -> None:
    """The child begins at zero, and the parent goes on moving."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])
    children = counted(requests)
    store.flush()
    delete(path)
    gate = slow(CHILDREN // 2)

    with going_over(store, gate), child(use=lambda: [one.inc(10) for one in children[:5]] and None) as other:
        other.do("use")
        gate.opened.set()
        wait_for(lambda: not store.part.is_moving())
        assert sum(scrape().values()) == CHILDREN + 50
        other.kill()

    assert sum(scrape().values()) == CHILDREN + 50


def test_a_kill_during_a_move_leaves_what_was_in_rows(path: str, slow: Callable[[int], Gate]) -> None:
    """No series shows less than the last flush has written, be its child among those that have moved or not."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])

    def work() -> None:
        children = counted(requests)
        store.flush()
        for one in children:
            one.inc()
        delete(path, ("-cells",))
        gate = slow(CHILDREN // 2)
        threading.Thread(target=lambda: wait_for(store.follower.follow)).start()
        assert gate.reached.wait(30)

    with child(work=work) as other:
        other.do("work")
        other.kill()
    wait_for(lambda: store.follower.follow() and os.path.exists(path + "-cells"))

    shown = [number for (name, _), number in scrape().items() if name == "requests_total"]
    assert len(shown) == CHILDREN
    assert set(shown) <= {1, 2}


def test_children_in_memory_come_to_the_file_one_by_one(
    path: str, slow: Callable[[int], Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When there is room again; operations go on meanwhile, and where the room ends again the rest stays in memory."""
    store, requests, room = unflushed(path), Counter("requests", "Requests", ["path"]), [0]
    claim = Region.claim

    def claim_if_room(self: Region, slot: int) -> int:
        if room[0] <= 0:
            raise NoRoomError("no room")
        room[0] -= 1
        return claim(self, slot)

    monkeypatch.setattr(Region, "claim", claim_if_room)
    children = counted(requests)
    assert scrape() == {}
    room[0] = 5  # for a journal of three extents
    store.part.move_in()
    some = sum(scrape().values())
    assert 0 < some < CHILDREN
    for one in children:
        one.inc()
    assert sum(scrape().values()) == 2 * some

    room[0] = 1000
    gate = slow(10)
    mover = threading.Thread(target=store.part.move_in)
    mover.start()
    assert gate.reached.wait(30)
    for one in children:
        one.inc()
    assert store.part.is_moving() or not gate.opened.is_set()
    gate.opened.set()
    mover.join(60)

    assert sum(scrape().values()) == 3 * CHILDREN
    store.flush()
    assert total(path) == 3 * CHILDREN


def test_a_removal_of_others_costs_an_operation_no_more_for_more_children(path: str) -> None:
    """The functions that are called in it are counted: as many for 50 children as for 5,000."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])
    calls = []
    with beside(store, remove=lambda which: requests.remove(which)) as other:
        for size in (50, 5000):
            children = counted(requests, size)
            store.flush()
            other.do("remove", f"/{size - 1}")
            wait_for(lambda: store.part.arenas()[0].is_noticed())
            calls.append(calls_of(children[0].inc))
            assert value("requests_total", path=f"/{size - 1}") is None
            store.flush()

    assert 0 < calls[1] < calls[0] + 5000


def test_a_clear_by_another_process_is_noticed_in_slices(path: str) -> None:
    """An operation forgets a few children for all, each its own, and the flusher the others; none counts on."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])
    calls = []
    with beside(store, clear=requests.clear) as other:
        for size in (1000, 6000):
            children = counted(requests, size)
            store.flush()
            other.do("clear")
            wait_for(lambda: store.part.arenas()[0].is_noticed())
            calls.append(calls_of(children[-1].inc))
            for one in children[-10:]:
                one.inc()
            assert sum(number for (name, _), number in scrape().items() if name == "requests_total") == 11
            store.flush()
            assert len(store.part.children_of("requests")) == 10
            children[0].inc()
            assert sum(number for (name, _), number in scrape().items() if name == "requests_total") == 12

    assert 0 < calls[1] < calls[0] + 500


def test_files_that_change_after_a_clear_bring_nothing_back(path: str) -> None:
    """What another process has removed, and this one has not forgotten yet, does not move to new files."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])
    with beside(store, clear=requests.clear) as other:
        children = counted(requests, 1000)
        store.flush()
        other.do("clear")
        wait_for(lambda: store.part.arenas()[0].is_noticed())
        children[0].inc()
        other.kill()
    delete(path)
    wait_for(lambda: store.follower.follow() and not store.follower.is_behind())
    store.flush()

    assert {number for (name, _), number in scrape().items() if name == "requests_total"} == {1}
    assert total(path) == 1


def test_a_fork_brings_some_inherited_gauges_at_once_and_the_others_soon(path: str) -> None:
    """With its first operation as many functions are called for 500 gauges as for 5,000; all are shown in the end."""
    store, busy = unflushed(path), Gauge("busy", "Busy", ["of"], multiprocess_mode="liveall")
    seen = []
    for size in (500, 5000):
        for number in range(size):
            busy.labels(f"{number}").set(1)

        def work() -> list[int]:
            calls = calls_of(busy.labels("0").inc)
            store.part.move_in()
            mine = [number for (_, labels), number in scrape().items() if ("pid", str(os.getpid())) in labels]
            return [calls, len(mine), int(sum(mine))]

        with child(work=work) as other:
            seen.append(other.do("work"))

    (few, *shown), (many, *shown_of_many) = seen  # type: ignore[misc]
    assert 0 < many < few + 500
    assert (shown, shown_of_many) == ([500, 1], [5000, 1])


def test_a_wrong_notice_of_death_costs_an_operation_no_more_for_more_gauges(path: str) -> None:
    """The first operation announces some of them again, and its process's flusher the others."""
    store, busy = unflushed(path), Gauge("busy", "Busy", ["of"], multiprocess_mode="liveall")
    calls = []
    with beside(store, report=lambda: sqlmetrics.mark_process_dead(os.getppid())) as other:
        for size in (500, 5000):
            for number in range(size):
                busy.labels(f"{number}").set(1)
            store.flush()
            other.do("report")
            calls.append(calls_of(busy.labels("0").inc))
            assert value("busy", of="0", pid=str(os.getpid())) is not None
            assert value("busy", of=f"{size - 1}", pid=str(os.getpid())) is None
            busy.labels(f"{size - 1}").inc()
            assert value("busy", of=f"{size - 1}", pid=str(os.getpid())) == 2
            store.part.move_in()
            assert len(scrape()) == size

    assert 0 < calls[1] < calls[0] + 500


def test_a_slice_ends_where_another_thread_forks(path: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What is left of a move is done by the next flush."""
    store, requests = unflushed(path), Counter("requests", "Requests", ["path"])
    counted(requests)
    delete(path)
    monkeypatch.setattr(part, "_SLICE_SECONDS", 0.0)

    def give_way() -> None:
        monkeypatch.undo()
        raise part.fork.GaveWayError("another thread forks")

    monkeypatch.setattr(part, "take_break", give_way)
    wait_for(store.follower.follow)
    wait_for(lambda: store.follower.follow() and store.part.is_moving())
    assert len(os.listdir(folder)) == len(FILES)
    store.flush()

    assert not store.part.is_moving()
    assert sum(scrape().values()) == total(path) == CHILDREN


def test_the_index_of_cells_is_what_children_have(path: str) -> None:
    """After removals, a move and new children: no cell is handed out twice, and each is known by its child."""
    store = unflushed(path)
    requests, latency = Counter("requests", "Requests", ["path"]), Histogram("latency", "Latency", ["path"])
    counted(requests)
    for number in range(50):
        latency.labels(f"{number}").observe(1)
    requests.remove("/3")
    latency.remove("7")
    store.flush()
    delete(path)
    wait_for(lambda: store.follower.follow() and not store.part.is_moving())
    requests.labels("/3").inc()
    (writer,) = store.part.writers.values()

    assert sum(key[0].family in ("requests", "latency") for key in writer.places) == CHILDREN + 49
    assert writer.shared is not None
    assert all(place.arena is writer.shared for place in writer.places.values())
    runs = sorted((place.cell, key[0].cells) for key, place in writer.places.items())
    assert all(cell + count <= after for (cell, count), (after, _) in pairwise(runs))
    assert {cell + key[0].stamped: key for key, (_, cell) in writer.places.items()} == writer.shared.keys
