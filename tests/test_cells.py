"""The cells: growth, reuse, scrapes in the middle of it, and values that are shared, renamed or odd."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from pathlib import Path

import pytest
from freezegun import freeze_time
from helpers import child, flush_all, in_child, scrape, value, wait_for
from outsiders import ended
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.values import MultiProcessValue as PeersMultiProcessValue

import sqlmetrics
from sqlmetrics.cells import cellsfile as cells
from sqlmetrics.cells import layout
from sqlmetrics.scrape.reader import Reader
from sqlmetrics.scrape.wanted import Wanted
from sqlmetrics.values import MultiProcessValue


@pytest.mark.promise(2)
def test_children_in_many_blocks_each_have_cells_of_their_own(path: str, shell) -> None:
    """Thousands of children in two processes: each has cells of its own, in the scrape and in the rows."""
    store = sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests", ["number"])
    latency = Histogram("latency", "Latency", ["number"])

    def use(factor: int) -> None:
        for number in range(6000):
            requests.labels(str(number)).inc(number * factor)
        for number in range(400):
            latency.labels(str(number)).observe(number * factor)

    with child(use=use) as one:
        use(1)
        one.do("use", 1000)
        shown = scrape()

    assert store.file.blocks.ever() > 40
    assert [shown["requests_total", (("number", str(n)),)] for n in range(6000)] == [n * 1001 for n in range(6000)]
    assert [shown["latency_sum", (("number", str(n)),)] for n in range(400)] == [n * 1001 for n in range(400)]
    wait_for(
        lambda: (
            store.flush()
            and shell.value("SELECT sum(value) FROM metrics WHERE metric = 'requests_total'") == 1001 * 17997000
        )
    )


@pytest.mark.promise(6)
@pytest.mark.slow
def test_blocks_of_ended_processes_are_used_again(path: str, shell) -> None:
    """200 short-lived processes: neither the cells nor the rows nor the store's file grow with their number."""
    store = sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests", ["number"])
    requests.labels("0").inc()

    def work() -> None:
        for number in range(100):
            requests.labels(str(number)).inc()

    sizes = []
    for born in range(1, 201):
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        assert ended(pid) == 0
        store.flush()
        if born in (40, 200):
            sizes.append((store.file.blocks.ever(), shell.value("PRAGMA page_count"), len(store.file.held_slots())))

    assert value("requests_total", number="99") == 200
    (blocks, pages, slots), (blocks_later, pages_later, slots_later) = sizes
    assert blocks_later <= blocks + 2
    assert pages_later <= pages + 2
    assert slots_later <= slots


def _churn(requests: Counter, workers: int, per_worker: int, report: int) -> None:
    """Short-lived processes, up to four at a time, that report each operation when it has returned."""
    alive: list[int] = []
    for _ in range(workers):
        pid = os.fork()
        if pid == 0:
            try:
                for number in range(per_worker):
                    requests.labels(str(number % 7)).inc()
                    os.write(report, b".")
                os._exit(0)
            finally:
                os._exit(1)
        alive.append(pid)
        if len(alive) > 3:
            assert ended(alive.pop(random.randrange(len(alive)))) == 0
    assert [ended(pid) for pid in alive] == [0] * len(alive)


@pytest.mark.promise(2, 8)
@pytest.mark.slow
def test_scrapes_that_race_with_deaths_and_reuse_are_exact(path: str) -> None:
    """Every scrape shows at least what was counted before it and at most what was begun, and the end is exact."""
    sqlmetrics.install(path, flush_interval=0.005)
    requests = Counter("requests", "Requests", ["number"])
    requests.labels("0").inc(0)
    workers, per_worker = 200, 50
    reports, report = os.pipe()
    os.set_blocking(reports, False)

    def shown() -> float:
        return sum(count for (name, _), count in scrape().items() if name == "requests_total")

    last = counted = 0.0
    with child(churn=lambda: _churn(requests, workers, per_worker, report)) as one:
        started = threading.Thread(target=one.do, args=["churn"])
        started.start()
        while started.is_alive():
            with contextlib.suppress(BlockingIOError):
                counted += len(os.read(reports, 65536))
            found = shown()
            assert found >= max(last, counted)
            assert found <= workers * per_worker
            last = found
        started.join()
    os.close(reports)
    os.close(report)

    assert shown() == workers * per_worker


