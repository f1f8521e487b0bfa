"""Resets by private means, as test fixtures and reloaded modules do them, do what they do in one process.

Each way is tried in the memory of one process first, and then with a store: what is shown is the same.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import Shell, child, hasty_threads, scrape, value
from outsiders import Operator
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)

import sqlmetrics

pytestmark = pytest.mark.promise(12)

Steps = Iterator[object]
"""A way to reset: yields whenever what is shown is to be compared."""


@pytest.fixture(autouse=True)
def untouched_registry() -> Iterator[None]:
    """Puts back what a way has thrown out of the default registry."""
    kept = dict(REGISTRY._collector_to_names), dict(REGISTRY._names_to_collectors)
    yield
    REGISTRY._collector_to_names.clear()
    REGISTRY._names_to_collectors.clear()
    REGISTRY._collector_to_names.update(kept[0])
    REGISTRY._names_to_collectors.update(kept[1])


def shown() -> list[str]:
    """The samples of the default registry that are ours."""
    lines = generate_latest(REGISTRY).decode().splitlines()
    return sorted(line for line in lines if line.startswith("my_") and "_created" not in line)


def made() -> list[Any]:
    """A metric of each kind, used."""
    metrics: list[Any] = [
        Counter("my_c", "", ["a"]),
        Counter("my_plain", ""),
        Gauge("my_g", "", ["a"], multiprocess_mode="sum"),
        Gauge("my_recent", "", multiprocess_mode="mostrecent"),
        Summary("my_s", "", ["a"]),
        Histogram("my_h", "", ["a"], buckets=[1]),
        Histogram("my_hist", "", buckets=[1]),
        Info("my_i", "", ["a"]),
        Enum("my_e", "", ["a"], states=["on", "off"]),
        Info("my_info", ""),
        Enum("my_enum", "", states=["on", "off"]),
    ]
    use(metrics)
    return metrics


def use(metrics: list[Any]) -> None:
    """Use each metric once."""
    for metric in metrics:
        one = metric.labels("x") if metric._labelnames else metric
        if isinstance(one, Gauge):
            one.set(5)
        elif isinstance(one, Counter):
            one.inc(5)
        elif isinstance(one, (Summary, Histogram)):
            one.observe(0.5)
        elif isinstance(one, Info):
            one.info({"v": "1"})
        else:
            one.state("off")


def empty_the_registry() -> None:
    """What is found most often."""
    REGISTRY._collector_to_names.clear()
    REGISTRY._names_to_collectors.clear()


def clear_the_registry() -> Steps:
    """And make all metrics again, while nobody holds the old ones, and while somebody does."""
    made()
    empty_the_registry()
    yield
    held = made()
    yield
    empty_the_registry()
    again = made()
    yield
    use(held)
    use(again)
    yield


def unregister_and_make_again() -> Steps:
    """By the public method; the new one begins at zero."""
    for metric in made():
        REGISTRY.unregister(metric)
    yield
    again = made()
    yield
    for metric in again:
        REGISTRY.unregister(metric)
    yield
    for metric in again:
        REGISTRY.register(metric)
    yield
    use(again)
    yield


def make_another_kind() -> Steps:
    """Of the same name: other labels, another type."""
    counter = Counter("my_c", "", ["a"])
    counter.labels("x").inc()
    REGISTRY.unregister(counter)
    other = Counter("my_c", "", ["b"])
    yield
    other.labels("y").inc()
    yield
    REGISTRY.unregister(other)
    Gauge("my_c", "", multiprocess_mode="max").set(7)
    yield


def with_labels(metrics: list[Any]) -> list[Any]:
    return [metric for metric in metrics if metric._labelnames]


def empty_the_children(empty: Callable[[Any], object]) -> Callable[[], Steps]:
    def steps() -> Steps:
        metrics = with_labels(made())
        held = [metric.labels("x") for metric in metrics]
        for metric in metrics:
            empty(metric)
        yield
        for one in held:
            if isinstance(one, (Counter, Gauge)):
                one.inc()
        yield
        use(metrics)
        yield
        for metric in metrics:
            empty(metric)
            metric.labels("y")
        yield
        use(metrics)
        yield

    return steps


def begin_anew(metric: Any) -> None:
    """As a registry's own `clear()` does it to whatever is registered."""
    if hasattr(metric, "_lock") and hasattr(metric, "_metrics"):
        with metric._lock:
            metric._metrics = {}
    metric._metric_init()


