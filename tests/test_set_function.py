"""`Gauge.set_function` across processes: each asks its own, at flushes and before its scrapes."""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial

import pytest
from helpers import child, flush_all, hasty_threads, scrape, unflushed, value, wait_for
from interruption import Interruption
from prometheus_client import REGISTRY, Gauge

import sqlmetrics
from sqlmetrics.client import sampling
from sqlmetrics.store import installed as stores

pytestmark = pytest.mark.promise(12)


def test_a_function_is_asked_before_a_scrape_of_its_process(store: sqlmetrics.Store) -> None:
    """In the peer's mode the gauge stays at 0."""
    answers = iter(range(1, 100))
    gauge = Gauge("queue", "Queue", multiprocess_mode="sum")
    gauge.set_function(lambda: next(answers))

    first = value("queue")

    assert first is not None
    assert first >= 1
    assert value("queue") > first


def test_a_function_is_asked_at_each_flush_for_the_others(path: str, shell) -> None:
    """Its owner does nothing, and others see it: by a scrape, and by the shell."""
    sqlmetrics.install(path, flush_interval=0.02)
    gauge = Gauge("queue", "Queue", ["of"], multiprocess_mode="livesum")

    def begin() -> None:
        begun = time.monotonic()
        gauge.labels("child").set_function(lambda: time.monotonic() - begun)

    with child(begin=begin) as one:
        one.do("begin")
        wait_for(lambda: (value("queue", of="child") or 0) > 0.1)
        shell.wait_for_row("SELECT 1 FROM samples WHERE metric = 'queue' AND value > 0.1")
        one.kill()
    assert value("queue", of="child") is None


def test_each_process_asks_its_own(path: str) -> None:
    """A gauge with a function that was made before the fork, as with --preload: also in a worker that is idle."""
    sqlmetrics.install(path, flush_interval=0.02)
    Gauge("pid_of", "Pid", multiprocess_mode="liveall").set_function(os.getpid)

    with child(nothing=lambda: None) as one:
        wait_for(lambda: value("pid_of", pid=str(one.pid)) == one.pid)
        assert value("pid_of", pid=str(os.getpid())) == os.getpid()


def test_the_other_methods_of_a_gauge_with_a_function_do_nothing(store: sqlmetrics.Store) -> None:
    """As the peer's documentation says."""
    gauge = Gauge("queue", "Queue", multiprocess_mode="sum")
    gauge.set_function(lambda: 7)
    gauge.set(1)
    gauge.inc()
    gauge.dec(5)

    assert value("queue") == 7


