"""The fast methods of metrics do what `prometheus_client`'s own do, whatever they are called with."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from freezegun import freeze_time
from helpers import scrape
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, metrics

import sqlmetrics
from sqlmetrics.values import MultiProcessValue

pytestmark = pytest.mark.promise(12)


class Method(str, Enum):
    """Equal to "GET", and printed as something else."""

    GET = "GET"


class MyCounter(Counter):
    """With a method of its own."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        super().inc(2 * amount, exemplar)


class Made:
    """One metric of each kind, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given: dict[str, Any] = {"registry": self.registry}
        self.counter = Counter("counter", "Counter", **given)
        self.mine = MyCounter("mine", "Mine", ["method"], **given)
        self.parent = Counter("parent", "Parent", ["method", "path"], **given)
        self.gauge = Gauge("gauge", "Gauge", multiprocess_mode="sum", **given)
        self.recent = Gauge("recent", "Recent", multiprocess_mode="mostrecent", **given)
        self.levels = Gauge("levels", "Levels", ["path"], multiprocess_mode="max", **given)
        self.summary = Summary("summary", "Summary", **given)
        self.summaries = Summary("summaries", "Summaries", ["path"], **given)
        self.histogram = Histogram("histogram", "Histogram", buckets=(-1, 0, 1, 2.5), **given)
        self.histograms = Histogram("histograms", "Histograms", ["path"], **given)

    def values(self) -> dict[object, str]:
        """Every sample but the times at which the metrics were made."""
        return {
            (sample.name, *sorted(sample.labels.items())): repr(float(sample.value))
            for metric in self.registry.collect()
            for sample in metric.samples
            if not sample.name.endswith("_created")
        }


CALLS: dict[str, Callable[[Made], object]] = {
    "inc": lambda made: made.counter.inc(),
    "inc an int": lambda made: made.counter.inc(3),
    "inc True": lambda made: made.counter.inc(True),
    "inc a half": lambda made: made.counter.inc(amount=0.5),
    "inc a negative": lambda made: made.counter.inc(-1),
    "inc NaN": lambda made: made.counter.inc(math.nan),
    "inc Inf": lambda made: made.counter.inc(math.inf),
    "inc a text": lambda made: made.counter.inc("1"),  # type: ignore[arg-type]
    "inc None": lambda made: made.counter.inc(None),  # type: ignore[arg-type]
    "inc a number beyond all floats": lambda made: made.counter.inc(10**400),
    "inc with an exemplar": lambda made: made.counter.inc(1, {"trace": "1"}),
    "inc with no exemplar": lambda made: made.counter.inc(1, {}),
    "inc with a bad exemplar": lambda made: made.counter.inc(1, {"trace": "1" * 200}),
    "inc of a parent": lambda made: made.parent.inc(),
    "inc of an own class": lambda made: made.mine.labels("GET").inc(3),
    "labels": lambda made: made.parent.labels("GET", "/").inc(),
    "labels by name": lambda made: made.parent.labels(path="/", method="GET").inc(),
    "labels both ways": lambda made: made.parent.labels("GET", path="/").inc(),
    "labels too few": lambda made: made.parent.labels("GET"),
    "labels of a child": lambda made: made.parent.labels("GET", "/").labels("GET", "/"),
    "labels of one without": lambda made: made.counter.labels("GET"),
    "labels that are no texts": lambda made: made.parent.labels(1, None).inc(),
    "labels of an enum": lambda made: (made.parent.labels("GET", "/").inc(), made.parent.labels(Method.GET, "/").inc()),
    "gauge inc": lambda made: made.gauge.inc(2),
    "gauge inc a negative": lambda made: made.gauge.inc(-2.5),
    "gauge dec": lambda made: made.gauge.dec(),
    "gauge dec NaN": lambda made: made.gauge.dec(math.nan),
    "gauge inc of a parent": lambda made: made.levels.inc(),
    "gauge dec of a parent": lambda made: made.levels.dec(),
    "gauge set of a parent": lambda made: made.levels.set(1),
    "gauge set": lambda made: made.gauge.set(-0.5),
    "gauge set an int": lambda made: made.gauge.set(7),
    "gauge set a text that is a number": lambda made: made.gauge.set("1.5"),  # type: ignore[arg-type]
    "gauge set a text": lambda made: made.gauge.set("much"),  # type: ignore[arg-type]
    "gauge set a number beyond all floats": lambda made: made.gauge.set(10**400),
    "recent set": lambda made: made.recent.set(3),
    "recent inc": lambda made: made.recent.inc(),
    "recent dec": lambda made: made.recent.dec(),
    "track": lambda made: made.gauge.track_inprogress().__enter__(),
    "summary": lambda made: made.summary.observe(1.5),
    "summary of a negative": lambda made: made.summary.observe(-2),
    "summary of a text": lambda made: made.summary.observe("2"),  # type: ignore[arg-type]
    "summary of a parent": lambda made: made.summaries.observe(1),
    "histogram": lambda made: made.histogram.observe(0.5),
    "histogram at a bound": lambda made: made.histogram.observe(1),
    "histogram below all": lambda made: made.histogram.observe(-5),
    "histogram above all": lambda made: made.histogram.observe(10**9),
    "histogram Inf": lambda made: made.histogram.observe(math.inf),
    "histogram -Inf": lambda made: made.histogram.observe(-math.inf),
    "histogram NaN": lambda made: made.histogram.observe(math.nan),
    "histogram True": lambda made: made.histogram.observe(True),
    "histogram of a text": lambda made: made.histogram.observe("1"),  # type: ignore[arg-type]
    "histogram with an exemplar": lambda made: made.histogram.observe(2, {"trace": "1"}),
    "histogram with a bad exemplar": lambda made: made.histogram.observe(2, {"trace": "1" * 200}),
    "histogram of a parent": lambda made: made.histograms.observe(1),
    "histogram's child": lambda made: made.histograms.labels("/").observe(0.3),
    "reset": lambda made: (made.counter.inc(5), made.counter.reset(), made.counter.inc()),
}


def outcome(call: Callable[[Made], object], made: Made) -> tuple[object, dict[object, str]]:
    """The error that a call raised, and what the metrics show after two calls."""
    error = None
    for _ in range(2):
        try:
            call(made)
        except Exception as raised:
            error = (type(raised), str(raised))
    return error, made.values()


@pytest.mark.parametrize("identify", [None, lambda: "one"], ids=["os.getpid", "another identifier"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_results_and_errors_are_those_of_prometheus_client(
    path: str, call: Callable[[Made], object], identify: Callable[[], object] | None
) -> None:
    """In memory, by `prometheus_client` itself, and then in the store: fast, or asking for the process's name."""
    expected = outcome(call, Made())
    sqlmetrics.install(path, process_identifier=identify)

    assert outcome(call, Made()) == expected


