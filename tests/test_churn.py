"""Two thousand deaths: every number exact, no counter ever goes back, and neither size nor scrape work grows."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import time
from dataclasses import dataclass

import pytest
from helpers import Child, Shell, child, scrape, wait_for
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.store import installed as stores

pytestmark = pytest.mark.promise(6, 8)

SEED = int(os.environ.get("SQLMETRICS_TEST_SEED") or time.time_ns() % 2**32)  # now: a fixture clears the variables
DEATHS = 2000
AT_ONCE = 5
FIRST = 10
"""Deaths after which sizes are noted, to be compared with those at the end."""
UNSETTLED = 50
"""Processes that may wait to be settled at one time on a busy machine, each with a block: chance, but no growth."""
MARGIN = 1.3


class Truth:
    """What each worker has begun and done, in memory that outlives it: it may be killed at any moment."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 16 * (DEATHS + AT_ONCE))).cast("q")

    def begin(self, worker: int) -> None:
        """An operation is about to be made."""
        self._cells[2 * worker] += 1

    def end(self, worker: int) -> None:
        """It has returned."""
        self._cells[2 * worker + 1] += 1

    def begun_and_done(self) -> tuple[int, int]:
        """Of all workers."""
        cells = self._cells.tolist()
        return sum(cells[::2]), sum(cells[1::2])


class Workers:
    """Short-lived processes that use metrics of every kind."""

    def __init__(self, truth: Truth):
        self.truth = truth
        self.requests = Counter("requests", "Requests", ["path"])
        self.latency = Histogram("latency", "Latency", ["path"], buckets=(1, 2, 3))
        self.busy = Gauge("busy", "Busy", ["x"], multiprocess_mode="livesum")
        self.newest = Gauge("newest", "Newest", ["x"], multiprocess_mode="mostrecent")
        self.most = Gauge("most", "Most", ["x"], multiprocess_mode="max")
        self.living: dict[int, int] = {}

    def start(self, worker: int) -> None:
        """Fork one, which works until it is killed, or ends by itself."""
        pid = os.fork()
        if pid == 0:
            self._work(worker)
            os._exit(0)
        self.living[pid] = worker

    def _work(self, worker: int) -> None:
        choose = random.Random(worker)
        for step in range(choose.randint(5, 2000)):
            path = f"/{choose.randrange(8)}"
            self.truth.begin(worker)
            self.requests.labels(path).inc()
            self.truth.end(worker)
            if step % 5 == 0:
                self.latency.labels(path).observe(choose.random() * 4)
                self.busy.labels("").set(1)
                self.newest.labels("").set(worker)
                self.most.labels("").set(worker)

    def end_one(self, choose: random.Random) -> None:
        """Kill one, after a moment of its life, or let it end; wait until it has."""
        pid = choose.choice(list(self.living))
        if choose.random() < 0.8:
            until = time.monotonic() + choose.random() * 0.008
            wait_for(lambda: time.monotonic() >= until)
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del self.living[pid]

    def end_all(self, choose: random.Random) -> None:
        """End every one that lives."""
        while self.living:
            self.end_one(choose)


@dataclass
class Size:
    """What a store takes, and what a scrape of it does."""

    rows: int
    pages: int
    blocks: int
    steps: int

    @classmethod
    def of(cls, path: str, shell: Shell) -> Size:
        """With no worker alive. Not seconds but SQLite's steps: these are the same however busy the machine is."""
        tables = ("family", "series", "instance", "slot", "cell_copy", "retired", "kept", "orphan")
        rows = sum(int(str(shell.value(f"SELECT count(*) FROM {table}"))) for table in tables)
        file = stores.existing_store(path).file
        scrape(path)
        connection = stores.reader(path)._access._connection
        assert connection
        steps = [0]

        def count() -> bool:
            steps[0] += 1
            return False

        connection.set_progress_handler(count, 10)
        scrape(path)
        connection.set_progress_handler(None)
        return cls(rows, int(str(shell.value("PRAGMA page_count"))), file.blocks.ever(), steps[0])


def watch(path: str) -> list[object]:
    """In a process of its own: scrape until told otherwise; returns the number of scrapes and what went back."""
    before: dict[object, float] = {}
    wrong: list[object] = []
    scrapes = 0
    os.set_blocking(0, True)
    ended = [False]
    signal.signal(signal.SIGTERM, lambda *_: ended.__setitem__(0, True))
    while not ended[0]:
        found = scrape(path)
        scrapes += 1
        counters = {key: number for key, number in found.items() if key[0] not in ("busy", "newest")}
        wrong += [(*key, number, counters.get(key)) for key, number in before.items() if counters.get(key, -1) < number]
        before = {**before, **counters}  # type: ignore[dict-item]
    return [scrapes, wrong[:5]]


@pytest.mark.slow
def test_two_thousand_deaths_change_no_number_and_leave_nothing_that_grows(path: str, shell: Shell) -> None:
    """Most by SIGKILL at a random moment; scrapes in another process all along."""
    print(f"SQLMETRICS_TEST_SEED={SEED}")  # shown with a failure
    choose = random.Random(SEED)
    store = sqlmetrics.install(path, flush_interval=0.05)
    truth = Truth()
    workers = Workers(truth)
    watcher = Child()
    if watcher.in_child:
        watcher.serve(watch=lambda: watch(path))
    print('["watch", []]', file=watcher._out, flush=True)
    for number in range(FIRST):  # all of them at once, so that it takes more cells than the later ones ever do
        workers.start(number)
    workers.end_all(choose)
    store.flush()
    young = Size.of(path, shell)
    young.blocks = max(young.blocks, UNSETTLED)
    for number in range(FIRST, DEATHS):
        workers.start(number)
        if len(workers.living) == AT_ONCE:
            workers.end_one(choose)
        if number % 100 == 0:
            begun, done = truth.begun_and_done()
            counted = sum(count for (name, _), count in scrape(path).items() if name == "requests_total")
            assert done <= counted <= truth.begun_and_done()[0]
    workers.end_all(choose)
    os.kill(watcher.pid, signal.SIGTERM)
    scrapes, wrong = json.loads(watcher._in.readline())
    watcher.end()

    begun, done = truth.begun_and_done()
    shown = scrape(path)
    assert done <= sum(count for (name, _), count in shown.items() if name == "requests_total") <= begun
    assert begun - done <= DEATHS
    assert shown.get(("busy", (("x", ""),)), 0) == 0
    assert wrong == []
    assert scrapes > 100
    store.flush()
    old = Size.of(path, shell)
    for name, before in vars(young).items():
        assert getattr(old, name) <= MARGIN * before, (name, young, old)
    with child(look=lambda: len(scrape(path))) as one:
        assert one.do("look") == len(shown)
