"""Amounts, buckets, exemplars and values of any class count what they count in one process."""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
import time
from typing import Any
from unittest import mock

import prometheus_client
import pytest
from differential import peer
from helpers import Shell, child, in_child, scrape, value
from odd import Float32, Float64, Lazy, Number, Safe, Sides, State, Text, Whole, named, tried

import sqlmetrics

pytestmark = [pytest.mark.promise(12), pytest.mark.usefixtures("store")]

AMOUNTS = [
    True,
    Whole(2),
    Number.ONE,
    Float64(1.5),
    Float32(1.5),
    Float32(-1.5),
    fractions.Fraction(3, 2),
    decimal.Decimal("1.5"),
    2**60,
    10**308,
    10**400,
    -(10**400),
    math.nan,
    math.inf,
    Float64(math.nan),
    "1.5",
    "one",
    b"1.5",
    None,
    [1],
    datetime.timedelta(seconds=1),
    mock.Mock(),
]
"""What both sides have in common: in one process a gauge may become complex, or a mock, and cannot be exposed then."""


@pytest.mark.parametrize("amount", AMOUNTS, ids=named)
def test_amounts_of_any_class_count_or_are_refused_as_in_one_process(shell: Shell, amount: Any) -> None:
    """By every method that takes one, on metrics that have their cells, and on new children."""

    def use(client: Any, registry: Any) -> None:
        more = {"labelnames": ["a"], "registry": registry}
        counter = client.Counter("counted", "Help", **more)
        gauge = client.Gauge("moved", "Help", multiprocess_mode="sum", **more)
        setting = client.Gauge("setting", "Help", multiprocess_mode="max", **more)
        newest = client.Gauge("newest", "Help", multiprocess_mode="mostrecent", **more)
        summary = client.Summary("size", "Help", **more)
        histogram = client.Histogram("latency", "Help", buckets=(1, 2, 5), **more)
        newest.labels("1").set(-1)
        said = [
            tried(lambda operation=operation: operation(amount))  # type: ignore[misc]
            for _ in range(2)
            for operation in (
                counter.labels("1").inc,
                gauge.labels("1").inc,
                gauge.labels("2").dec,
                setting.labels("1").set,
                newest.labels("1").set,
                summary.labels("1").observe,
                histogram.labels("1").observe,
            )
        ]
        raise AssertionError(said)  # how both sides are compared

    Sides(use).agree(shell)


@pytest.mark.parametrize(
    "buckets",
    [
        (1, 1, 2),
        (math.nan, 1),
        (1, math.nan),
        ("1", "2"),
        (True, Float64(2)),
        (Float32(0.5), decimal.Decimal(1), fractions.Fraction(3, 2)),
        (-1, 2),
        (2, 1),
        (),
        ("one",),
        (None,),
        (10**400,),
        5,
    ],
    ids=named,
)
def test_buckets_of_any_class_are_taken_or_refused_as_in_one_process(shell: Shell, buckets: Any) -> None:
    """Bounds that are there twice are one series, which one process shows twice."""

    def use(client: Any, registry: Any) -> None:
        latency = client.Histogram("latency", "Help", buckets=buckets, registry=registry)
        for amount in (0.5, 1, 1.5, 7, Float32(1.5), math.inf):
            latency.observe(amount)

    sides = Sides(use)
    shown = [line for line in sides._shown() if "_sum" not in line]
    if sides.said == "done":
        shown.append("latency_sum inf".replace("inf", "+Inf"))
    sides.agree(shell, list(dict.fromkeys(shown)))


class _Odd:
    """A collector whose samples are as odd as they can be."""

    def collect(self) -> Any:
        metric = prometheus_client.metrics_core.Metric(Text("odd"), None, "gauge")  # type: ignore[arg-type]
        metric.add_sample(Text("odd"), {Text("a"): State.UP, "b": None, "c": 5}, Float64(1.5))  # type: ignore[dict-item]
        counter = prometheus_client.metrics_core.CounterMetricFamily("counted", Lazy(), labels=["a"])  # type: ignore[arg-type]
        counter.add_metric([Safe("x")], fractions.Fraction(3, 2))  # type: ignore[arg-type]
        yield metric
        yield counter


def test_what_a_published_collector_yields_may_be_of_any_class(shell: Shell) -> None:
    """Names, labels, help texts and values."""

    def use() -> str:
        sqlmetrics.publish(_Odd(), "max")
        return sqlmetrics.install().flush().name

    with child(use=use) as one:
        one.do("use")
        assert value("odd", a="up", b="None", c="5") == 1.5
        assert value("counted_total", a="x") == 1.5
    assert value("counted_total", a="x") == 1.5
    assert shell.value("SELECT value FROM metrics WHERE metric = 'counted_total'") == 1.5


EXEMPLARS = [{"trace": State.UP}, {Safe("trace"): Text("x")}, {"trace": b"x"}, {"trace": ["x"]}, {"trace": 5}, 5, {}]


@pytest.mark.parametrize(
    ("exemplar", "amount"),
    list(zip(EXEMPLARS, [1, Float64(1.5), Float32(1.5), fractions.Fraction(3, 2), True, 2, 3], strict=True)),
    ids=named,
)
def test_exemplars_of_any_class_are_taken_or_refused_as_in_one_process(exemplar: Any, amount: Any) -> None:
    """And of amounts of any class. What was counted with them stays counted, and scrapes show it."""

    def use(client: Any, registry: Any) -> list[str]:
        counter = client.Counter("told", "Help", registry=registry)
        latency = client.Histogram("latency", "Help", registry=registry)
        return [
            tried(lambda: counter.inc(amount, exemplar)),
            tried(lambda: latency.observe(amount, exemplar)),
            tried(lambda: counter.inc(amount, exemplar)),
        ]

    with child(use=lambda: use(prometheus_client, None), flush=lambda: sqlmetrics.install().flush().name) as one:
        assert one.do("use") == use(peer, None)
        for _ in range(2):
            assert value("told_total") == 2 * float(amount)
            assert value("latency_sum") == float(amount)
            assert one.do("flush") in ("DONE", "NOTHING_CHANGED")
            assert sqlmetrics.generate_latest(openmetrics=True)
    assert value("told_total") == 2 * float(amount)


def test_values_that_are_made_directly_may_be_of_any_class(shell: Shell) -> None:
    """Instrumentation libraries call the value class themselves."""

    def use() -> str:
        kind = prometheus_client.values.ValueClass
        kind(Text("counter"), Safe("told"), Text("told_total"), [Text("a")], [5], None).inc(Float32(2))
        gauge = kind("gauge", "newest", "newest", (), (), Lazy(), multiprocess_mode=Safe("mostrecent"))
        gauge.set(decimal.Decimal("1.5"), timestamp=decimal.Decimal("1e9"))
        gauge.set(2, timestamp=datetime.datetime(2026, 1, 1))
        kind("counter", "lone\ud800", "lone\ud800_total", ("\ud800",), ("\ud800",), "\ud800").inc(1)
        return sqlmetrics.install().flush().name

    assert in_child(use) in ("DONE", "NOTHING_CHANGED")
    assert (value("told_total", a="5"), value("newest")) == (2.0, 2.0)
    assert scrape()[r"lone\ud800_total", (("\ud800", "\ud800"),)] == 1.0
    assert time.time() - float(str(shell.value("SELECT timestamp FROM samples WHERE metric = 'newest'"))) < 60