def test_a_histograms_values_are_a_sequence(store: sqlmetrics.Store) -> None:
    """As in `prometheus_client`, for those who look into ``_buckets`` and ``_sum``."""
    sizes = Histogram("sizes", "Sizes", buckets=(1, 2, 3))
    sizes.observe(2)

    assert len(sizes._buckets) == 4
    assert [value.get() for value in sizes._buckets] == [0, 1, 0, 0]
    assert [value.get() for value in sizes._buckets[1:3]] == [1, 0]
    assert sizes._buckets[-1].get() == 0
    with pytest.raises(IndexError):
        sizes._buckets[4]
    sizes._buckets[-1].inc(2)
    sizes._sum.inc(0.5)
    sizes._buckets[0].set(3)
    assert [value.get() for value in (*sizes._buckets, sizes._sum)] == [3, 1, 0, 2, 2.5]
    assert sizes._sum.get_exemplar() is None
    assert scrape()["sizes_count", ()] == 6


def test_a_second_histogram_of_the_same_name_counts_in_the_same_cells(store: sqlmetrics.Store) -> None:
    """Its child is not whole, for the first has the sum; both count in the same cells where they have the same."""
    first, second, third = (
        Histogram("sizes", "Sizes", ["path"], registry=None, buckets=buckets).labels("/")
        for buckets in ((1, 2), (1, 2), (2, 4))
    )
    for number, histogram in enumerate((first, second, third)):
        histogram.observe(1.5 + number)

    shown = scrape()
    assert shown["sizes_sum", (("path", "/"),)] == 7.5
    assert [shown["sizes_bucket", (("le", le), ("path", "/"))] for le in ("1.0", "2.0", "4.0", "+Inf")] == [0, 1, 2, 3]


def test_values_of_a_class_of_the_apps_own_are_not_taken_for_the_stores(store: sqlmetrics.Store) -> None:
    """Two names in one process, as `prometheus_client`'s tests have them: no method takes one for the other."""
    name = ["123"]
    before, metrics.values.ValueClass = metrics.values.ValueClass, MultiProcessValue(lambda: name[0])
    try:
        busy = Gauge("busy", "Busy", registry=None, multiprocess_mode="all")
        sizes = Histogram("sizes", "Sizes", registry=None)
    finally:
        metrics.values.ValueClass = before
    for name[0] in ("123", "456"):
        busy.set(int(name[0]))
        busy.inc()
        busy.dec(2)
        sizes.observe(1)

    shown = scrape()
    assert {labels: shown["busy", (("pid", labels),)] for labels in ("123", "456")} == {"123": 122, "456": 455}
    assert shown["sizes_count", ()] == 2


def test_the_newest_value_is_known_by_the_clock_that_tests_freeze(store: sqlmetrics.Store) -> None:
    """`time.time()`, asked at each `set`."""
    recent = Gauge("recent", "Recent", multiprocess_mode="mostrecent")
    with freeze_time("2001-09-09 01:46:40"):
        recent.set(1)
    store.flush()
    assert recent._value._cells[recent._value._cell - 1] == 1e9
