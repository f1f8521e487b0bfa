"""What tests and status pages read and set by private attributes is what it is in the memory of one process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from helpers import child
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, values

import sqlmetrics

pytestmark = pytest.mark.promise(12)


class App:
    """Metrics of all kinds, used."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(target_info={"version": "1"})
        self.counter = Counter("c", "A counter", registry=self.registry, unit="s")
        self.gauge = Gauge("g", "A gauge", registry=self.registry, multiprocess_mode="sum")
        self.summary = Summary("s", "A summary", registry=self.registry)
        self.histogram = Histogram("h", "A histogram", registry=self.registry, buckets=[1, 5])
        self.labelled = Counter("lc", "Labelled", ["a", "b"], registry=self.registry)
        self.timer = Histogram("lh", "Labelled", ["a"], registry=self.registry, buckets=[1, 5])
        self.info = Info("i", "An info", registry=self.registry)
        self.enum = Enum("e", "An enum", registry=self.registry, states=["on", "off"])
        self.counter.inc(3)
        self.gauge.set(4)
        self.summary.observe(2)
        self.histogram.observe(2)
        self.labelled.labels("x", "y").inc(7)
        self.timer.labels("x").observe(2)
        self.info.info({"v": "1"})
        self.enum.state("off")


def raised(act: Callable[[], object]) -> str:
    """The class of what is raised."""
    try:
        act()
    except Exception as error:
        return type(error).__name__
    return "nothing"


def set_to(value: Any, amount: float) -> list[float]:
    """Set a value by its attribute, under its lock, and go on."""
    with value._lock:
        value._value = amount
    value.inc(1)
    return [value.get(), value._value]


def reset_histogram(histogram: Histogram) -> list[Any]:
    """What a fixture does to begin anew."""
    histogram._sum.set(0)
    for bucket in histogram._buckets:
        bucket.set(0)
    return [sample[::2] for sample in histogram._child_samples() if sample.name != "_created"]


def samples(found: Any) -> list[Any]:
    """Without what depends on the clock."""
    return [tuple(one)[:3] for one in found if "_created" not in one.name]


