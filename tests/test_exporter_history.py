"""The last minutes that the exporter keeps: how often it looks, how much it keeps, and what it costs."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest
from helpers import Child, delete
from looking import worker

from sqlmetrics.errors import NoStoreError
from sqlmetrics.exporter import history as histories
from sqlmetrics.exporter.api import Api
from sqlmetrics.exporter.history import History
from sqlmetrics.exporter.questions import RequestError
from sqlmetrics.exporter.watched import Watched
from sqlmetrics.outside.sights import Column, Lines
from sqlmetrics.scrape.plan import Family, Line


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def counting(path: str) -> Iterator[Child]:
    """A process that counts."""
    with worker(path) as one:
        yield one


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as the looks have it, too."""
    clock = Clock()
    monkeypatch.setattr("sqlmetrics.outside.sights.time.time", clock)
    return clock


def test_it_looks_often_while_somebody_looks_and_seldom_else(
    counting: Child, path: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every two seconds for some time after each question, else every ten; a question finds no old look."""
    monkeypatch.setattr("sqlmetrics.exporter.history._SHARE", 1)  # on a busy machine one look takes a while
    history = History(Watched(path), clock)
    assert history._pause() == 10
    assert len(history.kept()) == 1
    assert history._pause() == 2
    clock.now += 1.9
    assert len(history.kept()) == 1
    clock.now += 2.1
    assert len(history.kept()) == 2
    clock.now += 15
    assert history._pause() == 10


def test_looks_that_take_long_are_few(counting: Child, path: str, clock: Clock) -> None:
    """No more than two hundredths of the time."""
    history = History(Watched(path), clock)
    history.kept()
    history._cost = 0.5
    assert history._pause() == 25


def test_it_keeps_five_minutes_and_so_many_bytes(
    counting: Child, path: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is older goes, and of a large store more of it."""
    history = History(Watched(path), clock)
    for _ in range(40):
        history.take()
        clock.now += 10
    assert len(history._kept) == 31
    size = history._kept[-1].bytes
    assert size > 0
    monkeypatch.setattr(histories, "_BYTES", 5 * size)
    history.take()
    assert len(history._kept) == 5
    monkeypatch.setattr(histories, "_BYTES", 1)
    history.take()
    assert len(history._kept) == 2


def test_names_that_change_with_each_look_are_taken_into_account(counting: Child, path: str, clock: Clock) -> None:
    """As those of gauges that show each process, where processes come and go."""
    history = History(Watched(path), clock)
    counting.do("set", "each", 1)
    history.take()
    history.take()
    same = history._kept[-1].bytes
    with worker(path) as other:
        other.do("set", "each", 2)
        history.take()
    last = history._kept[-1]
    assert len(last.columns["each", "gauge"].values) == 2
    assert last.bytes > same + 2 * 80


def test_what_stays_the_same_is_kept_once(counting: Child, path: str, clock: Clock) -> None:
    """Names and labels; a series that comes makes new ones of its family only."""
    counting.do("count", "/", 1)
    counting.do("observe", "/", 0.2)
    history = History(Watched(path), clock)
    for label in ("/", "/", "/new"):
        counting.do("count", label, 1)
        history.take()
    first, second, third = (one.columns for one in history._kept)
    requests, latency = ("requests", "counter"), ("latency_seconds", "histogram")
    assert first[requests].of is second[requests].of is not third[requests].of
    assert first[latency].of is second[latency].of is third[latency].of
    assert list(third[requests].since(second[requests])) == [0.0, 1.0]


def test_nothing_is_kept_of_a_store_that_is_gone(counting: Child, path: str, clock: Clock) -> None:
    """Who asks is told."""
    history = History(Watched(path), clock)
    assert history.kept()
    counting.do("stop")
    delete(path)
    clock.now += 10
    with pytest.raises(NoStoreError):
        history.kept()


def test_answers_follow_what_was_counted(counting: Child, path: str, clock: Clock) -> None:
    """Rates, buckets and quantiles of what came between looks; each process's exact values."""
    counting.do("count", "/", 1)
    counting.do("observe", "/", 5.0)
    api = Api(Watched(path))
    api.history = History(Watched(path), clock)
    assert api.ask("now", {})["busiest"] == []
    clock.now += 10
    counting.do("count", "/", 20)
    counting.do("observe", "/", *[0.05] * 9, 0.7)

    now = api.ask("now", {})
    assert [(one["name"], one["points"]) for one in now["busiest"]] == [
        ("requests_total", [(clock.now, 2.0)]),
        ("latency_seconds_count", [(clock.now, 1.0)]),
    ]
    assert {one["name"]: one["rate"] for one in now["families"]}["requests"] == 2.0
    assert [one["rate"] for one in now["processes"]] == [3.0]
    found = api.ask("histogram", {"family": "latency_seconds"})
    assert found["bounds"] == [0.1, 0.5, 1.0, float("inf")]
    assert found["rates"] == [[0.9, 0.0, 0.1, 0.0]]
    assert found["quantiles"]["p99"] == [pytest.approx(0.95)]
    assert found["ever"]["count"] == "11"
    series = api.ask("series", {"family": "requests", "name": "requests_total", "labels": '{"path": "/"}'})
    assert series["processes"] == [{"process": str(counting.pid), "alive": True, "value": "21", "distribution": None}]
    assert series["points"] == [(clock.now, 2.0)]
    assert series["are_rates"]
    counting.do("set", "each", 1.5)
    gauge = {"family": "each", "name": "each", "labels": f'{{"pid": "{counting.pid}"}}'}
    assert [one["value"] for one in api.ask("series", gauge)["processes"]] == ["1.5"]
    assert api.ask("cardinality", {})["families"][0].name == "latency_seconds"


@pytest.mark.parametrize(
    ("question", "given"),
    [
        ("nothing", {}),
        ("histogram", {}),
        ("histogram", {"family": "requests"}),
        ("series", {"family": "requests", "name": "requests_total", "labels": "[]"}),
        ("series", {"family": "requests", "name": "requests_total", "labels": "{"}),
        ("search", {"q": "{nonsense"}),
    ],
)
def test_nonsense_is_told(counting: Child, path: str, question: str, given: dict[str, str]) -> None:
    """And is no trouble of the store's."""
    with pytest.raises(RequestError):
        Api(Watched(path)).ask(question, given)


def test_only_what_the_app_counts_is_an_event(path: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the garbage collections that each process publishes, and of what was observed not the sum."""
    monkeypatch.setenv("SQLMETRICS_PUBLISH", "process,gc")
    with worker(path) as one:
        api = Api(Watched(path))
        api.history = History(Watched(path), clock)
        api.ask("now", {})
        clock.now += 10
        one.do("size", 1e6)
        one.do("flush")
        now = api.ask("now", {})
    rates = {one["name"]: one["rate"] for one in now["families"]}
    assert rates["python_gc_collections"] is rates["process_cpu_seconds"] is None
    assert rates["size_bytes"] == 0.1
    assert [one["rate"] for one in now["processes"]] == [0.1]
    assert [one["name"] for one in now["busiest"]] == ["size_bytes_count"]


def test_lines_in_another_order_are_told_by_their_names() -> None:
    """As where a store was made anew; one that fell has begun again, and one that is new began at 0."""
    family = Family("jobs", "counter", "", "", None)

    def column(**values: float) -> Column:
        lines = [Line("jobs_total", {"task": task}) for task in values]
        return Column(Lines(family, lines), array("d", values.values()))

    before, after = column(a=5, b=7, c=1), column(b=9, a=2, d=4)
    assert list(after.since(before)) == [2.0, 2.0, 4.0]
    assert list(after.since(None)) == [9.0, 2.0, 4.0]
    assert list(column(a=6, b=7, c=1, d=3).since(before)) == [1.0, 0.0, 0.0, 3.0]
