"""Exemplars of counters and histograms: the newest of each series, of whatever process, in every scrape at once."""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest
from freezegun import freeze_time
from helpers import Shell, child, in_child, scrape, value, wait_for
from outsiders import Operator
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Summary
from prometheus_client import exposition as plain
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser
from prometheus_client.samples import Exemplar

import sqlmetrics
from sqlmetrics import exemplars, layout, newest

ESCAPINGS = ["underscores", "dots", "values", "allow-utf-8"]
ODD = ["", 'a"b', "a\nb\\n", " # {} 0.0", "é😀\u2028", "\x00", "{trace=1}", ","]
PARSED = [text for text in ODD if '"' not in text]
"""The peer's own parser cannot read a quote in an exemplar, or an exemplar behind a quoted name."""


def registry(path: str | None = None) -> CollectorRegistry:
    """A registry that shows the store."""
    one = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(one, path)
    return one


def shown(path: str | None = None) -> dict[str, Exemplar]:
    """{the label `who`, else the bound, else the sample's name: exemplar}, as a scrape shows them."""
    samples = [sample for metric in registry(path).collect() for sample in metric.samples if sample.exemplar]
    return {sample.labels.get("who") or sample.labels.get("le") or sample.name: sample.exemplar for sample in samples}


def traces(path: str | None = None) -> dict[str, str]:
    """The same, but only what the label `trace` of each exemplar says."""
    return {name: exemplar.labels["trace"] for name, exemplar in shown(path).items()}


class App:
    """A counter and a histogram whose operations have exemplars."""

    def __init__(self) -> None:
        self.requests = Counter("requests", "Requests", ["who"], registry=None)
        self.latency = Histogram("latency", "Latency", buckets=(1, 2), registry=None)

    def count(self, who: str, trace: str, amount: float = 1) -> None:
        """Count once."""
        self.requests.labels(who).inc(amount, {"trace": trace})

    def observe(self, seconds: float, trace: str) -> None:
        """Observe once."""
        self.latency.observe(seconds, {"trace": trace})


def quiet(path: str, **settings: object) -> sqlmetrics.Store:
    """A store that is flushed when a test says so."""
    return sqlmetrics.install(path, flush_interval=1000, **settings)  # type: ignore[arg-type]


def stop_flusher(store: sqlmetrics.Store) -> Callable[[], None]:
    """A step of a child: no thread of its own flushes from now on."""
    return lambda: store.flusher.stop() and None


KINDS = {"as one object": {}, "as 16 values": {"process_identifier": lambda: f"worker {os.getpid()}"}}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_seen_at_once_by_another_process(path: str, settings: dict[str, object]) -> None:
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


def test_many_in_one_flush_interval(path: str) -> None:
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


def test_the_flusher_notices_that_some_wait(path: str) -> None:
    """Within an interval, without any call."""
    sqlmetrics.install(path, flush_interval=0.05)
    app = App()

    def use() -> None:
        for number in range(100):
            app.count("/", str(number))

    with child(use=use) as one:
        one.do("use")
        wait_for(lambda: traces() == {"/": "99"})


def test_new_children_do_not_hurry_those_that_wait(path: str) -> None:
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