@pytest.mark.promise(3)
def test_two_threads_that_retire_one_slot_free_it_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread has looked whose slot it is; before it frees it, another does, and a new process takes it and ends."""
    store = sqlmetrics.install(path, flush_interval=600)
    requests = Counter("requests", "Requests")
    requests.inc()
    with child(work=lambda: requests.inc(10)) as one:
        one.do("work")
        store.flusher.stop()  # the fork has started it, and it would be the first to see the death
        one.kill()
    has, retire = cells.CellsFile.has, cells.CellsFile.retire_slot
    retiring: list[bool] = []

    def look_and_wait(file: cells.CellsFile, slot: int, instance: int) -> bool:
        found = has(file, slot, instance)
        if retiring and not retiring.pop():
            # As a collector does that reads another process's store: it settles whom it can.
            other = threading.Thread(
                target=Reader(path).read, args=[Wanted()], kwargs={"own": None, "finish": lambda *_: None}
            )
            other.start()
            other.join()
            in_child(lambda: requests.inc(100))
        return found

    def retire_and_look(file: cells.CellsFile, slot: int, instance: int, settler: object) -> None:
        retiring.append(False)
        retire(file, slot, instance, settler)
        monkeypatch.setattr(cells.CellsFile, "retire_slot", retire)

    monkeypatch.setattr(cells.CellsFile, "has", look_and_wait)
    monkeypatch.setattr(cells.CellsFile, "retire_slot", retire_and_look)
    store.flush()

    assert cells.CellsFile.retire_slot is retire
    assert not retiring
    assert value("requests_total") == 111
    store.flush()
    assert value("requests_total") == 111


@pytest.mark.promise(3)
def test_a_file_that_comes_back_while_its_name_is_opened_is_the_same_one(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for a second one, its values would be given up: live gauges would be gone until they are set again."""
    name = f"{store.path}-cells"
    os.rename(name, f"{name}-away")
    Path(name).write_bytes(b"")
    os.truncate(name, layout.FILE_SIZE)
    status_of = cells.status_of

    def look_before_it_is_back(path: str) -> os.stat_result | None:
        found = status_of(path)
        os.rename(f"{name}-away", name)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(cells, "status_of", look_before_it_is_back)
        assert cells.open_cells(name, writable=True) is store.file
    assert cells.open_cells(name, writable=True) is store.file


