"""Records that are too long for the journals, and processes that take much of their room: all others can count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest
from helpers import child, scrape, value, wait_for
from outsiders import Operator
from prometheus_client import Counter, Enum, Gauge, Histogram, Info
from prometheus_client.samples import Exemplar

import sqlmetrics
from sqlmetrics.cells import journal, layout

pytestmark = pytest.mark.promise(4)

MEGABYTE = 1 << 20
JOIN = """
import sys, time, sqlmetrics, prometheus_client
sqlmetrics.install(sys.argv[1], flush_interval=1000)
for number in range(20):
    prometheus_client.Counter(f"other_{number}", "Other", ["of"]).labels(sys.argv[2]).inc()
print("counted", flush=True)
sys.stdin.read()
"""


def another_process_can_count(path: str) -> bool:
    """Whether one that begins now is in the scrapes, all of it, before any of it is in rows."""
    who = str(time.monotonic())
    command = [sys.executable, "-c", JOIN, path, who]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "counted\n"
        shown = scrape(path)
        other.communicate("")
    return all(shown.get((f"other_{number}_total", (("of", who),))) == 1 for number in range(20))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


LONG: dict[str, Any] = {
    "a label value": lambda: Counter("long", "", ["of"]).labels("x" * 70 * MEGABYTE),
    "a label value of letters that take more room": lambda: Counter("long", "", ["of"]).labels("\U0001f600" * 100_000),
    "many labels together": lambda: Counter("long", "", [f"l{n}" for n in range(300)]).labels(*["x" * 5000] * 300),
    "a name": lambda: Counter("long" + "g" * 2 * MEGABYTE, ""),
    "a gauge": lambda: Gauge("long", "", ["of"], multiprocess_mode="livemostrecent").labels("x" * 2 * MEGABYTE),
    "a histogram": lambda: Histogram("long", "", ["of"]).labels("x" * 2 * MEGABYTE),
    "a state": lambda: Enum("long", "", states=["a", "x" * 2 * MEGABYTE]),
}


def use(metric: Any) -> None:
    """Do something with a metric of whatever kind."""
    if hasattr(metric, "observe"):
        metric.observe(1)
    elif hasattr(metric, "state"):
        metric.state("a")
    elif isinstance(metric, Gauge):
        metric.set(1)
    else:
        metric.inc()


@pytest.mark.parametrize("what", LONG)
@pytest.mark.slow
def test_a_record_that_is_too_long_takes_no_room(path: str, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted in memory, told once with its metric and its length, and hurts no other child and no process."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    before = Counter("before", "Before")
    before.inc()
    long = LONG[what]()
    use(long)
    after = Counter("after", "After")
    for _ in range(3):
        use(long)
        before.inc()
        after.inc()
        store.flush()

    assert store.file.extents.used() == 1
    assert another_process_can_count(path)
    assert (value("before_total"), value("after_total")) == (4, 3)
    wait_for(lambda: len(warnings_of(caplog)) >= 1)
    (warning,) = warnings_of(caplog)
    assert "bytes of long" in warning
    assert "too long" in warning
    if isinstance(long, Counter):
        assert long._value.get() == 4


def test_a_record_of_just_the_most_is_shown(path: str) -> None:
    """And is a row like any other; its extents are free again then, all of them."""
    store = sqlmetrics.install(path, flush_interval=1000)
    jobs = Counter("jobs", "Jobs", ["of"])
    for number in range(5):
        jobs.labels(f"{number}" * (journal.LONGEST - 200)).inc()
    assert store.file.extents.used() > 4 * journal.LONGEST // layout.PAGE
    assert sorted(scrape().values()) == [1] * 5
    for _ in range(3):
        store.flush()
    jobs.labels("last").inc()
    store.flush()
    assert store.file.extents.used() == 1
    assert sorted(scrape().values()) == [1] * 6


def test_a_long_help_text_is_shortened_for_others(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The counts are seen by all; the log says it once."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    jobs = Counter("jobs", "\U0001f600" * MEGABYTE, ["of"])
    for number in range(5):
        jobs.labels(f"{number}").inc()
    assert sum(scrape().values()) == 5
    assert another_process_can_count(path)
    store.flush()
    wait_for(lambda: len(warnings_of(caplog)) >= 1)
    assert [
        "the help text of jobs has 1,048,576 characters; others see 65,536 of them" in text
        for text in warnings_of(caplog)
    ] == [True]


def test_a_long_exemplar_keeps_no_other_waiting(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """By way of a value class, as libraries do it: nobody has checked its length."""
    store = sqlmetrics.install(path, flush_interval=1000)
    jobs = Counter("jobs", "Jobs", ["of"])
    for number in range(20):
        one = jobs.labels(f"{number}")
        one.inc()
        long = "x" * (2 * MEGABYTE if number % 2 else 1)
        one._value.set_exemplar(Exemplar({"trace": long}, 1.0, time.time()))
        one._value.set_exemplar(Exemplar({"trace": long}, 2.0, time.time()))
    store.flush()
    store.flush()
    registry = sqlmetrics.MultiProcessCollector(None)
    shown = [s.exemplar for metric in registry.collect() for s in metric.samples if s.exemplar]
    assert [one.labels for one in shown] == [{"trace": "x"}] * 10
    assert sum(scrape().values()) == 20
    wait_for(lambda: len(warnings_of(caplog)) >= 1)  # the flusher may have noticed it, and tells it a moment later
    assert ["too long" in text for text in warnings_of(caplog)] == [True]


def test_an_info_that_is_too_long_is_not_shown_and_the_next_one_is(path: str) -> None:
    """Other processes see what is said after it."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    info = Info("version", "Version")
    for text in ("short", "x" * 2 * MEGABYTE, "other", "y" * 2 * MEGABYTE, "last"):
        info.info({"text": text})
        store.flush()
    assert value("version_info", text="last") == 1
    assert another_process_can_count(path)


