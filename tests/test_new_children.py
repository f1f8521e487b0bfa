"""Children beyond the first few of a metric are made from a template, and equal those of `prometheus_client`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers import Shell, flush_all, in_child, scrape, value
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

import sqlmetrics
from sqlmetrics.cells.journal import JournalWriter
from sqlmetrics.client import making

pytestmark = pytest.mark.promise(12)

MANY = 20
KINDS: dict[str, Callable[[], Any]] = {
    "counter": lambda: Counter("requests", "Requests", ["path", "by"], namespace="app"),
    "gauge": lambda: Gauge("busy", "Busy", ["path", "by"], unit="workers", multiprocess_mode="livesum"),
    "mostrecent gauge": lambda: Gauge("busy", "Busy", ["path", "by"], multiprocess_mode="mostrecent"),
    "summary": lambda: Summary("latency", "Latency", ["path", "by"]),
    "histogram": lambda: Histogram("latency", "Latency", ["path", "by"], buckets=(0.1, 1)),
}


SUMS = ("requests_total", "busy", "busy_workers", "latency_sum")
"""Samples that show what was counted."""


def use(child: Any, amount: float = 1) -> None:
    """Count something."""
    operation = getattr(child, "observe", None) or (child.set if isinstance(child, Gauge) else child.inc)
    operation(amount)


def attributes(child: Any) -> dict[str, Any]:
    """What a child has beside its values and its labels."""
    mine = ("_value", "_sum", "_count", "_buckets", "_created", "_labelvalues")
    return {name: one for name, one in vars(child).items() if name not in mine}


@pytest.mark.parametrize("kind", KINDS)
def test_children_have_what_the_first_ones_have(store: sqlmetrics.Store, kind: str) -> None:
    """The same attributes in the same order, values of the same class, and their own label values."""
    metric = KINDS[kind]()
    children = [
        metric.labels(f"/{number}", by="x") if number < 0 else metric.labels(f"/{number}", "x")
        for number in range(MANY)
    ]

    assert metric._template is not None
    assert {type(one) for one in children} == {type(metric)}
    assert list(vars(children[-1])) == list(vars(children[0]))
    assert attributes(children[-1]) == attributes(children[0])
    assert [one._labelvalues for one in children] == [(f"/{number}", "x") for number in range(MANY)]
    assert metric.labels(by="x", path="/7") is children[7] is metric.labels("/7", "x")


@pytest.mark.parametrize("kind", KINDS)
def test_each_child_counts_for_itself(store: sqlmetrics.Store, path: str, kind: str) -> None:
    """What was counted in each, by position or by name, is in a scrape and in the rows."""
    metric = KINDS[kind]()
    for number in range(MANY):
        use(metric.labels(by="x", path=f"/{number}") if number % 2 else metric.labels(f"/{number}", "x"), number)
    shown = {sample: number for sample, number in scrape().items() if sample[0].endswith(SUMS)}
    found = {dict(labels)["path"]: number for (_, labels), number in shown.items()}

    assert found == {f"/{number}": number for number in range(MANY)}
    flush_all(store)
    rows = Shell(path)(
        "SELECT value FROM metrics WHERE metric LIKE '%_total' OR metric LIKE '%_sum' OR metric LIKE 'busy%'"
    )
    assert sorted(row["value"] for row in rows if row["value"]) == list(range(1, MANY))  # type: ignore[type-var]


def test_wrong_labels_are_refused_with_the_same_words(store: sqlmetrics.Store) -> None:
    """By `prometheus_client` itself."""
    requests = Counter("requests", "Requests", ["path", "by"])
    for number in range(MANY):
        requests.labels(f"/{number}", "x")

    for labelvalues, labels, words in (
        (("/",), {}, "Incorrect label count"),
        ((), {"path": "/"}, "Incorrect label names"),
        ((), {"path": "/", "of": "x"}, "Incorrect label names"),
        (("/",), {"by": "x"}, "both"),
    ):
        with pytest.raises(ValueError, match=words):
            requests.labels(*labelvalues, **labels)
    with pytest.raises(ValueError, match="already has labels"):
        requests.labels("/1", "x").labels("/2", "x")


def test_label_values_of_other_types_are_texts(store: sqlmetrics.Store) -> None:
    """Numbers, characters beyond ASCII, pairs of surrogates and empty texts."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(MANY):
        requests.labels(f"/{number}")
    for one in (7, 7.5, None, "ü", "\ud83d\ude00", "", "/1"):
        requests.labels(one).inc()

    for text in ("7", "7.5", "None", "ü", "😀", "", "/1"):
        assert value("requests_total", path=text) == 1


