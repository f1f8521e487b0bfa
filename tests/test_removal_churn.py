"""Removal all the time, in many processes: no wrong number, nothing lost of others, and nothing that grows."""

from __future__ import annotations

import gc
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from helpers import Child, child, scrape, value
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.cells import records
from sqlmetrics.scrape.reading import Scrape

pytestmark = pytest.mark.promise(6, 8)

CYCLES = int(os.environ.get("SQLMETRICS_TEST_CYCLES") or (25_000 if os.environ.get("SQLMETRICS_TEST_LONG") else 2_000))
"""Of each of four processes."""


@contextmanager
def _four(**steps: Callable[..., object]) -> Iterator[list[Child]]:
    """Four forked children that can do the steps given; they are gone at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(child(**steps)) for _ in range(4)]


def _send(one: Child, name: str, *arguments: object) -> None:
    print(json.dumps([name, arguments]), file=one._out, flush=True)


def _is_done(one: Child) -> bool:
    poll = select.poll()  # select() knows 1,024 descriptors only
    poll.register(one._in, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))


def _look_until_done(children: list[Child], look: Callable[[], float]) -> list[float]:
    """Do something until all have answered, and return what it returned."""
    seen = []
    while not all(map(_is_done, children)):
        seen.append(look())
    assert all(one._in.readline() for one in children)
    return seen


def _counted(name: str, labels: tuple[tuple[str, str], ...]) -> float:
    """What a child is given whose label is an amount."""
    return float(dict(labels)["amount"]) if name in ("amounts", "counts_total", "spread_sum") else 1


@pytest.mark.slow
def test_others_totals_are_exact_during_removals(store: sqlmetrics.Store) -> None:
    """Two processes count while two remove what they do not count in: nothing is lost."""
    requests = Counter("requests", "Requests", ["path"])
    latency = Histogram("latency", "Latency", ["path"], buckets=[1, 2])
    each = 20_000

    def count() -> None:
        steady, seconds = requests.labels("/"), latency.labels("/")
        for number in range(each):
            steady.inc()
            if number % 10 == 0:
                seconds.observe(1.5)
            if number % 100 == 0:
                requests.labels("passing").inc()

    def remove() -> None:
        for number in range(200):
            requests.labels(f"mine {os.getpid()} {number}").inc()
            latency.labels("passing").observe(1)
            requests.remove("passing")
            latency.remove("passing")
            requests.remove(f"mine {os.getpid()} {number}")

    with _four(count=count, remove=remove) as children:
        for one, step in zip(children, ("count", "count", "remove", "remove"), strict=True):
            _send(one, step)
        seen = _look_until_done(children, lambda: value("requests_total", path="/") or 0.0)

        assert seen == sorted(seen)
        assert value("requests_total", path="/") == 2 * each
        assert value("latency_count", path="/") == 2 * each / 10
        assert not [labels for _, labels in scrape() if labels[0][1].startswith("mine")]
    assert value("requests_total", path="/") == 2 * each


@pytest.mark.slow
def test_cells_that_are_used_again_never_show_another_childs_value(path: str) -> None:
    """A scrape sees of a child nothing, zero, or what was counted in it: its label says what that is."""
    sqlmetrics.install(path, flush_interval=0.02)
    amounts = Gauge("amounts", "Amounts", ["amount"], multiprocess_mode="sum")
    counts = Counter("counts", "Counts", ["amount"])
    spread = Histogram("spread", "Spread", ["amount"], buckets=[1])

    def churn(which: int) -> int:
        for number in range(CYCLES // 2):
            amount = 1 + which + 4 * (number % 1000)
            text = str(amount)
            amounts.labels(text).set(amount)
            counts.labels(text).inc(amount)
            spread.labels(text).observe(amount)
            counts.remove(text)
            amounts.remove(text)
            spread.remove(text)
        return CYCLES

    def look() -> float:
        begun = time.monotonic()
        shown = scrape()
        took = time.monotonic() - begun
        wrong = {sample: amount for sample, amount in shown.items() if amount not in (0, _counted(*sample))}
        assert wrong == {}
        return took

    with _four(churn=churn) as children:
        for which, one in enumerate(children):
            _send(one, "churn", which)
        took = _look_until_done(children, look)
        print(f"{len(took)} scrapes, the longest took {max(took):.3f} s")
        assert len(took) > 20
        assert scrape() == {}


def _rss() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.slow
def test_a_life_of_removals_leaves_nothing(path: str, shell, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Four processes make and remove label sets, of their own or the same ones: memory, rows and cells stay flat."""
    store = sqlmetrics.install(path, flush_interval=0.05)
    requests = Counter("requests", "Requests", ["user"])
    depth = Gauge("depth", "Depth", ["user"])
    requests.labels("always").inc()
    quarter = CYCLES // 4

    def churn(which: int, part: int) -> int:
        for number in range(part * quarter, (part + 1) * quarter):
            user = str(number) if shared else f"{which} {number}"
            requests.labels(user).inc()
            requests.remove(user)
            if number % 4 == 0:
                depth.labels(user).set(1)
                depth.remove_by_labels({"user": user})
        return _rss()

    monkeypatch.setattr(records, "_labels", records._labels.__wrapped__)  # it keeps the newest 10,000
    memory, blocks, rows = [], [], []
    with _four(churn=churn) as children:
        for part in range(4):
            for which, one in enumerate(children):
                _send(one, "churn", which, part)
            memory.append([int(one._in.readline()) for one in children])
            blocks.append(store.file.blocks.used())
            rows.append(shell.value("SELECT (SELECT count(*) FROM series) + (SELECT count(*) FROM cell_copy)"))

    print([[size >> 10 for size in sizes] for sizes in memory], blocks, rows, os.path.getsize(path) >> 10)
    assert all(last - first < 2 << 20 for first, last in zip(memory[0], memory[3], strict=True))
    assert blocks[3] <= max(blocks[0], 4 * 5 + 1)
    assert rows[3] <= rows[0] + 50
    assert value("requests_total", user="always") == 1