def test_what_is_too_long_stays_in_memory_also_when_the_files_are_new(path: str) -> None:
    """It is brought along, and what fits is in the new files."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    jobs = Counter("jobs", "Jobs", ["of"])
    long = "x" * 2 * MEGABYTE
    jobs.labels(long).inc(3)
    jobs.labels("short").inc(2)
    old = store.file
    for suffix in ("", "-wal", "-shm", "-cells"):
        os.unlink(path + suffix)
    wait_for(lambda: store.flush() and store.file is not old)
    wait_for(lambda: value("jobs_total", of="short") == 2)
    with child(
        use=lambda: (jobs.labels(long).inc(), jobs.labels("short").inc(), jobs.labels(long)._value.get())[2]
    ) as one:
        assert one.do("use") == 1
        jobs.labels(long).inc()
        assert jobs.labels(long)._value.get() == 4
        assert value("jobs_total", of="short") == 3
    jobs.remove(long)
    assert jobs.labels(long)._value.get() == 0


def test_one_process_leaves_room_for_the_others(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody can flush: new ones have theirs, and when the lock is gone, all is shown and the room is free."""
    store = sqlmetrics.install(path, flush_interval=0.05)
    extents = store.file.extents
    monkeypatch.setattr(extents, "count", 1024)
    jobs = Counter("jobs", "Jobs", ["of"])
    jobs.labels("first").inc()
    store.flush()

    def count(who: str) -> int:
        for number in range(90):
            jobs.labels(f"{who}{number}" + "x" * 50_000).inc()
        return extents.used()

    def join(who: str) -> None:
        for number in range(100):
            jobs.labels(f"{who}{number}").inc()

    def shown(who: str, shortest: int = 0) -> int:
        texts = [labels[0][1] for name, labels in scrape() if name == "jobs_total"]
        return sum(text.startswith(who) and len(text) > shortest for text in texts)

    with Operator(path, "BEGIN IMMEDIATE"):
        assert 1024 * 0.4 < count("a") <= 1024 / 2
        with child(count=count, join=join) as one, child(count=count, join=join) as two:
            assert 1024 * 0.55 < int(str(one.do("count", "b"))) <= 1024 * 0.75
            two.do("join", "c")
            assert shown("c") == 100
            two.do("count", "d")
            with child(join=join) as three:
                three.do("join", "e")
                assert shown("e") == 100
            two.kill()
            assert shown("a", 1000) < 90
            one.kill()
    wait_for(lambda: store.flush() and shown("a", 1000) == 90)
    wait_for(lambda: store.flush() and extents.used() <= 2)
