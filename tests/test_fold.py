"""The fold of dead processes: whole or not at all, wherever whoever does it is killed, and whoever else does it too."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from types import ModuleType

import pytest
from helpers import Shell, child, scrape, wait_for
from interruption import Interruption
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.cells import cellsfile as cells
from sqlmetrics.cells import journal, region
from sqlmetrics.rows import database, fold, ingest, legacies, settle
from sqlmetrics.scrape import query, reader, tables
from sqlmetrics.scrape import reading as reading
from sqlmetrics.store import flush

pytestmark = pytest.mark.promise(6, 8)

_TRACED = (settle, fold, legacies, region, ingest, flush, cells, database, journal)


def signal_at(step: int, what: int, modules: Iterable[ModuleType]) -> Interruption:
    """Send this process a signal when it is about to run that line of the modules."""
    return Interruption(step, modules, lambda: os.kill(os.getpid(), what))


class Dead:
    """Processes that have ended and are not settled yet, and what a scrape has to show of all that ever ended."""

    def __init__(self) -> None:
        self.requests = Counter("requests", "Requests", ["path"])
        self.latency = Histogram("latency", "Latency", ["x"], buckets=(1,))
        self.modes = {
            mode: Gauge(mode, mode, ["x"], multiprocess_mode=mode)  # type: ignore[arg-type]
            for mode in ("sum", "min", "max", "mostrecent", "livesum", "liveall", "livemostrecent")
        }
        self.ended = 0

    def use(self, number: int) -> None:
        """What each of them does."""
        self.requests.labels(f"/{number % 3}").inc(number)
        self.latency.labels("").observe(0.5)
        for gauge in self.modes.values():
            gauge.labels("").set(number)  # a child: without it, the parent would have one at 0

    def another(self) -> None:
        """One more process counts and is killed."""
        self.ended += 1
        with child(use=self.use) as one:
            one.do("use", self.ended)
            one.kill()

    def expected(self) -> dict[str, float]:
        """The whole of a scrape, the labels of the counter left out."""
        numbers = range(1, self.ended + 1)
        return {
            "requests_total": sum(numbers),
            "latency_bucket": 2 * self.ended,
            "latency_count": self.ended,
            "latency_sum": self.ended / 2,
            "sum": sum(numbers),
            "min": 1,
            "max": self.ended,
            "mostrecent": self.ended,
        }


def shown(path: str) -> dict[str, float]:
    """A scrape, added up by name."""
    found: dict[str, float] = {}
    for (name, _), number in scrape(path).items():
        found[name] = found.get(name, 0) + number
    return found


def _settle_until(step: int, path: str) -> int:
    """In a forked child: flush, and so settle the dead, until a step; returns how many steps a whole flush has."""
    interruption = signal_at(step, signal.SIGKILL, _TRACED)
    with interruption.watching():
        sqlmetrics.install(path).flush()
    return interruption.lines


@pytest.mark.slow
def test_a_flush_that_is_killed_at_any_line_changes_no_number(path: str, shell: Shell) -> None:
    """Of all code from the flush on: what a scrape shows is right before, between and after, and settled at last."""
    store = sqlmetrics.install(path, flush_interval=1000)
    dead = Dead()
    store.flusher.stop()  # it is the children who settle
    steps = 10**9
    step = 1
    while step <= steps:
        dead.another()
        with child(settle=lambda step=step: _settle_until(step, path)) as settler:
            try:
                steps = int(str(settler.do("settle")))
            except AssertionError:  # killed
                assert os.waitstatus_to_exitcode(os.waitpid(settler.pid, 0)[1]) == -signal.SIGKILL
        if step % 7 == 0:
            assert shown(path) == dead.expected()
        step += 1 if step < 400 else 5
    assert steps > 300
    assert shown(path) == dead.expected()
    store.flusher.allow()
    store.flush()
    assert shell("SELECT * FROM processes") == []
    assert {row["pid"] for row in shell("SELECT DISTINCT pid FROM samples")} == {None}
    assert shell.value("PRAGMA integrity_check") == "ok"


def test_several_that_settle_at_once_fold_each_process_once(path: str, shell: Shell) -> None:
    """Ten dead processes, and four that all want to settle them: each is folded once."""
    store = sqlmetrics.install(path, flush_interval=1000)
    dead = Dead()
    read, write = os.pipe()

    def settle() -> str:
        os.read(read, 1)
        return str(sqlmetrics.install(path, flush_interval=1000).flush())

    store.flusher.stop()
    for _ in range(3):
        for _ in range(10):
            dead.another()
        with child(go=settle) as a, child(go=settle) as b, child(go=settle) as c:
            for one in (a, b, c):
                print('["go", []]', file=one._out, flush=True)
            os.write(write, b"...")
            for one in (a, b, c):
                assert one._in.readline()
        assert shown(path) == dead.expected()
    os.close(read)
    os.close(write)
    assert shell("SELECT * FROM processes") == []


def _recycle(requests: Counter, store: sqlmetrics.Store, rounds: int) -> None:
    """Short-lived processes that take every free block of cells in turn, with values that would be seen."""

    def use() -> None:
        requests.labels("others").inc(1_000_000)

    for _ in range(rounds):
        with child(use=use) as one:
            one.do("use")
            one.kill()
        store.flush()


@pytest.mark.parametrize("step", range(4, 100, 6))
@pytest.mark.promise(5)
@pytest.mark.slow
def test_a_scrape_that_is_stopped_at_any_step_is_right(path: str, step: int) -> None:
    """At any step; meanwhile the process it was reading of ends and its cells are others'. Then it goes on."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    busy = Gauge("busy", "Busy", ["by"], multiprocess_mode="livemax")

    def use() -> None:
        requests.labels("it").inc(7)
        busy.labels("it").set(3)

    def look() -> object:
        with signal_at(step, signal.SIGSTOP, (reader, reading, query, tables)).watching():
            found = scrape(path)
        return [found.get(("requests_total", (("by", "it"),))), found.get(("busy", (("by", "it"),)), 3)]

    requests.labels("others")
    with child(use=use) as it, child(look=look) as scraper:
        it.do("use")
        store.flush()
        print('["look", []]', file=scraper._out, flush=True)
        wait_for(lambda: os.waitpid(scraper.pid, os.WUNTRACED | os.WNOHANG)[1])
        it.kill()
        store.flush()
        _recycle(requests, store, 6)
        os.kill(scraper.pid, signal.SIGCONT)

        assert scraper._in.readline().strip() in ("[7.0, 3.0]", "[7.0, 3]")


@pytest.mark.slow
def test_threads_that_scrape_while_cells_are_recycled_are_right(path: str) -> None:
    """Two threads of the process that settles and gives the cells out again: every scrape of both is right."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    requests = Counter("requests", "Requests", ["by"])
    requests.labels("here").inc(5)
    ended = threading.Event()
    wrong: list[object] = []
    scrapes = [0, 0]
    least = [0.0]

    def look(number: int) -> None:
        last = 0.0
        while not ended.is_set():
            floor = least[0]
            found = scrape(path)
            others = found.get(("requests_total", (("by", "others"),)), 0.0)
            if found[("requests_total", (("by", "here"),))] != 5 or others % 1_000_000 or others < max(last, floor):
                wrong.append(found)
            last = others
            scrapes[number] += 1

    threads = [threading.Thread(target=look, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for times in range(1, 41):
        _recycle(requests, store, 1)
        least[0] = times * 1_000_000
    wait_for(lambda: min(scrapes) > 20)
    ended.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert scrape(path)[("requests_total", (("by", "others"),))] == 40_000_000