@pytest.mark.promise(3)
def test_a_claimed_slot_is_alive_from_its_first_moment(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread of the process that claims it may be settling the dead at any moment."""
    seen = []
    unlock = cells.locks.unlock

    def look_and_unlock(fd: int, offset: int) -> None:
        seen.extend(store.file.is_alive(slot) for slot, _ in store.file.held_slots())
        unlock(fd, offset)

    monkeypatch.setattr(cells.locks, "unlock", look_and_unlock)
    Counter("requests", "Requests").inc()

    assert set(seen) == {True}


@pytest.mark.promise(12)
def test_two_metrics_of_one_name_add_up(store: sqlmetrics.Store) -> None:
    """In no registry, or in two that show all processes: they share their cells and add up."""
    first, second = (Counter("requests", "Requests", ["path"], registry=None) for _ in range(2))
    one, other = (Histogram("latency", "Latency", registry=registry) for registry in (None, REGISTRY))
    for _ in range(10):
        first.labels("/").inc()
        second.labels("/").inc(2)
        one.observe(0.5)
        other.observe(0.5)
    again = in_child(lambda: (first.labels("/").inc(), second.labels("/").inc(), value("requests_total", path="/"))[2])

    assert again == 32
    assert value("requests_total", path="/") == 32
    assert value("latency_count") == 20
    assert value("latency_sum") == 10


@pytest.mark.promise(12)
def test_value_classes_with_two_identifiers_count_as_two_processes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value classes made by hand, as the peer's own tests do."""
    monkeypatch.setenv("SQLMETRICS_PATH", path)
    monkeypatch.setenv("SQLMETRICS_FLUSH_INTERVAL", "1000")
    first, second = MultiProcessValue(lambda: 123), MultiProcessValue(lambda: 456)

    def make(cls: type, kind: str, name: str, mode: str = "") -> object:
        return cls(kind, name, name, [], [], "Help", mode)

    make(first, "counter", "c").inc(1)
    make(second, "counter", "c").inc(2)
    make(first, "gauge", "all", "all").set(1)
    make(second, "gauge", "all", "all").set(2)
    make(first, "gauge", "live", "livesum").set(1)
    make(second, "gauge", "live", "livesum").set(2)

    assert value("c") == 3
    assert (value("all", pid="123"), value("all", pid="456")) == (1, 2)
    assert value("live") == 3
    flush_all(sqlmetrics.install())
    sqlmetrics.mark_process_dead(123)
    assert value("live") == 2
    assert value("c") == 3
    assert PeersMultiProcessValue is not MultiProcessValue


@pytest.mark.promise(12)
def test_each_operation_counts_for_the_identifier_of_its_time(path: str) -> None:
    """Between any two operations, there and back again: each operation counts for the name of its time."""
    name = "123"
    sqlmetrics.install(path, process_identifier=lambda: name)
    requests = Counter("requests", "Requests")
    own = Gauge("own", "Own", multiprocess_mode="all")
    for round_ in range(1, 4):
        for name in ("123", "456", "789"):
            requests.inc(int(name))
            assert requests._value.get() == int(name) * round_
            own.inc()

    assert value("requests_total") == 3 * (123 + 456 + 789)
    assert [value("own", pid=pid) for pid in ("123", "456", "789")] == [3, 3, 3]


@pytest.mark.promise(12)
def test_the_newest_value_is_known_while_time_stands_still(path: str) -> None:
    """Time stands still: the newest by its own clock is shown, a tie is the later process's, and nothing hangs."""
    store = sqlmetrics.install(path, flush_interval=0.01)
    newest = Gauge("newest", "Newest", multiprocess_mode="mostrecent")

    with freeze_time("2030-01-02"):
        newest.set(1)
        with child(set=lambda value: newest.set(value)) as one:
            one.do("set", 2)
            assert value("newest") == 2
            newest.set(3)
            assert value("newest") == 2
            store.flush()
            one.end()
        assert value("newest") == 2
    with freeze_time("2030-01-01"):
        newest.set(4)
        assert value("newest") == 2
    with freeze_time("2030-01-03"):
        newest.set(5)
        assert value("newest") == 5
    sqlmetrics.uninstall()
    assert scrape(path)[("newest", ())] == 5


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d", "\x00", "\u2028", '"\\'])
@pytest.mark.promise(12)
def test_each_odd_label_value_is_a_series_of_its_own(path: str, text: str) -> None:
    """Lone surrogates and other text that not every store holds: each value is a series of its own."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests \ud800", ["text"])
    names = [text, text + "x", "plain"]

    def use() -> None:
        for number, name in enumerate(names):
            requests.labels(name).inc(number + 1)

    use()
    before = scrape()
    store.flush()
    in_child(use)

    assert len(before) == 3
    assert scrape() == {key: 2 * number for key, number in before.items()}
    store.flush()
    assert {key: 2 * number for key, number in before.items()} == scrape()
    assert dict(store.trouble.counts) == {}


@pytest.mark.promise(12)
def test_a_child_with_more_cells_than_a_block_is_whole_in_a_scrape(store: sqlmetrics.Store) -> None:
    """A histogram of a thousand buckets is kept in parts, and is whole in a scrape."""
    buckets = [float(number) for number in range(2 * layout.BLOCK_CELLS)]
    wide = Histogram("wide", "Wide", ["x"], buckets=buckets)

    def use() -> None:
        for number in range(0, 1000, 10):
            wide.labels("a").observe(number)

    use()
    in_child(use)
    shown = scrape()

    assert shown["wide_bucket", (("le", "500.0"), ("x", "a"))] == 102
    assert shown["wide_bucket", (("le", "+Inf"), ("x", "a"))] == 200
    assert shown["wide_count", (("x", "a"),)] == 200
