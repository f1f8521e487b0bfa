"""Columns of cells and their sums, whatever is where."""

from __future__ import annotations

import array
import math
import random
import threading

import pytest
from helpers import child, scrape, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.cells import layout
from sqlmetrics.rows.flush import Outcome
from sqlmetrics.scrape.columns import Column, Extra, add_up
from sqlmetrics.scrape.gauges import exact_sum

NUMBERS = st.floats() | st.sampled_from([0.0, -0.0, 1e308, math.inf, -math.inf, math.nan, 0.1])
BLOCKS = 6


@settings(max_examples=200, deadline=None)
@given(data=st.data(), length=st.integers(1, 5000), seed=st.integers(0, 2**32))
def test_sums_of_cells_in_any_order(data: st.DataObject, length: int, seed: int) -> None:
    """Few or many, in runs or one by one, over several blocks; with values that are in no column."""
    chance = random.Random(seed)
    file = bytearray(layout.CELLS_AT + BLOCKS * layout.PAGE)
    cells = memoryview(file)[layout.CELLS_AT :].cast("d")
    free = list(range(1, BLOCKS * layout.BLOCK_CELLS))
    expected: dict[int, list[float]] = {}
    columns = []
    for _ in range(data.draw(st.integers(0, 3))):
        column = Column()
        for position in _positions(chance, length):
            cell = free.pop(0) if chance.random() < 0.9 else free.pop(chance.randrange(len(free)))
            cells[cell] = chance.choice([0.0, chance.random(), chance.randrange(1000), data.draw(NUMBERS)])
            column.put(position, cell, stamped=False)
            expected.setdefault(position, []).append(cells[cell])
        columns.append(column)
    left = [chance.random() for _ in range(length)]
    extra: Extra = {}
    read = [column.read(memoryview(file), length, extra) for column in columns]

    totals = add_up([memoryview(_packed(left)), *(one for one in read if one)], extra, None, length)

    assert len(totals) == length
    for position, total in enumerate(totals):
        wanted = exact_sum([left[position], *expected.get(position, [])])
        assert total == wanted or (math.isnan(total) and math.isnan(wanted))


def _positions(chance: random.Random, length: int) -> list[int]:
    """In order, shuffled, or in runs; few of them or up to 900."""
    count = min(length, chance.choice([1, 5, 900]))
    start = chance.randrange(length - count + 1)
    positions = list(range(start, start + count)) if chance.random() < 0.5 else chance.sample(range(length), count)
    if chance.random() < 0.5:
        chance.shuffle(positions)
    return positions


def _packed(numbers: list[float]) -> memoryview:
    return memoryview(array.array("d", numbers))


def test_what_is_not_wanted_is_not_added_up() -> None:
    """Only the parts of 512 positions in which something is wanted."""
    column = memoryview(_packed([1.0] * 2000))

    totals = add_up([column, column], {}, [5, 1999], 2000)

    assert (totals[5], totals[700], totals[1999], len(totals)) == (2.0, 0.0, 2.0, 2000)


def test_scrapes_follow_a_journal_whose_pages_were_given_back(store: sqlmetrics.Store) -> None:
    """Between two scrapes a process announces more than a page of its journal holds, and flushes it."""
    requests = Counter("requests", "Requests", ["path"])

    def use(first: int) -> None:
        for number in range(first, first + 200):
            requests.labels(f"/{'x' * 50}/{number}").inc(number)

    with child(use=use, flush=lambda: store.flush() is Outcome.NOTHING_CHANGED) as one:
        for first in range(0, 1000, 200):
            one.do("use", first)
            if first % 400:
                wait_for(lambda: one.do("flush"))
            shown = [value for (name, _), value in scrape().items() if name == "requests_total"]
            assert sorted(shown) == list(range(first + 200))


def test_a_reset_between_two_scrapes(path: str) -> None:
    """Series that come after it get ids that others had: nothing that was known of those may be shown."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests", ["path"])
    level = Gauge("level", "Level", ["path"], multiprocess_mode="livesum")
    sizes = Histogram("sizes", "Sizes", ["path"])

    def use(*names: str) -> None:
        for number, name in enumerate(names, 1):
            requests.labels(name).inc(number)
            level.labels(name).set(number)
            sizes.labels(name).observe(number)

    for names in (("a", "b", "c"), ("c", "d"), ("b",)):
        with child(use=use) as one:
            one.do("use", *names)
            expected = {(("path", name),): number for number, name in enumerate(names, 1)}
            for name in ("requests_total", "level", "sizes_sum"):
                assert {labels: value for (what, labels), value in scrape().items() if what == name} == expected
        sqlmetrics.reset(path, force=True)
        assert scrape() == {}


def test_a_death_notice_for_one_that_lives_between_two_scrapes(path: str) -> None:
    """Its `live*` gauges are gone from the next scrape, and back after its next operation."""
    store = sqlmetrics.install(path, flush_interval=1000)
    level = Gauge("level", "Level", ["by"], multiprocess_mode="livesum")
    total = Gauge("total", "Total", ["by"], multiprocess_mode="sum")
    by = (("by", "child"),)

    def use() -> None:
        level.labels("child").set(2)
        total.labels("child").set(3)
        # What it counts of its own flushes is an operation, too.
        wait_for(lambda: store.flush() is Outcome.NOTHING_CHANGED)

    with child(use=use) as one:
        one.do("use")
        assert scrape() == {("level", by): 2, ("total", by): 3}
        sqlmetrics.mark_process_dead(one.pid)
        assert scrape() == {("total", by): 3}
        one.do("use")
        assert scrape() == {("level", by): 2, ("total", by): 3}


@pytest.mark.parametrize("write", [sqlmetrics.generate_latest, lambda: list(map(str, scrape().items()))])
def test_threads_that_scrape_while_series_come(store: sqlmetrics.Store, write: object) -> None:
    """They share what is known of the store; each has its own answer."""
    requests = Counter("requests", "Requests", ["path"])
    sizes = Histogram("sizes", "Sizes", ["path"])
    errors: list[Exception] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                write()  # type: ignore[operator]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        requests.labels(f"/{number}").inc()
        sizes.labels(f"/{number}").observe(number)
    done.set()
    for thread in threads:
        thread.join()

    assert not errors
    assert sum(name == "requests_total" for name, _ in scrape()) == 300
