"""A journal record that makes no sense is left out and told once; the rest of its process, and all others, go on."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from helpers import Child, Shell, own, scrape, value, wait_for
from prometheus_client import Counter, Enum, Gauge, Histogram, Info

import sqlmetrics
from sqlmetrics.cells import arenas, layout
from sqlmetrics.client import labelsets
from sqlmetrics.process.trouble import Trouble
from sqlmetrics.rows import nonsense
from sqlmetrics.store.flusher import Outcome

pytestmark = pytest.mark.promise(4)

DEEP = b"[" * 100_000
FAMILY = ["family", "bad", "counter", "", "Help", 1, "", None]
CHILD = ["child", "bad", "counter", False, ["a"], ["bad_total"], [""], ["1"], 8, 1.0]
EXEMPLAR = ["exemplar", "good", "counter", ["a"], "good_total", "", ["1"], {"trace": "x"}, 1.0, 1.0]
HISTOGRAM = ["child", "bad", "histogram", False, [], ["bad_sum", "bad_bucket"], ["", "+Inf"], [], 8, 1.0]


def but(record: list[Any], **changed: Any) -> list[Any]:
    """A record with other fields in the places named, as ``at_1=…``."""
    changed = {int(name.removeprefix("at_")): what for name, what in changed.items()}  # type: ignore[misc]
    return [changed.get(place, field) for place, field in enumerate(record)]  # type: ignore[call-overload]


NONSENSE: dict[str, Any] = {
    "no JSON": b"nonsense",
    "no text": b"\xff\xfe",
    "half of it": b'["child", "bad"',
    "nested too deep": DEEP,
    "a number of too many digits": b'["child", ' + b"9" * 5000 + b"]",
    "null": b"null",
    "a number": b"5",
    "a text": b'"child"',
    "an object": {"kind": "child"},
    "an empty list": [],
    "a kind that is a list": [["child"], 1],
    "a kind of a newer version": ["native histogram", "bad", [1, 2]],
    "a child without fields": ["child"],
    "a child with a field too few": CHILD[:-1],
    "a child with a field too many": [*CHILD, 1],
    "a family with a field too few": FAMILY[:-1],
    "a process in the middle": ["process", "1", 1, 1, 1, "", []],
    "a process without fields": ["process", None, None, None, None, None, None],
    "an exemplar with a field too few": EXEMPLAR[:-1],
    "no name": but(FAMILY, at_1=None),
    "an empty name": but(FAMILY, at_1=""),
    "a name that SQLite cannot hold": but(FAMILY, at_1="\ud800"),
    "a family's name that is a list": but(FAMILY, at_1=["bad"]),
    "an unknown type": but(FAMILY, at_2="banana"),
    "an unknown mode": but(FAMILY, at_2="gauge", at_3="banana"),
    "a gauge without a mode": but(FAMILY, at_2="gauge"),
    "a mode of another type": but(FAMILY, at_2="info", at_3="all"),
    "times of whether": but(CHILD, at_3=1),
    "no help": but(FAMILY, at_4=None),
    "a help that is a number": but(FAMILY, at_4=5),
    "made at no time": but(FAMILY, at_5=None),
    "made at a fraction": but(FAMILY, at_5=1.5),
    "made beyond all integers": but(FAMILY, at_5=10**30),
    "a unit that is none": but(FAMILY, at_6=None),
    "registered maybe": but(FAMILY, at_7="maybe"),
    "a child of no family": but(CHILD, at_1=None),
    "a child of an unknown type": but(CHILD, at_2="banana"),
    "no label names": but(CHILD, at_4=None),
    "label names that are a text": but(CHILD, at_4="a"),
    "a label name that is a number": but(CHILD, at_4=[1]),
    "a label name twice": but(CHILD, at_4=["a", "a"], at_7=["1", "1"]),
    "no samples": but(CHILD, at_5=[], at_6=[]),
    "more names than variants": but(CHILD, at_5=["bad_total", "bad_other"]),
    "a sample without a name": but(CHILD, at_5=[None]),
    "a sample's name that SQLite cannot hold": but(CHILD, at_5=["\udc00"]),
    "a variant of a counter": but(CHILD, at_6=["1.0"]),
    "a variant that is none": but(CHILD, at_6=[None]),
    "fewer label values than names": but(CHILD, at_7=[]),
    "a label value that is none": but(CHILD, at_7=[None]),
    "a label value that is a number": but(CHILD, at_7=[5]),
    "no cell": but(CHILD, at_8=None),
    "a cell that is a fraction": but(CHILD, at_8=8.5),
    "a cell that is true": but(CHILD, at_8=True),
    "a cell below all": but(CHILD, at_8=-1),
    "a cell of marks": but(CHILD, at_8=0),
    "a cell beyond all": but(CHILD, at_8=layout.CELL_BLOCKS * layout.BLOCK_CELLS + 8),
    "a cell beyond all integers": but(CHILD, at_8=2**80),
    "a cell in a block of nobody": but(CHILD, at_8=9000 * layout.BLOCK_CELLS + 8),
    "cells in two blocks": but(HISTOGRAM, at_8=layout.BLOCK_CELLS - 1),
    "made at NaN": but(CHILD, at_9=float("nan")),
    "made never": but(CHILD, at_9=float("inf")),
    "made at a text": but(CHILD, at_9="noon"),
    "made at <Mock>": b'["child", "bad", "counter", false, ["a"], ["bad_total"], [""], ["1"], 8, <Mock name=time()>]',
    "a bound that is no number": but(HISTOGRAM, at_6=["", "high"]),
    "an info that is no JSON": ["child", "bad", "info", False, [], ["bad_info"], ["version"], [], 8, 1.0],
    "an info of numbers": ["child", "bad", "info", False, [], ["bad_info"], ['{"a": 1}'], [], 8, 1.0],
    "a state that SQLite cannot hold": ["child", "bad", "stateset", False, [], ["bad"], ["\ud800"], [], 8, 1.0],
    "an exemplar without labels": but(EXEMPLAR, at_7=None),
    "an exemplar of numbers": but(EXEMPLAR, at_7={"trace": 5}),
    "an exemplar without a value": but(EXEMPLAR, at_8=None),
    "an exemplar beyond all floats": but(EXEMPLAR, at_8=10**400),
    "an exemplar at no time": but(EXEMPLAR, at_9=None),
    "an exemplar at NaN": but(EXEMPLAR, at_9=float("nan")),
    "an exemplar with fewer values than names": but(EXEMPLAR, at_6=[]),
}


class Metrics:
    """One of each kind."""

    def __init__(self) -> None:
        self.good = Counter("good", "Good", ["a"], registry=None)
        self.busy = Gauge("busy", "Busy", multiprocess_mode="livesum", registry=None)
        self.newest = Gauge("newest", "Newest", multiprocess_mode="mostrecent", registry=None)
        self.latency = Histogram("latency", "Latency", ["a"], registry=None)
        self.link = Enum("link", "Link", states=["up", "down"], registry=None)
        self.build = Info("build", "Build", registry=None)

    def use(self, label: str) -> None:
        """All of them."""
        self.good.labels(label).inc()
        self.busy.set(1)
        self.newest.set(7)
        self.latency.labels(label).observe(0.3)
        self.link.state("down")
        self.build.info({"version": "1"})


class Raw(str):
    """A text that is any bytes in a journal."""

    payload: bytes

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        """The bytes."""
        return self.payload


def append(payload: bytes) -> None:
    """Write a frame to the journal of this process, whatever is in it."""
    store, raw = sqlmetrics.install(), Raw(payload.decode("latin-1"))
    raw.payload = payload
    with store.part.binding():
        store.part.arenas()[0].journal.append(raw)


def poisoned(write: Callable[[Metrics], None]) -> Child:
    """A process that uses its metrics, does what poisons its journal, and uses new children."""
    one = Child()
    if one.in_child:
        store = sqlmetrics.install()
        metrics = Metrics()

        def begin() -> None:
            metrics.use("before")
            write(metrics)
            metrics.use("after")

        def use(label: str) -> None:
            metrics.use(label)

        one.serve(begin=begin, use=use, flush=lambda: store.flush().name)
    return one


def shown(alive: int, uses: dict[str, int]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape has to show."""
    found: dict[Any, float] = {("busy", ()): alive, ("newest", ()): 7}
    found[("link", (("link", "up"),))], found[("link", (("link", "down"),))] = 0, 1
    found[("build_info", (("version", "1"),))] = 1
    for label, times in uses.items():
        labels = (("a", label),)
        found[("good_total", labels)] = found[("latency_count", labels)] = times
        found[("latency_sum", labels)] = pytest.approx(0.3 * times)
    return found