def test_old_ones_are_not_shown_and_then_deleted(path: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
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
        monkeypatch.setattr(store, "sweeper", exemplars.Sweeper())
        app.requests.labels("news").inc()
        store.flush()
        assert shell.value("SELECT count(*) FROM exemplar") == 1
        clock.tick(300)
        assert traces() == {}
        assert scrape()["requests_total", (("who", "old"),)] == 1


def test_a_clock_that_was_set_back(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exemplar of the time before is not the newest until that time comes again."""
    store = quiet(path)
    app = App()
    with freeze_time("2031-01-01"):
        app.count("/", "of the future")
        store.flush()
        assert traces() == {"/": "of the future"}
    assert traces() == {}
    monkeypatch.setattr(store, "sweeper", exemplars.Sweeper())
    app.count("/", "of now")
    store.flush()
    app.count("/", "of just now")
    assert traces() == {"/": "of just now"}


@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize("escaping", ESCAPINGS)
def test_the_text_is_the_peers(path: str, escaping: str, is_flushed: bool) -> None:
    """Byte for byte, whatever the texts, and it parses back to what was given; text 0.0.4 has no exemplars."""
    store = quiet(path)
    odd = Counter("odd.name", "Odd", ["who", "ö"], registry=None)
    app = App()

    def use() -> None:
        for text in ODD:
            odd.labels(text, " 0.0").inc(3, {"trace": text, "more": "x"})
        for number, text in enumerate(PARSED):
            app.count(str(number), text)
        app.observe(0.5, "half")
        app.observe(2e7, "large")
        app.requests.labels("none").inc()
        if is_flushed:
            store.flush()

    in_child(use)
    one = registry()
    text = sqlmetrics.generate_latest(openmetrics=True, escaping=escaping)

    assert text == openmetrics.generate_latest(one, escaping)
    assert sqlmetrics.generate_latest(escaping=escaping) == plain.generate_latest(one, escaping)
    assert b'="x",trace="' in text
    assert b'="x",trace="' not in sqlmetrics.generate_latest(escaping=escaping)
    if escaping == "underscores":
        text = sqlmetrics.generate_latest(openmetrics=True, names=["requests_total", "latency_bucket"])
        samples = [s for family in parser.text_string_to_metric_families(text.decode()) for s in family.samples]
        found = [s.exemplar and s.exemplar.labels["trace"] for s in samples if s.name == "requests_total"]
        assert found == [*PARSED, None]
        assert [s.exemplar and s.exemplar.value for s in samples if s.name == "latency_bucket"] == [0.5, None, 2e7]


def test_only_some_samples(path: str) -> None:
    """Exemplars stay with their lines where a scrape asks for some names."""
    quiet(path)
    app = App()
    app.observe(1.5, "b")
    app.observe(9, "c")
    app.count("/", "a")
    names = ["latency_bucket", "requests_total"]
    text = sqlmetrics.generate_latest(openmetrics=True, names=names)

    restricted = CollectorRegistry().restricted_registry(names)
    sqlmetrics.MultiProcessCollector(restricted)
    assert text == openmetrics.generate_latest(restricted)
    assert b'latency_bucket{le="2.0"} 1.0 # {trace="b"} 1.5 ' in text
    assert b"trace" not in sqlmetrics.generate_latest(openmetrics=True, names=["latency_sum"])


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d"])
def test_lone_surrogates(path: str, text: str) -> None:
    """They come back as they were, and are escapes in the text, where no encoding has them."""
    store = quiet(path)
    app = App()
    app.count(text, text)
    for _ in range(2):
        assert traces() == {text: text}
        written = sqlmetrics.generate_latest(openmetrics=True).decode()
        assert written.count("\\u") == 2 * sum("\ud800" <= letter <= "\udfff" for letter in text)
        store.flush()
    assert dict(store.trouble.counts) == {}


@pytest.mark.parametrize("amount", [math.nan, math.inf, 0.0, 5e-324, 0.1 + 0.2, 10**30, True])
def test_odd_amounts(path: str, amount: float) -> None:
    """From the journal and from rows."""
    store = quiet(path)
    app = App()
    app.count("/", "a", amount)
    for _ in range(2):
        assert repr(shown()["/"].value) == repr(float(amount))
        assert in_child(lambda: repr(shown()["/"].value)) == repr(float(amount))
        store.flush()


def test_samples_that_have_none(store: sqlmetrics.Store) -> None:
    """What the encoders would refuse is not kept; a bad exemplar is an error, but counts, as with the peer."""
    summary, app = Summary("size", "Size"), App()
    summary.observe(1)
    summary._sum.set_exemplar(Exemplar({"trace": "a"}, 1, 1.0))
    app.latency._sum.set_exemplar(Exemplar({"trace": "a"}, 1, 1.0))
    with pytest.raises(ValueError, match="128"):
        app.count("/", "x" * 200)

    assert traces() == {}
    assert value("requests_total", who="/") == 1
    sqlmetrics.generate_latest(openmetrics=True)


def test_what_the_app_changes_later(store: sqlmetrics.Store) -> None:
    """An exemplar is what its labels were at the observation."""
    labels = {"trace": "a"}
    app = App()
    app.requests.labels("/").inc(1, {"trace": "first"})
    app.requests.labels("/").inc(1, labels)
    labels["trace"] = "b"
    store.flush()
    assert traces() == {"/": "a"}


def test_each_process_has_its_own(path: str) -> None:
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


def test_exemplars_from_before_the_installation(path: str) -> None:
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
    assert REGISTRY.get_sample_value("nothing") is None


class Interruption:
    """A trace function that does something at the n-th line of the modules that keep exemplars, as a handler would."""

    TRACED = tuple(f"/sqlmetrics/{name}.py" for name in ("part", "writer", "binder", "exemplars", "journal", "values"))

    def __init__(self, at: int, action: Callable[[], None]):
        self._left = at
        self._action = action
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> Interruption | None:
        if not frame.f_code.co_filename.endswith(self.TRACED):
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                self._action()
        return self


def test_interrupted_at_every_line(path: str) -> None:
    """By a handler that observes with exemplars too: none waits for the other, and all are there after the flush."""
    store = quiet(path)
    store.flusher.stop()
    for line in itertools.count(1, 2):
        app = App()
        sqlmetrics.reset(force=True)
        app.count("known", "before")

        def handle(app: App = app) -> None:
            for who in ("known", "now", "new"):
                app.count(who, f"handler {who}")

        interruption = Interruption(line, handle)
        sys.settrace(interruption)
        try:
            app.count("known", "main")
            app.count("now", "main")
            app.observe(1.5, "main")
            store.part.tell_exemplars(0)
        finally:
            sys.settrace(None)
        app.count("now", "after")
        store.flush()
        found = traces()
        assert found.pop("known") in ("main", "handler known"), interruption.where
        expected = {"now": "after", "2.0": "main"} | ({"new": "handler new"} if interruption.where else {})
        assert found == expected, interruption.where
        if not interruption.where:
            break
    assert line > 100


def test_signals_all_the_time(path: str) -> None:
    """In the middle of anything else: nothing hangs or raises, and every number is right."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    app = App()
    handled = itertools.count()
    before = signal.signal(signal.SIGALRM, lambda *_: app.count(f"signal {next(handled) % 20}", "handler"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
    try:
        for number in range(1500):
            app.count(f"main {number % 50}", str(number))
            app.observe(1.5, str(number))
            if number % 100 == 0:
                traces()
                store.flush()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    store.flush()
    found = traces()
    assert found["2.0"] == "1499"
    assert [found[f"main {number}"] for number in range(50)] == [str(1450 + number) for number in range(50)]
    by_handler = sum(count for (_, labels), count in scrape().items() if "signal" in str(labels))
    assert by_handler == next(handled) > 50


def test_threads(path: str) -> None:
    """Eight at once on a few series, while the flusher runs: the newest of each is one that was given."""
    store = sqlmetrics.install(path, flush_interval=0.005)
    app = App()

    def work(thread: int) -> None:
        for number in range(500):
            app.count(f"{number % 5}", f"{thread} {number}")

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert {int(trace.split()[1]) for trace in traces().values()} <= set(range(490, 500))
    assert sum(count for (name, _), count in scrape().items() if name == "requests_total") == 4_000


def test_no_room_in_the_cells_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait in memory without a word, with the children that count there, and are told when there is room."""
    store = quiet(path)
    app = App()
    app.count("known", "a")
    with monkeypatch.context() as full:
        for region in (store.file.blocks, store.file.extents):
            full.setattr(region, "count", 0)
            full.setattr(region, "_take", lambda *_: False)
        for number in range(3_000):
            app.count("known", f"{number} {'x' * 100}")
            app.count(f"new {number}", "b")
        store.flush()
        assert value("requests_total", who="known") == 3_001
    store.flush()
    store.flush()
    found = traces()
    assert found["known"].startswith("2999 ")
    assert len(found) == 3_001
    assert value("requests_total", who="new 2999") == 1


def test_flushes_that_are_held_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program keeps the lock, exemplars leave the room of the journals to new children."""
    monkeypatch.setattr("sqlmetrics.arenas.SHARE", layout.EXTENTS // 20)
    store = quiet(path)
    app = App()
    app.count("/", "first")
    store.flush()
    with Operator(path, "BEGIN IMMEDIATE"):
        for round_ in range(5):
            for number in range(300):
                app.count(f"/{number}", f"{round_} {'x' * 100}")
            store.part.tell_exemplars(0)
        (arena,) = store.part.arenas()
        assert store.file.extents.used() < 45
        assert arena.backlog() < 150_000
        assert value("requests_total", who="/299") == 5
    store.flush()
    store.flush()
    assert {trace[:2] for who, trace in traces().items() if who != "/"} == {"4 "}


def test_reset_drops_them(path: str, shell: Shell) -> None:
    """Those of the dead and those of the living, in rows, in journals and in memory."""
    store = quiet(path)
    app = App()
    with child(count=app.count, stop=stop_flusher(store)) as one:
        one.do("count", "dead", "a")
        one.kill()
    with child(count=app.count, flush=lambda: store.flush() and None) as one:
        one.do("count", "child", "a")
        one.do("flush")
        one.do("count", "child", "b")
        app.count("parent", "a")
        app.count("parent", "b")
        assert set(traces()) == {"dead", "child", "parent"}
        sqlmetrics.reset(force=True)
        assert traces() == {}
        assert shell("SELECT * FROM exemplar") == []
        one.do("flush")
        store.flush()
        assert traces() == {}
        one.do("count", "other", "c")
        app.requests.labels("parent").inc()
        one.do("flush")
        store.flush()
        assert traces() == {"other": "c"}


def test_reset_by_a_launcher(path: str) -> None:
    """What it counts itself stays, but no exemplar of any process does."""
    store = quiet(path)
    app = App()
    app.requests.labels("shared").inc()
    with child(count=app.count) as one:
        one.do("count", "shared", "a")
        one.kill()
    assert traces() == {"shared": "a"}
    store.reset(force=True, keep_own=True)
    assert traces() == {}
    assert in_child(traces) == {}
    assert value("requests_total", who="shared") == 1


def test_a_fork_while_some_wait(path: str) -> None:
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


@pytest.mark.parametrize("lost", [("",), ("-cells",), ("", "-wal", "-shm", "-cells")], ids=" ".join)
def test_lost_files(path: str, lost: tuple[str, ...]) -> None:
    """What living processes have is in the new files, and so is what of the old ones can be read."""
    store = quiet(path)
    app = App()
    with child(count=app.count) as one:
        one.do("count", "dead", "a")
        one.kill()
    app.count("living", "b")
    store.flush()
    app.count("living", "c")
    app.observe(0.5, "d")
    for suffix in lost:
        os.unlink(path + suffix)
    for _ in range(4):
        store.flush()
    assert value("requests_total", who="dead") == 1  # from the connection that was open
    assert traces() == {"dead": "a", "living": "c", "1.0": "d"}


NONSENSE = {
    "no labels": "UPDATE exemplar SET labels = '[1]'",
    "a label that is a number": """UPDATE exemplar SET labels = '{"trace":1}'""",
    "no JSON": "PRAGMA ignore_check_constraints = ON; UPDATE exemplar SET labels = '{'",
    "no series": "PRAGMA foreign_keys = OFF; INSERT INTO exemplar VALUES (99999, '{}', 1.0, 1.0, 1)",
}


@pytest.mark.parametrize("statement", NONSENSE.values(), ids=NONSENSE)
def test_damaged_texts(path: str, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check finds them; what ended processes have counted is not lost with them."""
    monkeypatch.setattr("sqlmetrics.checkup.SECONDS", 0.05)
    monkeypatch.setattr("sqlmetrics.checkup.SHARE", 1.0)
    store = sqlmetrics.install(path, flush_interval=0.02)
    app = App()
    with child(count=app.count) as one:
        one.do("count", "dead", "a")
        one.kill()
    app.count("living", "b")
    store.flush()
    damaged = store.file
    with Operator(path) as operator:
        operator.run(*statement.split("; "))
    wait_for(lambda: store.file is not damaged)
    app.count("living", "c")
    wait_for(lambda: store.flush() and traces(path).get("living") == "c")
    assert value("requests_total", who="dead") == 1
    assert value("requests_total", who="living") == 2


def test_scrapes_read_only_what_has_changed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that knows the rows parses no exemplar a second time, and asks for none where nothing has changed."""
    store = quiet(path)
    app = App()
    for number in range(100):
        app.count(str(number), "a")
    store.flush()
    parsed: list[str] = []
    monkeypatch.setattr(newest, "label_set", lambda text: parsed.append(text) or {"trace": text})
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
