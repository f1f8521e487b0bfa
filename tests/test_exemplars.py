"""Exemplars of counters and histograms: the newest of each series, of whatever process, in every scrape at once."""

from __future__ import annotations

import os
import time

import pytest
from exemplified import App, quiet, shown, stop_flusher, traces
from freezegun import freeze_time
from helpers import Shell, child, in_child, scrape, value, wait_for

import sqlmetrics
from sqlmetrics.cells import exemplars
from sqlmetrics.rows import exemplars as rows

pytestmark = pytest.mark.promise(2, 3)

KINDS = {"as one object": {}, "as 16 values": {"process_identifier": lambda: f"worker {os.getpid()}"}}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_an_exemplar_is_seen_at_once_by_another_process(path: str, settings: dict[str, object]) -> None:
    """Counters and buckets, with no flush, labels, amount and time of each; the sum and the count have none."""
    quiet(path, **settings)
    app = App()

    def use() -> float:
        app.count("/", "a", 2.5)
        app.observe(1.5, "b")
        app.observe(7, "c")
        return time.time()

    with child(use=use) as one:
        before = time.time()
        after = one.do("use")
        found = shown()

    assert {name: exemplar[:2] for name, exemplar in found.items()} == {
        "/": ({"trace": "a"}, 2.5),
        "2.0": ({"trace": "b"}, 1.5),
        "+Inf": ({"trace": "c"}, 7.0),
    }
    assert all(before <= float(exemplar.timestamp) <= float(after) for exemplar in found.values())


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("flushed", [(), (0,), (1,), (0, 1), (1, 0)])
def test_the_newest_of_two_processes_wins(path: str, first: int, flushed: tuple[int, ...], shell: Shell) -> None:
    """Whoever of them has flushed, and in whatever order."""
    store = quiet(path)
    app = App()
    app.count("/", "oldest")
    steps = {"count": app.count, "flush": lambda: store.flush() and None, "stop": stop_flusher(store)}
    with child(**steps) as one, child(**steps) as two:
        both = (one, two) if first == 0 else (two, one)
        for process in both:
            process.do("count", "/", "old")
            process.do("stop")
        both[0].do("count", "/", "older")
        both[1].do("count", "other", "other")
        both[1].do("count", "/", "newest")
        both[0].do("flush")
        both[1].do("flush")
        both[0].do("count", "/", "newer still")
        both[1].do("count", "/", "the newest")
        for which in flushed:
            both[which].do("flush")
            assert traces() == {"/": "the newest", "other": "other"}
        assert traces() == {"/": "the newest", "other": "other"}
        one.end()
        two.end()
    store.flush()
    assert traces() == {"/": "the newest", "other": "other"}
    assert in_child(traces) == {"/": "the newest", "other": "other"}
    assert len(shell("SELECT * FROM exemplar")) == 2


def test_a_killed_process_leaves_its_exemplars(path: str, shell: Shell) -> None:
    """SIGKILL right after: in scrapes before anybody has settled it, after that, and for a reader that is new."""
    store = quiet(path)
    app = App()
    with child(count=app.count, observe=app.observe) as one:
        one.do("count", "/", "last words")
        one.do("observe", 0.5, "and more")
        one.kill()
        assert traces() == {"/": "last words", "1.0": "and more"}
        assert in_child(traces) == {"/": "last words", "1.0": "and more"}
        store.flush()
    assert shell("SELECT os_pid FROM processes") == [{"os_pid": os.getpid()}]
    assert traces() == {"/": "last words", "1.0": "and more"}
    assert in_child(traces) == {"/": "last words", "1.0": "and more"}


def test_many_exemplars_in_one_flush_interval_take_one_record_each(path: str) -> None:
    """One record each in the journal, whatever their number, and the last of each series after the flush."""
    store = quiet(path)
    app = App()

    def use() -> int:
        app.observe(0.5, "zeroth")
        store.flusher.stop()
        store.flush()
        app.count("/", "first")
        app.observe(0.5, "first")
        (arena,) = store.part.arenas()
        before = store.file.published[arena.slot]
        for number in range(5_000):
            app.count("/", str(number))
            app.observe(0.5, str(number))
        return store.file.published[arena.slot] - before

    def flush() -> int:
        (arena,) = store.part.arenas()
        before = store.file.published[arena.slot]
        store.flush()
        return store.file.published[arena.slot] - before

    with child(use=use, flush=flush) as one:
        assert one.do("use") == 0
        assert traces() == {"/": "first", "1.0": "first"}
        assert 0 < int(str(one.do("flush"))) < 1_000
        assert traces() == {"/": "4999", "1.0": "4999"}
        assert one.do("flush") == 0
    assert value("requests_total", who="/") == 5_001


def test_the_flusher_writes_exemplars_that_wait(path: str) -> None:
    """Within an interval, without any call."""
    sqlmetrics.install(path, flush_interval=0.05)
    app = App()

    def use() -> None:
        for number in range(100):
            app.count("/", str(number))

    with child(use=use) as one:
        one.do("use")
        wait_for(lambda: traces() == {"/": "99"})


