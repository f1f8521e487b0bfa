"""Many processes that died unseen, settled in one go: what is kept of them is the same as one after another."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers import Shell, child, in_child, scrape
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary

import sqlmetrics
from sqlmetrics.cells import layout

pytestmark = pytest.mark.promise(1, 6)

MODES = ("all", "min", "max", "sum", "mostrecent", "liveall", "livemin", "livemax", "livesum", "livemostrecent")
VALUES = (0.1, 1e16, -2.5, 3.0, 0.2, -1e16, 7e-9, 5.0, 0.3, 2.0**53, 1.0, 0.7)
"""Of mixed magnitude: added up in a careless way, their sum depends on the order."""
ODD = {"nan": {3: math.nan}, "inf": {4: math.inf}, "-inf": {5: -math.inf}, "both": {6: math.inf, 8: -math.inf}}
"""By a child's label: which processes set it to something else than a finite number, and to what."""


class Metrics:
    """Some of each type; the parent has no child of them."""

    def __init__(self) -> None:
        self.uses = 0
        self.late = Counter("late", "A child that comes with each use", ["number", "use"])
        self.requests = Counter("requests", "Requests", ["path"])
        self.latency = Histogram("latency", "Latency", ["x"], buckets=(0.5, 1, 5))
        self.sizes = Summary("sizes", "Sizes", ["x"])
        self.build = Info("build", "Build", ["x"])
        self.state = Enum("state", "State", ["x"], states=["a", "b"])
        self.gauges = [Gauge(mode, mode, ["x"], multiprocess_mode=mode) for mode in MODES]  # type: ignore[arg-type]

    def use(self, number: int) -> None:
        """What the process of that number does; some label sets are of some processes only, in another order."""
        value = VALUES[number]
        for path in ("/b", "/a") if number % 2 else ("/a", "/c"):
            self.requests.labels(path).inc(abs(value))
        self.latency.labels("").observe(value)
        self.sizes.labels("").observe(value)
        self.late.labels(str(number), str(self.uses)).inc()
        self.uses += 1
        self.build.labels("").info({"number": str(number)})
        self.state.labels("").state("ab"[number % 2])
        for gauge in self.gauges:
            gauge.labels("").set(value)
            for label, odd in ODD.items():
                gauge.labels(label).set(odd.get(number, value))


def unflushed(store: sqlmetrics.Store, use: Callable[[int], object]) -> Callable[[int], object]:
    """The same, in a process that makes no rows by itself."""

    def used(number: int) -> object:
        store.flusher.stop()
        return use(number)

    return used


def _settled(path: str, seen: bool, pid: Callable[[int], object]) -> dict[str, str]:
    """What a scrape shows of processes that were killed one after another.

    seen: whether each was settled before the next one came. pid: what the process of each number calls itself.
    """
    name = [pid(-1)]
    store = sqlmetrics.install(path, flush_interval=1000, process_identifier=lambda: name[0])  # type: ignore[arg-type]
    metrics = Metrics()
    with ExitStack() as stack:
        living = []
        for number in range(len(VALUES)):
            name[0] = pid(number)
            steps = {"use": unflushed(store, metrics.use), "flush": lambda: store.flush().name}
            living.append(stack.enter_context(child(**steps)))
            living[-1].do("use", number)
        for number in range(1, len(VALUES), 3):  # half of what it has is rows when it dies
            assert living[number].do("flush") == "DONE"
            living[number].do("use", number)
        for one in living:
            one.kill()
            if seen:
                store.flush()
    store.flush()
    assert {slot for slot, _ in store.file.held_slots()} == store.file.own_slots
    return {json.dumps([name, dict(labels)]): repr(value) for (name, labels), value in scrape(path).items()}


@pytest.mark.parametrize("pid", [lambda number: number, lambda _: "same", lambda number: number % 3])
@pytest.mark.slow
def test_many_settled_at_once_leave_what_they_leave_one_by_one(tmp_path: Path, pid: Callable[[int], object]) -> None:
    """Every type and mode, with NaN and ±Inf, sums to the last bit, and names of processes that are used again."""
    one_by_one, at_once = (
        in_child(lambda seen=seen: _settled(str(tmp_path / f"{seen}.sqlite3"), seen, pid)) for seen in (True, False)
    )
    assert at_once == one_by_one

    def shown(name: str, **labels: str) -> str:
        return at_once[json.dumps([name, labels])]  # type: ignore[index, no-any-return]

    observed = repr(math.fsum(value * (1 + (number % 3 == 1)) for number, value in enumerate(VALUES)))
    assert shown("sizes_sum", x="") == shown("latency_sum", x="") == observed
    assert shown("late_total", number="1", use="1") == shown("late_total", number="2", use="0") == "1.0"
    assert shown("sum", x="") == repr(math.fsum(VALUES))
    assert shown("sum", x="nan") == shown("min", x="nan") == shown("sum", x="both") == "nan"
    assert (shown("max", x="inf"), shown("min", x="-inf")) == ("inf", "-inf")
    assert shown("mostrecent", x="") == repr(VALUES[10])  # the last that was used a second time
    assert not [series for series in at_once if "live" in series]  # type: ignore[attr-defined]
    kept = {pid(number): VALUES[number] for number in range(len(VALUES))}
    assert all(shown("all", pid=str(name), x="") == repr(value) for name, value in kept.items())


def test_a_damaged_journal_among_many_costs_only_what_it_says(store: sqlmetrics.Store, shell: Shell) -> None:
    """Of ten dead processes, the nine others are folded in the same transaction; the damaged one is settled, too."""
    requests = Counter("requests", "Requests", ["path"])

    def use(number: int) -> None:
        requests.labels(f"/{number}").inc()
        requests.labels("/all").inc()

    for number in range(10):
        with child(use=unflushed(store, use)) as one:
            one.do("use", number)
            one.kill()
    journals = store.file.bytes[layout.JOURNALS_AT :]
    at = bytes(journals).index(b'["/4"]')
    journals[at + 2] ^= 1
    store.flush()
    assert shell.value("SELECT value FROM metrics WHERE labels = json_object('path', '/all')") == 9
    assert len(shell("SELECT * FROM metrics WHERE metric = 'requests_total'")) == 10
    assert shell("SELECT * FROM processes WHERE state = 'remembered'") == []


def test_a_gauge_that_is_announced_twice_counts_once(store: sqlmetrics.Store, shell: Shell) -> None:
    """A removal makes a process give a child other cells; of those that it died with, the last are its value."""
    gauges = [Gauge("busy", "Busy", ["x"], multiprocess_mode=mode, registry=None) for mode in ("sum", "mostrecent")]

    def use(first: int) -> None:
        for gauge in (gauges[first], gauges[1 - first]):
            gauge.labels("").set(1 if gauge is gauges[first] else 10)

    for first in (1, 1, 1):
        with child(use=unflushed(store, use)) as one:
            one.do("use", first)
            one.kill()
    store.flush()
    assert shell.value("SELECT value FROM metrics WHERE metric = 'busy'") == 30