def init_again() -> Steps:
    """Of everything that is registered, with and without labels, and of children."""
    metrics = made()
    for metric in metrics:
        begin_anew(metric)
    yield
    use(metrics)
    yield
    for metric in with_labels(metrics):
        metric.labels("x")._metric_init()
    yield
    use(metrics)
    yield


def reload_a_module(module: ModuleType) -> Callable[[], Steps]:
    def steps() -> Steps:
        importlib.reload(module)
        module.HITS.labels("x").inc(3)
        yield
        for metric in (module.HITS, module.LOAD):
            REGISTRY.unregister(metric)
        importlib.reload(module)
        yield
        module.HITS.labels("x").inc()
        yield

    return steps


def set_values() -> Steps:
    """By the attributes of value objects."""
    metrics = {metric._name: metric for metric in made()}
    metrics["my_plain"]._value.set(0)
    metrics["my_g"].labels("x")._value._value = 2
    metrics["my_s"].labels("x")._sum._value = 0
    metrics["my_hist"]._sum.set(0)
    for bucket in metrics["my_hist"]._buckets:
        bucket.set(0)
    yield
    metrics["my_c"]._metrics["x",]._value._value += 1
    yield


MODULE = """
from prometheus_client import Counter, Gauge
HITS = Counter("my_hits", "", ["a"])
LOAD = Gauge("my_load", "", multiprocess_mode="max")
LOAD.set(1)
"""


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An app's module that makes metrics, not registered at the moment."""
    (folder / "my_metrics.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    found = importlib.import_module("my_metrics")
    unregister_ours()
    yield found
    del sys.modules["my_metrics"]


def unregister_ours() -> None:
    for collector in list(REGISTRY._collector_to_names):
        if getattr(collector, "_name", "").startswith("my_"):
            REGISTRY.unregister(collector)


WAYS: dict[str, Callable[[], Steps]] = {
    "clear the registry": clear_the_registry,
    "unregister and make again": unregister_and_make_again,
    "make another kind": make_another_kind,
    "_metrics.clear()": empty_the_children(lambda metric: metric._metrics.clear()),
    "_metrics = {}": empty_the_children(lambda metric: setattr(metric, "_metrics", {})),
    "_metrics.pop()": empty_the_children(lambda metric: metric._metrics.pop(("x",))),
    "_metrics.popitem()": empty_the_children(lambda metric: metric._metrics.popitem()),
    "del _metrics[]": empty_the_children(lambda metric: metric._metrics.__delitem__(("x",))),
    "_metric_init()": init_again,
    "set values": set_values,
}


def run(steps: Callable[[], Steps]) -> list[list[str]]:
    """What is shown after each step."""
    found = [shown() for _ in steps()]
    unregister_ours()
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_reset_shows_what_it_shows_in_one_process(path: str, way: str) -> None:
    """At each step, in the very next scrape."""
    in_memory = run(WAYS[way])
    sqlmetrics.install(path)

    assert len(in_memory) > 1
    assert run(WAYS[way]) == in_memory


def test_a_module_that_is_reloaded_begins_at_zero(path: str, module: ModuleType) -> None:
    """After its metrics were unregistered, as it has to be in one process."""
    in_memory = run(reload_a_module(module))
    del module.HITS, module.LOAD
    sqlmetrics.install(path)

    assert in_memory[0] == ['my_hits_total{a="x"} 3.0', "my_load 1.0"]
    assert run(reload_a_module(module)) == in_memory


@pytest.mark.slow
def test_only_what_this_process_has_counted_is_given_back(store: sqlmetrics.Store, shell: Shell) -> None:
    """Other processes keep theirs, and rows and readers elsewhere show it."""
    hits = Counter("my_hits", "", ["a"])

    def count() -> None:
        hits.labels("x").inc(10)
        hits.labels("others").inc()

    with child(count=count, look=lambda: sorted(map(list, scrape(store.path).items()))) as other:
        other.do("count")
        hits.labels("x").inc()
        hits.labels("own").inc()
        hits._metrics.clear()

        assert shown() == ['my_hits_total{a="others"} 1.0', 'my_hits_total{a="x"} 10.0']
        assert len(other.do("look")) == 2
        shell.wait_for_row("SELECT 1 FROM metrics WHERE value = 10")
        assert shell.value("SELECT count(*) FROM samples WHERE labels LIKE '%own%'") == 0
        hits.labels("x").inc()
        assert REGISTRY.get_sample_value("my_hits_total", {"a": "x"}) == 11


def test_a_flush_notices_where_nobody_scrapes_here(path: str) -> None:
    """A worker that was reset, and another process that scrapes."""
    store = sqlmetrics.install(path, flush_interval=0.1)
    hits = Counter("my_hits", "", ["a"])
    with child(look=lambda: sorted(map(list, scrape(path).items()))) as other:
        hits.labels("x").inc()
        assert len(other.do("look")) == 1
        hits._metrics.clear()
        store.flush()
        assert other.do("look") == []


def test_a_metric_of_that_name_in_another_registry_keeps_its_count(store: sqlmetrics.Store) -> None:
    """Two objects count in the same cells; neither is reset because the other one is."""
    registry = CollectorRegistry()
    Counter("my_hits", "", ["a"], registry=registry).labels("x").inc()
    one = Counter("my_hits", "", ["a"])
    one.labels("x").inc()
    before = registry.get_sample_value("my_hits_total", {"a": "x"})
    REGISTRY.unregister(one)
    Counter("my_hits", "", ["a"])

    assert before
    assert registry.get_sample_value("my_hits_total", {"a": "x"}) == before


def test_what_is_removed_the_public_way_is_no_private_reset(store: sqlmetrics.Store) -> None:
    """A child that somebody holds begins anew at zero, and is shown."""
    hits = Counter("my_hits", "", ["a"])
    held = [hits.labels(name) for name in "xyz"]
    hits.remove("x")
    hits.remove_by_labels({"a": "y"})
    hits.clear()
    for one in held:
        one.inc(2)

    assert shown() == [f'my_hits_total{{a="{name}"}} 2.0' for name in "xyz"]


@pytest.mark.promise(5)
def test_a_reset_is_written_later_where_another_program_keeps_the_write_lock(path: str) -> None:
    """The scrape does not wait for it; one that comes after it shows the reset."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    requests.labels("here").inc()
    store.flush()
    with Operator(path, "BEGIN IMMEDIATE"):
        requests._metrics.clear()
        assert value("requests_total", by="here") == 1

    assert value("requests_total", by="here") is None


def test_children_that_threads_make_at_once_are_all_counted(path: str) -> None:
    """Beside removals in a third thread: no operation raises, and nothing is taken for a reset."""
    sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    raised: list[BaseException] = []
    ended: list[int] = []

    def count(thread: int) -> None:
        try:
            for number in range(1500):
                requests.labels(f"{thread}.{number}").inc()
        except BaseException as error:
            raised.append(error)
        finally:
            ended.append(thread)

    threads = [threading.Thread(target=count, args=(number,)) for number in range(3)]
    with hasty_threads():
        for thread in threads:
            thread.start()
        while len(ended) < 3:
            requests.labels("gone").inc()
            requests.remove("gone")
        for thread in threads:
            thread.join()

    assert raised == []
    assert sum(found for (name, _), found in scrape().items() if name == "requests_total") == 4500