def test_a_function_that_raises_costs_its_own_sample_only(
    store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged once, and once more if it has worked in between."""
    answers: list[object] = []
    bad, good = Gauge("bad", "Bad", multiprocess_mode="sum"), Gauge("good", "Good", multiprocess_mode="sum")
    bad.set_function(lambda: answers[0])  # type: ignore[arg-type, return-value]
    good.set_function(lambda: 3)

    for _ in range(3):
        assert value("good") == 3
    assert len([one for one in caplog.records if "IndexError" in one.getMessage()]) == 1
    answers.append(5)
    assert value("bad") == 5
    answers.clear()
    assert (value("bad"), value("good")) == (5, 3)
    assert len([one for one in caplog.records if "IndexError" in one.getMessage()]) == 2


def test_a_function_may_scrape(store: sqlmetrics.Store) -> None:
    """It is not asked again within its own answer."""
    Gauge("other", "Other", multiprocess_mode="sum").set(2)
    Gauge("twice", "Twice", multiprocess_mode="sum").set_function(lambda: 2 * (value("other") or 0))

    assert value("twice") == 4


def test_a_function_set_before_install_is_taken_over(path: str) -> None:
    """With its gauge; after uninstall the gauge asks it in memory again."""
    gauge = Gauge("queue", "Queue", multiprocess_mode="sum")
    gauge.set_function(lambda: 7)
    sqlmetrics.install(path)
    assert value("queue") == 7
    sqlmetrics.uninstall()

    assert REGISTRY.get_sample_value("queue") == 7


def test_the_default_registry_asks_too(store: sqlmetrics.Store) -> None:
    """With the aggregate over processes."""
    gauge = Gauge("workers", "Workers", multiprocess_mode="livesum")
    gauge.set_function(lambda: 1)

    with child(touch=lambda: value("workers")) as one:
        wait_for(lambda: one.do("touch") == 2)  # the flush that the function brought about
        assert REGISTRY.get_sample_value("workers") == 2


def test_nothing_to_ask_means_no_work(path: str) -> None:
    """An idle process with plain metrics writes nothing; one with a function does, at every flush."""
    store = sqlmetrics.install(path, flush_interval=60)
    Gauge("plain", "Plain").set(1)
    flush_all(store)
    assert store.flush().name == "NOTHING_CHANGED"
    Gauge("clock", "Clock").set_function(time.time)

    # The flusher has been woken, and may be the one that writes an answer of these.
    wait_for(lambda: [store.flush().name for _ in range(3)] == ["DONE"] * 3)


def test_a_gauge_with_a_function_that_is_removed_stays_away(path: str) -> None:
    """No process's answer brings the series back; whoever asks for the child anew may give it a function again."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    queue = Gauge("queue", "Queue", ["of"], multiprocess_mode="livesum")
    queue.labels("both").set_function(lambda: 1)

    with child(touch=lambda: value("queue", of="both"), nothing=lambda: None) as one:
        wait_for(lambda: one.do("touch") == 2)
        queue.remove("both")
        for _ in range(5):
            store.flush()
            assert value("queue", of="both") is None
            assert one.do("touch") is None
        queue.labels("both").set_function(lambda: 5)

        assert value("queue", of="both") == 5


@pytest.mark.parametrize("by", ["this process", "another", "clear"])
def test_an_answer_that_comes_after_the_removal_does_not_bring_the_gauge_back(path: str, by: str) -> None:
    """The function was being called when the series was removed."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    queue = Gauge("queue", "Queue", ["of"], multiprocess_mode="livesum")
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> float:
        begun.set()
        go_on.wait(20)
        return 7

    with child(remove=lambda: queue.remove("slow"), count=lambda: queue.labels("slow").set(1)) as one:
        one.do("count")
        queue.labels("slow").set_function(slow)
        assert begun.wait(20)
        if by == "another":
            one.do("remove")
            store.part.look_for_marks()
        elif by == "clear":
            queue.clear()
        else:
            queue.remove("slow")
        go_on.set()
        Gauge("other", "Other").set(1)

        flush_all(store)
        assert value("queue", of="slow") is None
        queue.labels("slow").set_function(lambda: 5)
        assert value("queue", of="slow") == 5


def test_a_removal_at_any_moment_of_an_answer_is_one(path: str) -> None:
    """At each line of the module that asks: the series stays away."""
    store = unflushed(path)
    line, where = 0, "somewhere"
    while where:
        line += 1
        queue = Gauge(f"queue{line}", "Queue", ["of"], multiprocess_mode="livesum")
        queue.labels("it").set_function(lambda: 1)
        watch = Interruption(line, [sampling], partial(queue.remove, "it"))
        with watch.watching():
            sampling.sampler.ask()
        store.flush()
        where = watch.where
        assert value(f"queue{line}", of="it") == (None if where else 1), where
    assert line > 20


def test_a_function_that_raises_systemexit_does_not_end_the_flusher(
    path: str, shell, caplog: pytest.LogCaptureFixture
) -> None:
    """The flusher goes on, and logs it once."""
    sqlmetrics.install(path, flush_interval=0.02)
    Gauge("bad", "Bad").set_function(lambda: sys.exit("bad"))
    Gauge("good", "Good", multiprocess_mode="sum").set(3)

    shell.wait_for_row("SELECT 1 FROM samples WHERE metric = 'good' AND value = 3.0")
    assert value("good") == 3
    assert len([one for one in caplog.records if "SystemExit" in one.getMessage()]) == 1


def test_functions_may_be_set_while_others_are_asked(store: sqlmetrics.Store) -> None:
    """In other threads, beside scrapes and removals: nobody's iteration is disturbed."""
    gauge = Gauge("queue", "Queue", ["of"], multiprocess_mode="sum")
    done: list[int] = []

    def add(thread: int) -> None:
        try:
            for number in range(300):
                gauge.labels(f"{thread}.{number}").set_function(lambda: 1)
        finally:
            done.append(thread)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(2)]
    with hasty_threads(1e-5):
        for thread in threads:
            thread.start()
        while len(done) < 2:
            value("queue", of="0.0")
            gauge.remove("no such")
        for thread in threads:
            thread.join()
    assert sum(v for (name, _), v in scrape().items() if name == "queue") == 600


def test_a_child_that_was_removed_may_get_a_function_again(store: sqlmetrics.Store) -> None:
    """By whoever holds it."""
    queue = Gauge("queue", "Queue", ["of"], multiprocess_mode="sum")
    held = queue.labels("a")
    held.set_function(lambda: 1)
    queue.remove("a")
    assert value("queue", of="a") is None
    held.set_function(lambda: 8)

    assert value("queue", of="a") == 8


def test_an_answer_that_comes_after_uninstall_goes_nowhere(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The gauge asks the function itself from now on."""
    store = sqlmetrics.install(path, flush_interval=1000)
    queue = Gauge("queue", "Queue", registry=None)
    answers = iter([lambda: (sqlmetrics.uninstall(), 7)[1]])
    queue.set_function(lambda: next(answers, lambda: 8)())

    store.flush()

    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    assert queue.collect()[0].samples[0].value == 8


def test_uninstall_waits_for_the_scrape_of_another_thread(path: str) -> None:
    """Its connection is not closed under it."""
    sqlmetrics.install(path)
    Gauge("queue", "Queue", registry=None).set(1)
    assert value("queue", pid=str(os.getpid())) == 1
    access = stores.reader()._access
    scrapes, ends, found = threading.Event(), threading.Event(), []

    def scrape_slowly() -> None:
        with access() as connection:
            for _ in connection.execute("SELECT 1 UNION SELECT 2"):
                scrapes.set()
                ends.wait(20)
            found.append("whole")

    threads = [threading.Thread(target=scrape_slowly), threading.Thread(target=sqlmetrics.uninstall)]
    threads[0].start()
    assert scrapes.wait(20)
    threads[1].start()
    wait_for(lambda: stores.installed() is None)
    ends.set()
    for thread in threads:
        thread.join(20)
    assert found == ["whole"]
    assert not access.is_cut_off()
