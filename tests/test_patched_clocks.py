"""Clocks and other functions that a test of the app has patched are in nobody's way."""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import prometheus_client
import pytest
from differential import peer
from helpers import Shell, child, in_child, value
from odd import MODES, Float32, Float64, Whole, lines
from prometheus_client import Counter, Gauge

import sqlmetrics

pytestmark = [pytest.mark.promise(12), pytest.mark.usefixtures("store")]

CLOCKS: dict[str, Callable[[], Any]] = {
    "mock": mock.Mock(),
    "magic": mock.MagicMock(),
    "decimal": lambda: decimal.Decimal("1e9"),
    "float64": lambda: Float64(1e9),
    "float32": lambda: Float32(1e9),
    "fraction": lambda: fractions.Fraction(10**10, 3),
    "whole": lambda: Whole(10**9),
    "bool": lambda: True,
    "datetime": lambda: datetime.datetime(2026, 1, 1),
    "text": lambda: "noon",
    "none": lambda: None,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "minus inf": lambda: -math.inf,
    "huge": lambda: 10**400,
    "1e300": lambda: 1e300,
}


def _use_all(client: Any, registry: Any) -> list[object]:
    """One metric of each kind that has to do with time; returns what has to stay."""
    counter = client.Counter("counted", "Help", ["a"], registry=registry)
    counter.labels("1").inc(exemplar={"trace": "1"})
    counter.labels("2").inc()
    counter.labels("2").reset()
    counter.remove("1")
    counter.labels("3").inc(2)
    asked = []
    for mode in MODES:
        client.Gauge(f"set_{mode}", "Help", ["a"], registry=registry, multiprocess_mode=mode).labels("1").set(3)
        asked.append(client.Gauge(f"asked_{mode}", "Help", registry=registry, multiprocess_mode=mode))
        asked[-1].set_function(lambda: 4)
    client.Histogram("latency", "Help", registry=registry).observe(0.3, {"trace": "2"})
    client.Info("build", "Help", registry=registry).info({"version": "1"})
    client.Info("built", "Help", registry=registry).info({"version": "1"})
    client.Enum("link", "Help", states=["up", "down"], registry=registry).state("down")
    return asked


def _samples(text: bytes, pid: str) -> list[str]:
    return [line.replace(f',pid="{pid}"', "").replace(f'{{pid="{pid}"}}', "") for line in lines(text)]


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_a_test_has_patched_is_in_nobodys_way(shell: Shell, clock: str) -> None:
    """All that is said of what happens under it is right, in scrapes, in rows, and when the process has ended."""
    registry = peer.CollectorRegistry()
    _use_all(peer, registry)  # by its own clock: in one process, a mock as the time of creation cannot be exposed
    expected = lines(peer.generate_latest(registry))

    kept = []

    def use() -> str:
        with mock.patch("time.time", CLOCKS[clock]):
            kept.append(_use_all(prometheus_client, None))
            return sqlmetrics.install().flush().name

    with child(use=use, flush=lambda: sqlmetrics.install().flush().name) as one:
        assert one.do("use") in ("DONE", "NOTHING_CHANGED")
        assert _samples(sqlmetrics.generate_latest(), str(one.pid)) == expected
        assert sqlmetrics.generate_latest(openmetrics=True)
        one.do("flush")
        assert _samples(sqlmetrics.generate_latest(), str(one.pid)) == expected
        assert shell.value("SELECT value FROM metrics WHERE metric = 'set_mostrecent'") == 3.0
    left = [line for line in _samples(sqlmetrics.generate_latest(), str(one.pid)) if "livesum" not in line]
    assert left == [line for line in expected if "livesum" not in line]
    assert shell.value("SELECT value FROM metrics WHERE metric = 'counted_total' AND labels LIKE '%3%'") == 2.0


def test_the_answers_of_a_mocked_clock_are_left_to_the_app() -> None:
    """A test has counted the calls that the app makes; those of the store would be one too many."""
    with mock.patch("time.time", side_effect=[7.0]):
        Gauge("set", "Help", ["a"], multiprocess_mode="max").labels("1").set_to_current_time()
        assert sqlmetrics.install().flush().name in ("DONE", "NOTHING_CHANGED")
    assert value("set", a="1") == 7.0


@pytest.mark.parametrize("patched", ["time.time_ns", "time.clock_gettime_ns", "os.getpid"])
def test_other_functions_that_a_test_has_patched_are_not_asked(patched: str) -> None:
    """For what a process says of itself."""

    def use() -> str:
        with mock.patch(patched):
            Counter("told", "Help").inc()
        return sqlmetrics.install().flush().name

    assert in_child(use) in ("DONE", "NOTHING_CHANGED")
    assert value("told_total") == 1.0