def seen() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape shows, without buckets and without what the nonsense may have named."""
    found = scrape()
    return {key: number for key, number in found.items() if "_bucket" not in key[0] and not key[0].startswith("bad")}


def flush(store: sqlmetrics.Store) -> None:
    """Flush until nothing is left to do."""
    outcome = wait_for(lambda: (result := store.flush()) is not Outcome.BUSY and result)
    assert outcome is not Outcome.FAILED


def goes_on(store: sqlmetrics.Store, shell: Shell, one: Child) -> None:
    """All that is right in a poisoned process, and in another one, is seen by everybody all along."""
    metrics = Metrics()
    metrics.use("here")
    one.do("begin")
    uses = {"here": 1, "before": 1, "after": 1}
    assert seen() == shown(2, uses)
    assert one.do("flush") != "FAILED"
    assert seen() == shown(2, uses)
    flush(store)
    one.do("use", "later")
    metrics.use("here")
    assert seen() == shown(2, uses | {"here": 2, "later": 1})
    assert one.do("flush") != "FAILED"
    flush(store)
    assert shell.value("SELECT sum(value) FROM metrics WHERE metric = 'good_total'") == 5.0
    one.do("use", "last")  # in its journal when it is killed
    one.kill()
    assert seen() == shown(1, uses | {"here": 2, "later": 1, "last": 1})
    metrics.use("here")
    flush(store)
    assert seen() == shown(1, uses | {"here": 3, "later": 1, "last": 1})
    assert shell.value("SELECT sum(value) FROM metrics WHERE metric = 'good_total'") == 7.0
    assert shell.value("PRAGMA integrity_check") == "ok"


def payload_of(name: str) -> bytes:
    """The bytes of a record."""
    record = NONSENSE[name]
    return record if isinstance(record, bytes) else json.dumps(record).encode("ascii")


@pytest.mark.parametrize("name", NONSENSE)
def test_a_record_that_makes_no_sense_is_left_out(store: sqlmetrics.Store, name: str) -> None:
    """In scrapes and in rows, and what was announced before and after it is there."""
    metrics = Metrics()
    metrics.use("before")
    append(payload_of(name))
    metrics.use("after")
    expected = shown(1, {"before": 1, "after": 1})
    assert seen() == expected
    flush(store)
    assert seen() == expected
    assert store.trouble.counts == {"records": 1}
    assert not [key for key in scrape() if key[0].startswith("bad")]


def test_records_that_make_no_sense_are_in_the_way_of_no_process(
    store: sqlmetrics.Store, shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a living process and of one that was killed, in scrapes, in rows and for the sqlite3 shell."""
    goes_on(store, shell, poisoned(lambda _: [append(payload_of(name)) for name in NONSENSE] and None))
    assert not [key for key in scrape() if key[0].startswith("bad")]
    assert not [record for record in caplog.records if "readers skip it" not in record.message]