def _once(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> None:
    """In the next scrape, do something right before a step of it."""
    inside = getattr(Scrape, name)

    def step(*args: object) -> object:
        monkeypatch.setattr(Scrape, name, inside)
        act()
        return inside(*args)

    monkeypatch.setattr(Scrape, name, step)


def _flush() -> str:
    return sqlmetrics.install().flush().name


@pytest.mark.parametrize("step", ["_look_around", "result"])
def test_a_scrape_begins_again_if_cells_are_used_again_in_the_middle(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Between its snapshot of the rows and its reading of the cells, or right before that."""
    counts = Counter("counts", "Counts", ["amount"])

    def make(first: int) -> None:
        for amount in range(first, first + 600):
            counts.labels(str(amount)).inc(amount)

    def replace() -> None:
        sqlmetrics.install().flusher.stop()  # a flush would give back pages of the journal, which a scrape notices too
        counts.clear()
        make(10_000)

    with child(make=make, flush=_flush, replace=replace) as one:
        one.do("make", 1)
        one.do("flush")
        _once(monkeypatch, step, lambda: one.do("replace"))
        shown = scrape()

    assert len(shown) == 600
    assert {sample: amount for sample, amount in shown.items() if amount != _counted(*sample)} == {}


def test_a_series_made_anew_in_the_middle_of_a_scrape_counts_once(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scrape's rows have the old cell, the journal the new one: this one counts, and the others stay in place."""
    counts = Counter("counts", "Counts", ["amount"])

    def make() -> None:
        for amount in range(1, 20):
            counts.labels(str(amount)).inc(amount)

    def make_anew() -> None:
        sqlmetrics.install().flusher.stop()
        counts.remove("7")
        counts.labels("7").inc(70)

    with child(make=make, flush=_flush, make_anew=make_anew) as one:
        one.do("make")
        one.do("flush")
        _once(monkeypatch, "_look_around", lambda: one.do("make_anew"))
        shown = scrape()

    assert shown == {("counts_total", (("amount", str(number)),)): number for number in range(1, 20)} | {
        ("counts_total", (("amount", "7"),)): 70
    }


@pytest.mark.promise(5)
@pytest.mark.slow
def test_a_scrape_that_is_always_disturbed_gets_through(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the third try it keeps writers out: a removal waits then, and nothing is used again in the middle."""
    counts = Counter("counts", "Counts", ["amount"])
    tries: list[int] = []
    inside = Scrape.result

    def replace(first: int) -> None:
        sqlmetrics.install().flusher.stop()
        counts.clear()
        for amount in range(first, first + 600):
            counts.labels(str(amount)).inc(amount)

    def disturbed(*args: Any) -> object:
        tries.append(1)
        one.do("replace", 1000 * len(tries))
        return inside(*args)

    with child(replace=replace) as one:
        one.do("replace", 1)
        monkeypatch.setattr(Scrape, "result", disturbed)
        shown = scrape()

    assert len(tries) == 3
    assert len(shown) == 600
    assert {sample: amount for sample, amount in shown.items() if amount != _counted(*sample)} == {}