def test_new_children_do_not_hurry_exemplars_that_wait(path: str) -> None:
    """They are told once in a flush interval, though each new child has the flusher run."""
    store = quiet(path)
    app = App()
    app.count("/", "first")
    store.flush()
    app.count("/", "second")
    app.count("/", "third")
    (arena,) = store.part.arenas()
    for number in range(3):
        app.requests.labels(f"new {number}").inc()
        wait_for(lambda: not arena.has_news())
    assert traces() == {"/": "second"}


def test_old_exemplars_are_not_shown_and_then_deleted(path: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes after the observation, whether the reader knows them already or not."""
    store = quiet(path)
    app = App()
    with freeze_time("2030-01-01 12:00:00") as clock:
        app.count("old", "a")
        app.observe(1.5, "a")
        store.flush()
        clock.tick(300)
        app.count("new", "b")
        assert traces() == {"old": "a", "2.0": "a", "new": "b"}
        clock.tick(exemplars.LIFE - 300)
        assert traces() == {"old": "a", "2.0": "a", "new": "b"}
        clock.tick(1)
        assert traces() == {"new": "b"}
        assert in_child(traces) == {"new": "b"}
        store.flush()
        assert shell.value("SELECT count(*) FROM exemplar") == 3
        store.file.sweeping.rest(0)
        app.requests.labels("news").inc()
        store.flush()
        assert shell.value("SELECT count(*) FROM exemplar") == 1
        clock.tick(300)
        assert traces() == {}
        assert scrape()["requests_total", (("who", "old"),)] == 1


def test_a_clock_that_was_set_back_does_not_hide_newer_exemplars(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exemplar of the time before is not the newest until that time comes again."""
    store = quiet(path)
    app = App()
    with freeze_time("2031-01-01"):
        app.count("/", "of the future")
        store.flush()
        assert traces() == {"/": "of the future"}
    assert traces() == {}
    store.file.sweeping.rest(0)
    app.count("/", "of now")
    store.flush()
    app.count("/", "of just now")
    assert traces() == {"/": "of just now"}


def test_collect_of_a_metric_shows_the_processs_own_exemplars(path: str) -> None:
    """`collect()` of a metric object shows this process's own exemplars, and a forked child begins without any."""
    quiet(path)
    app = App()

    def own() -> list[object]:
        samples = [s for metric in (*app.requests.collect(), *app.latency.collect()) for s in metric.samples]
        return [sample.exemplar.labels["trace"] for sample in samples if sample.exemplar]

    app.count("/", "parent")
    app.observe(1.5, "parent too")
    assert own() == ["parent", "parent too"]
    with child(own=own, count=app.count) as one:
        assert one.do("own") == []
        one.do("count", "/", "child")
        assert one.do("own") == ["child"]
        one.end()
    assert own() == ["parent", "parent too"]
    assert traces() == {"/": "child", "2.0": "parent too"}


def test_install_takes_over_exemplars_and_uninstall_gives_them_back(path: str) -> None:
    """They are taken over with the values, and back."""
    app = App()
    app.count("/", "before")
    app.observe(0.5, "before")
    quiet(path)
    assert traces() == {"/": "before", "1.0": "before"}
    app.count("/", "between")
    sqlmetrics.uninstall()
    (requests,) = app.requests.collect()
    assert requests.samples[0].exemplar.labels == {"trace": "between"}


def test_a_fork_leaves_exemplars_that_wait_to_the_parent(path: str) -> None:
    """The parent goes on to tell them, though nothing else is to be flushed, and no operation comes."""
    store = sqlmetrics.install(path, flush_interval=0.5)
    app = App()
    app.count("/", "first")
    store.flush()
    app.count("/", "second")
    app.count("/", "third")
    (arena,) = store.part.arenas()
    app.requests.labels("new").inc()  # it has the flusher run, but those that wait have just been told
    wait_for(lambda: not arena.has_news() and not arena.changed_blocks())
    in_child(lambda: None)
    wait_for(lambda: traces() == {"/": "third"})


def test_a_scrape_parses_no_exemplar_a_second_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that knows the rows parses no exemplar a second time, and asks for none where nothing has changed."""
    store = quiet(path)
    app = App()
    for number in range(100):
        app.count(str(number), "a")
    store.flush()
    parsed: list[str] = []
    monkeypatch.setattr(rows, "label_set", lambda text: parsed.append(text) or {"trace": text})
    assert len(traces()) == 100
    assert len(parsed) == 100
    parsed.clear()
    with child(count=app.count, flush=lambda: store.flush() and None) as one:
        one.do("count", "7", "b")
        assert traces()["7"] == "b"
        one.do("flush")
        assert len(traces()) == 100
        assert len(parsed) == 1
        assert len(traces()) == 100
        assert len(parsed) == 1