@pytest.mark.parametrize("name", ["no JSON", "a child with a field too many", "a cell in a block of nobody"])
def test_records_of_a_process_that_was_killed_before_any_flush_are_left_out(
    store: sqlmetrics.Store, shell: Shell, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever settles it tells of it, once, and counts them all."""
    payload = payload_of(name)

    def write(_: Metrics) -> None:
        sqlmetrics.install().flusher.stop()
        for _ in range(5):
            append(payload)

    one = poisoned(write)
    one.do("begin")
    one.kill()
    Metrics().use("here")
    with caplog.at_level(logging.INFO, "sqlmetrics"):
        flush(store)
        wait_for(lambda: [record for record in caplog.records if "readers skip it" in record.message])
    assert seen() == shown(1, {"here": 1, "before": 1, "after": 1})
    told = [record.message for record in caplog.records if "readers skip it" in record.message]
    assert len(told) == 1
    assert store.path in told[0]


def test_what_was_left_out_is_counted_by_its_own_process(store: sqlmetrics.Store) -> None:
    """In the figures that a collector shows on request."""
    one = poisoned(lambda _: [append(b"nonsense") for _ in range(3)] and None)
    one.do("begin")
    Metrics().use("here")
    # Figures go with what is to be flushed anyway.
    wait_for(lambda: [one.do("use", "more"), one.do("flush")] and own("errors_total", cause="records") == 3.0)
    assert own("errors_total", cause="damaged") == 0.0
    one.kill()
    assert own("errors_total", cause="records") == 3.0


_READER = """
import logging, sys, sqlmetrics
logging.basicConfig(level=logging.INFO)
for _ in range(3):
    print(sqlmetrics.generate_latest(sys.argv[1]).decode())
"""


def test_a_process_that_only_scrapes_tells_of_what_it_has_settled(store: sqlmetrics.Store) -> None:
    """It has no flusher that would."""

    def write(_: Metrics) -> None:
        sqlmetrics.install().flusher.stop()
        append(b"nonsense")

    one = poisoned(write)
    one.do("begin")
    one.kill()
    command = [sys.executable, "-c", _READER, store.path]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.count('good_total{a="after"} 1.0') == 3
    assert found.stderr.count("readers skip it") == 1


OWN = {
    "process_record": lambda _: '["process", null, 1, 1, 1, "", []]',
    "family_record": lambda _: '["family", null]',
}


@pytest.mark.parametrize("writer", OWN)
def test_others_stand_in_for_what_a_process_says_of_itself_and_its_families(
    monkeypatch: pytest.MonkeyPatch, store: sqlmetrics.Store, shell: Shell, writer: str
) -> None:
    """What it counts is shown and kept all the same."""
    one = Child()
    if one.in_child:
        monkeypatch.setattr(arenas, writer, OWN[writer])
        own_store = sqlmetrics.install()
        only = {
            "counter": Counter("only", "Only", ["a"], registry=None),
            "gauge": Gauge("gauge", "Gauge", registry=None),
            "newest": Gauge("newer", "Newer", multiprocess_mode="mostrecent", registry=None),
            "link": Enum("road", "Road", states=["up", "down"], registry=None),
        }

        def use() -> None:
            only["counter"].labels("1").inc(3)
            only["gauge"].set(4)
            only["newest"].set(5)
            only["link"].state("down")

        one.serve(use=use, flush=lambda: own_store.flush().name)
    one.do("use")
    expected = {("only_total", (("a", "1"),)): 3.0, ("newer", ()): 5.0, ("road", (("road", "down"),)): 1.0}
    for _ in range(2):
        found = scrape()
        assert {key: found[key] for key in expected} == expected
        assert [number for (name, _), number in found.items() if name == "gauge"] == [4.0]
        assert one.do("flush") != "FAILED"
    one.kill()
    Counter("here", "Here", registry=None).inc()
    flush(store)
    found = scrape()
    assert {key: found[key] for key in expected} == expected
    assert [number for (name, _), number in found.items() if name == "gauge"] == [4.0]
    assert shell.value("SELECT value FROM metrics WHERE metric = 'only_total'") == 3.0
    assert value("here_total") == 1.0


def test_a_child_in_the_cells_of_another_one_is_left_out(store: sqlmetrics.Store, shell: Shell) -> None:
    """Rows can have a cell only once; the child that came first keeps it."""

    def write(metrics: Metrics) -> None:
        append(json.dumps(FAMILY).encode())
        append(json.dumps(but(CHILD, at_8=metrics.good.labels("before")._value._cell)).encode())

    goes_on(store, shell, poisoned(write))
    assert shell("SELECT * FROM metrics WHERE metric = 'bad_total'") == []


class TakenByOthers(deque[Any]):
    """A queue of which another thread takes the rest as soon as somebody has looked how much there is."""

    def __len__(self) -> int:
        found = super().__len__()
        self.clear()
        return found


def test_another_thread_may_tell_of_what_was_left_out(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape of a process that only scrapes does it, and a server answers in several threads."""
    monkeypatch.setitem(nonsense._noted, path, TakenByOthers(["nonsense"]))
    nonsense.tell(path, Trouble())


def test_another_thread_may_drop_what_was_removed(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flusher and a call of `flush()` do it at the same time, and neither of the two flushes fails."""
    jobs = Counter("jobs", "Jobs", ["of"])
    jobs.labels("a").inc()
    jobs.remove("a")
    monkeypatch.setattr(labelsets, "_removed", TakenByOthers(labelsets._removed))
    assert store.flush() is not Outcome.FAILED
    assert not store.file.is_doubted()