READ: dict[str, Callable[[App], object]] = {
    "counter._value.get()": lambda app: app.counter._value.get(),
    "counter._value._value": lambda app: app.counter._value._value,
    "int(counter._value._value)": lambda app: int(app.counter._value._value),
    "hasattr(counter, '_value')": lambda app: [
        hasattr(one, "_value") for one in (app.counter, app.labelled, app.summary)
    ],
    "gauge._value.get()": lambda app: [app.gauge._value.get(), app.gauge._value._value],
    "summary._sum, _count": lambda app: [app.summary._sum.get(), app.summary._sum._value, app.summary._count._value],
    "histogram._sum": lambda app: [app.histogram._sum.get(), app.histogram._sum._value],
    "histogram._buckets": lambda app: [bucket._value for bucket in app.histogram._buckets],
    "histogram._buckets[i]": lambda app: [app.histogram._buckets[1].get(), app.histogram._buckets[-1].get()],
    "histogram._buckets[:]": lambda app: [bucket.get() for bucket in app.histogram._buckets[:2]],
    "sum of buckets": lambda app: sum(b.get() for b in app.histogram._buckets) == len(app.histogram._buckets) - 2,
    "_upper_bounds with _buckets": lambda app: [
        (bound, bucket.get()) for bound, bucket in zip(app.histogram._upper_bounds, app.histogram._buckets, strict=True)
    ],
    "histogram has no _count": lambda app: hasattr(app.histogram, "_count"),
    "_metrics": lambda app: list(app.labelled._metrics),
    "_metrics[...]._value.get()": lambda app: app.labelled._metrics["x", "y"]._value.get(),
    "_metrics.get(other)": lambda app: app.labelled._metrics.get(("no", "no")),
    "_metrics.items()": lambda app: [(k, v._labelvalues, v._value._value) for k, v in app.labelled._metrics.items()],
    "type(_metrics)": lambda app: type(app.labelled._metrics).__name__,
    "labels()._value": lambda app: app.labelled.labels(a="x", b="y")._value.get(),
    "_labelnames, _labelvalues": lambda app: [app.labelled._labelnames, app.labelled.labels("x", "y")._labelvalues],
    "_name, _documentation, _type, _unit": lambda app: [
        (m._name, m._documentation, m._type, m._unit) for m in (app.counter, app.gauge, app.histogram, app.info)
    ],
    "_kwargs": lambda app: [app.timer._kwargs, app.gauge._kwargs],
    "_multiprocess_mode": lambda app: app.gauge._multiprocess_mode,
    "_samples()": lambda app: [samples(m._samples()) for m in (app.counter, app.gauge, app.labelled, app.timer)],
    "_child_samples()": lambda app: samples(app.histogram._child_samples()),
    "_multi_samples()": lambda app: samples(app.labelled._multi_samples()),
    "collect()": lambda app: [samples(m.collect()[0].samples) for m in (app.counter, app.labelled, app.histogram)],
    "describe()": lambda app: [(m.name, m.type) for m in [*app.counter.describe(), *app.timer.describe()]],
    "str and repr": lambda app: [str(app.counter), repr(app.timer)],
    "_created": lambda app: [type(m._created).__name__ for m in (app.counter, app.summary, app.histogram)],
    "info._value": lambda app: app.info._value,
    "enum._value, _states": lambda app: [app.enum._value, app.enum._states[app.enum._value]],
    "_names_to_collectors": lambda app: [
        app.registry._names_to_collectors["c_s_total"] is app.counter,
        sorted(app.registry._names_to_collectors),
    ],
    "_collector_to_names": lambda app: app.registry._collector_to_names[app.counter],
    "_target_info": lambda app: app.registry._target_info,
    "_lock": lambda app: [app.labelled._lock.__enter__(), app.labelled._lock.__exit__(None, None, None)],
    "_exemplar": lambda app: [app.counter.inc(1, {"t": "1"}), app.counter._value._exemplar.labels][1],
    "_value.get_exemplar()": lambda app: app.counter._value.get_exemplar(),
    "values.MutexValue": lambda app: values.MutexValue("", "", "", (), (), "").get(),
    "copy()": lambda app: [copy.copy(app.counter)._value.get(), copy.copy(app.timer).labels("x")._sum.get()],
    "deepcopy() and pickle": lambda app: [
        raised(lambda: copy.deepcopy(app.counter)),
        raised(lambda: pickle.dumps(app.counter)),
    ],
    "_is_observable(), _is_parent()": lambda app: [app.labelled._is_observable(), bool(app.labelled._is_parent())],
    "vars()": lambda app: {"_value", "_name", "_documentation"} <= vars(app.counter).keys(),
}
SET: dict[str, Callable[[App], object]] = {
    "counter._value.set(0)": lambda app: [app.counter._value.set(0), app.counter.inc(), app.counter._value.get()],
    "counter._value._value = 0": lambda app: set_to(app.counter._value, 0),
    "gauge._value._value = 9": lambda app: set_to(app.gauge._value, 9),
    "summary._sum._value = 1": lambda app: set_to(app.summary._sum, 1),
    "histogram._buckets[0]._value = 2": lambda app: set_to(app.histogram._buckets[0], 2),
    "_metrics[...]._value.set(0)": lambda app: set_to(app.labelled._metrics["x", "y"]._value, 0),
    "_value.inc(5)": lambda app: [app.counter._value.inc(5), app.counter._value.get()],
    "_value._value += 1": lambda app: [
        setattr(app.counter._value, "_value", app.counter._value._value + 1),
        app.counter._value.get(),
    ],
    "histogram._sum.set(0), all buckets": lambda app: reset_histogram(app.histogram),
    "_created = 1": lambda app: [setattr(app.counter, "_created", 1.0), app.counter._created],
    "_documentation": lambda app: [setattr(app.gauge, "_documentation", "Other"), app.gauge.collect()[0].documentation],
    "_value = MutexValue": lambda app: [
        setattr(app.counter, "_value", values.MutexValue("", "", "", (), (), "")),
        app.counter.inc(2),
        app.counter._value.get(),
        app.registry.get_sample_value("c_s_total"),
    ],
    "_buckets = list of MutexValue": lambda app: [
        setattr(app.histogram, "_buckets", [values.MutexValue("", "", "", (), (), "") for _ in range(3)]),
        setattr(app.histogram, "_sum", values.MutexValue("", "", "", (), (), "")),
        app.histogram.observe(2),
        [bucket.get() for bucket in app.histogram._buckets],
        app.registry.get_sample_value("h_count"),
    ],
}


@pytest.mark.parametrize("what", [*READ, *SET])
def test_an_attribute_is_what_it_is_in_one_process(path: str, what: str) -> None:
    """Read, or set and then gone on with."""
    use = {**READ, **SET}[what]
    in_memory = use(App())
    sqlmetrics.install(path)

    assert use(App()) == in_memory


def test_a_value_is_the_processs_own_and_what_is_set_counts_for_all(store: sqlmetrics.Store) -> None:
    """Whatever others have counted."""
    counter, latency = Counter("c", ""), Histogram("h", "", buckets=[1])

    def count() -> None:
        counter.inc(10)
        latency.observe(0.5)

    with child(count=count) as other:
        other.do("count")
        counter.inc(3)
        latency.observe(0.5)
        assert [counter._value._value, latency._sum._value, latency._buckets[0]._value] == [3, 0.5, 1]

        counter._value._value = 1
        latency._buckets[0]._value = 4
        assert REGISTRY.get_sample_value("c_total") == 11
        assert REGISTRY.get_sample_value("h_count") == 5


def test_the_value_class_says_that_it_is_for_many_processes(store: sqlmetrics.Store) -> None:
    """What libraries ask it."""
    counter = Counter("c", "")

    assert values.ValueClass._multiprocess is True
    assert counter._value._multiprocess is True