def test_constructors_of_the_app_are_called_for_each_child(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a class derived from a metric's, and one that is put in the place of `_metric_init`, also later."""
    made: list[str] = []

    class Mine(Counter):
        def __init__(self, *args: Any, **kwargs: Any):
            made.append("mine")
            super().__init__(*args, **kwargs)

    mine, requests = Mine("mine", "Mine", ["path"]), Counter("requests", "Requests", ["path"])
    for number in range(MANY):
        mine.labels(f"/{number}").inc()
        requests.labels(f"/{number}").inc()
    init = Counter._metric_init
    with monkeypatch.context() as patched:
        patched.setattr(Counter, "_metric_init", lambda self: (made.append("init"), init(self))[1])
        requests.labels("/new").inc()

    assert made == ["mine"] * (1 + MANY) + ["init"]
    assert value("mine_total", path="/19") == value("requests_total", path="/new") == 1


def test_two_metrics_of_one_name_count_in_one_series(store: sqlmetrics.Store) -> None:
    """Whichever of them made a child first."""
    one, two = (Counter("requests", "Requests", ["path"], registry=CollectorRegistry()) for _ in range(2))
    for number in range(MANY):
        (one if number % 2 else two).labels(f"/{number}").inc()
    for number in range(MANY):
        (two if number % 2 else one).labels(f"/{number}").inc()

    assert {number for (name, _), number in scrape().items() if name == "requests_total"} == {2}


def test_a_child_that_comes_back_begins_at_zero(store: sqlmetrics.Store) -> None:
    """After its removal it is made as any other."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(MANY):
        requests.labels(f"/{number}").inc()
    requests.remove("/7")
    requests.labels("/7").inc(5)

    assert value("requests_total", path="/7") == 5
    assert value("requests_total", path="/8") == 1


def test_a_fork_makes_children_of_its_own(store: sqlmetrics.Store) -> None:
    """With the template of its parent: known ones and new ones."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(MANY):
        requests.labels(f"/{number}").inc()

    def work() -> list[Any]:
        for number in range(2 * MANY):
            requests.labels(f"/{number}").inc()
        return [value("requests_total", path="/7"), value("requests_total", path=f"/{2 * MANY - 1}")]

    assert in_child(work) == [2, 1]
    assert sum(scrape().values()) >= 3 * MANY


def test_what_comes_in_the_middle_of_a_new_child_is_counted_with_it(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler makes another one of the same metric, and uses a known one, while the first gets its cells."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(MANY):
        requests.labels(f"/{number}").inc()
    append = JournalWriter.append

    def interrupted(self: JournalWriter, text: str) -> None:
        monkeypatch.undo()
        requests.labels("/inner").inc(5)
        requests.labels("/7").inc(5)
        append(self, text)

    monkeypatch.setattr(JournalWriter, "append", interrupted)
    requests.labels("/outer").inc(2)

    assert not store.part.has_aside
    assert [value("requests_total", path=path) for path in ("/outer", "/inner", "/7")] == [2, 5, 6]


def test_a_store_that_is_installed_again_has_templates_of_its_own(path: str) -> None:
    """In between, children are in memory."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests", ["path"])
    for number in range(MANY):
        requests.labels(f"/{number}").inc()
    former = requests._template  # type: ignore[attr-defined]
    sqlmetrics.uninstall()
    requests.labels("/memory").inc()
    sqlmetrics.install(path + "2")
    for number in range(MANY):
        requests.labels(f"/again/{number}").inc()

    assert isinstance(former, making.Template)
    assert requests._template is not former  # type: ignore[attr-defined]
    assert value("requests_total", path="/memory") == value("requests_total", path="/again/19") == 1
