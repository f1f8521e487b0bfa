"""Metric classes, value objects and value classes of the app's own stay the app's: `install()` leaves them as they are,
and where the values of a metric are not the store's, its own `collect()` is asked."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import prometheus_client
import pytest
from helpers import scrape
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info, Summary, metrics, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Sample

import sqlmetrics

pytestmark = pytest.mark.promise(12)


class Quantiles(MetricWrapperBase):
    """A metric class that keeps what it has seen by itself."""

    _type = "summary"

    def _metric_init(self) -> None:
        self._seen: list[float] = []

    def observe(self, amount: float) -> None:
        self._seen.append(amount)

    def _child_samples(self) -> Iterable[Sample]:
        return [Sample("_count", {}, len(self._seen), None, None)]


class Doubled(Counter):
    """Keeps its value in an object of its own."""

    def _metric_init(self) -> None:
        self._value: Any = Twice()
        self._created = 1.0


class Twice:
    """A value that counts double."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.amount = 0.0

    def inc(self, amount: float) -> None:
        self.amount += 2 * amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        self.amount = value

    def get(self) -> float:
        return self.amount

    def get_exemplar(self) -> None:
        return None


class OwnType(Counter):
    """Says that it is of another type than its base class."""

    _type = "summary"


class Unequal(Counter):
    """Cannot be in a set."""

    __hash__ = None  # type: ignore[assignment]


class Uncopied(Gauge):
    """Cannot be copied."""

    def __copy__(self) -> Any:
        raise RuntimeError("there is one of me")


class OwnInit(Counter):
    """Has a constructor with more to it, and uses what all others use."""

    def __init__(self, name: str, *args: Any, **kwargs: Any):
        super().__init__(name, *args, **kwargs)
        self.made = True


def failed() -> list[BaseException]:
    """What constructors raise at several points; each keeps the object that was being made."""
    found = []
    for fail in (
        lambda: Histogram("h", "", buckets=[3, 1]),
        lambda: Counter("", ""),
        lambda: Counter("reserved", "", ["__name"]),
        lambda: Gauge("mode", "", multiprocess_mode="none"),  # type: ignore[arg-type]
        lambda: [Summary("twice", ""), Summary("twice", "")],
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            fail()
        found.append(caught.value)
    return found


def test_install_leaves_odd_objects_as_they_are_and_takes_the_others(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Classes of the app's own, and what failed constructors have left, also at `uninstall()` and once more."""
    kept = failed()
    odd = [Quantiles("q", ""), Quantiles("q_labelled", "", ["a"]).labels("x")]
    doubled, plain, init = Doubled("doubled", ""), Counter("plain", ""), OwnInit("init", "", ["a"]).labels("x")
    others = [Unequal("unequal", "", registry=None), Uncopied("uncopied", ""), OwnType("type", "")]

    def use() -> None:
        for one in odd:
            one.observe(1)
        for counter in (doubled, plain, init):
            counter.inc()

    use()
    for _ in range(2):
        sqlmetrics.install(path)
        use()
        sqlmetrics.uninstall()
    use()

    assert len(kept) == 5
    assert len(others) == 3
    assert "there is one of me" in caplog.text
    assert REGISTRY.get_sample_value("q_count") == 4
    assert REGISTRY.get_sample_value("q_labelled_count", {"a": "x"}) == 4
    assert REGISTRY.get_sample_value("doubled_total") == 8
    assert REGISTRY.get_sample_value("plain_total") == 4
    assert REGISTRY.get_sample_value("init_total", {"a": "x"}) == 4


def test_a_registry_asks_metrics_whose_values_are_not_the_stores(store: sqlmetrics.Store) -> None:
    """Whatever is the app's own: the class, the value object, or the method of one object."""
    doubled, replaced, method = Doubled("doubled", ""), Counter("replaced", ""), Counter("method", "")
    labelled = Doubled("labelled", "", ["a"])
    doubled.inc()
    labelled.labels("x").inc()
    replaced.inc(5)
    replaced._value = Twice()  # type: ignore[assignment]
    replaced.inc()
    method._child_samples = lambda: [Sample("_total", {}, 7.0, None, None)]  # type: ignore[method-assign]

    assert REGISTRY.get_sample_value("doubled_total") == 2
    assert REGISTRY.get_sample_value("labelled_total", {"a": "x"}) == 2
    assert REGISTRY.get_sample_value("replaced_total") == 2
    assert REGISTRY.get_sample_value("method_total") == 7


def test_types_that_no_scrape_can_show_stop_nobody(store: sqlmetrics.Store) -> None:
    """A class that makes values of the store under a type of its own, or under that of an Info."""

    class Own(MetricWrapperBase):
        def _metric_init(self) -> None:
            self._value = values.ValueClass(
                self._type, self._name, self._name, self._labelnames, self._labelvalues, self._documentation
            )

        def _child_samples(self) -> Iterable[Sample]:
            return [Sample("", {}, self._value.get(), None, None)]

    for number, kind in enumerate(["untyped", "info", "stateset", "gaugehistogram", None, "of my own"]):
        own: Any = type("Own", (Own,), {"_type": kind})(f"own_{number}", "", registry=None)
        own._value.inc(number)

    assert scrape() == {(f"own_{number}", ()): number for number in range(6)}


# --- value classes ------------------------------------------------------------------------------------------


@pytest.fixture
def own_value_class() -> Iterator[Callable[[Any], None]]:
    """Sets the class of values until the end of a test."""
    yield lambda kind: setattr(values, "ValueClass", kind)
    sqlmetrics.uninstall()
    values.ValueClass = values.MutexValue  # which `uninstall()` leaves to who has set it


def use_all() -> None:
    """Metrics of all kinds, used once."""
    Counter("c", "", ["a"]).labels("x").inc()
    Gauge("g", "", multiprocess_mode="sum").inc()
    Summary("s", "").observe(1)
    Histogram("h", "", buckets=[1]).observe(1)
    Info("i", "").info({"v": "1"})


SHOWN = ["c_total", "g", "s_count", "s_sum", "h_sum", "h_count"]


def shown() -> dict[str, float | None]:
    """What the default registry shows of them."""
    return {name: REGISTRY.get_sample_value(name, {"a": "x"} if name == "c_total" else {}) for name in SHOWN}


def test_a_class_derived_from_the_stores_has_its_methods_called(
    store: sqlmetrics.Store, own_value_class: Callable[[Any], None]
) -> None:
    """Its values are the store's, and what it does to them is done."""
    base: Any = sqlmetrics.values.MultiProcessValue()

    class Logged(base):  # type: ignore[misc]
        calls: list[float] = []  # noqa: RUF012

        def inc(self, amount: float) -> None:
            self.calls.append(amount)
            super().inc(amount)

    own_value_class(Logged)
    use_all()

    assert len(Logged.calls) == 1 + 1 + 2 + 2
    assert shown() == dict.fromkeys(SHOWN, 1.0)
    assert scrape()["c_total", (("a", "x"),)] == 1


def test_a_value_class_that_is_set_after_install_is_the_apps(
    store: sqlmetrics.Store, own_value_class: Callable[[Any], None]
) -> None:
    """Metrics that were made before go on in the store."""
    before = Counter("before", "", ["a"])
    before.labels("x").inc()
    own_value_class(Twice)
    use_all()
    before.labels("x").inc()
    before.labels("y").inc()

    assert shown() == dict.fromkeys(SHOWN, 2.0)
    assert REGISTRY.get_sample_value("before_total", {"a": "y"}) == 2
    assert REGISTRY.get_sample_value("i_info", {"v": "1"}) == 1
    assert scrape() == {("before_total", (("a", "x"),)): 2}
    sqlmetrics.uninstall()
    assert values.ValueClass is Twice


# --- modules ------------------------------------------------------------------------------------------------


@pytest.fixture
def modules() -> Iterator[None]:
    """Puts back what reloading replaces in modules that the whole test run uses."""
    before = [(module, dict(vars(module))) for module in (values, metrics)]
    yield
    for module, names in before:
        vars(module).update(names)


def test_a_reloaded_values_module_counts_in_memory_and_is_shown(modules: None, store: sqlmetrics.Store) -> None:
    """As in one process, until `install()` is asked again; what existed goes on."""
    before = Counter("before", "")
    importlib.reload(values)
    use_all()
    before.inc()

    assert shown() == dict.fromkeys(SHOWN, 1.0)
    assert scrape() == {("before_total", ()): 1}
    sqlmetrics.uninstall()
    assert shown() == dict.fromkeys(SHOWN, 1.0)
    assert REGISTRY.get_sample_value("before_total") == 1


def test_classes_of_a_reloaded_metrics_module_are_asked_by_themselves(modules: None, store: sqlmetrics.Store) -> None:
    """They are others than those that were replaced; what they count is in the store all the same."""
    importlib.reload(metrics)
    assert metrics.Counter is not prometheus_client.Counter
    again = metrics.Counter("again", "", ["a"])
    again.labels("x").inc(2)
    metrics.Histogram("took", "", buckets=[1]).observe(0.5)

    assert REGISTRY.get_sample_value("again_total", {"a": "x"}) == 2
    assert scrape()["again_total", (("a", "x"),)] == 2
    assert scrape()["took_count", ()] == 1
    again.clear()
    assert REGISTRY.get_sample_value("again_total", {"a": "x"}) is None


# --- all or nothing -----------------------------------------------------------------------------------------


class Stopped(BaseException):
    """What a signal handler raises in the middle."""


class Stopping(Counter):
    """Stops whoever makes it values anew."""

    armed = False

    def _metric_init(self) -> None:
        if self.armed:
            raise Stopped
        super()._metric_init()


@pytest.fixture
def stopping() -> Iterator[Any]:
    """A metric that stops `install()` and `uninstall()` once it is armed."""
    yield Stopping("stopping", "")
    Stopping.armed = False


def replaced_names() -> dict[str, Any]:
    """What `prometheus_client` has at the moment."""
    from sqlmetrics.client import patch

    return {f"{where}.{name}": where.__dict__[name] for where, name, _ in (*patch._REPLACED, *patch._METHODS)}


def test_an_install_that_is_stopped_leaves_everything_as_it_was(path: str, stopping: Any) -> None:
    """No name is replaced, no value moved, nothing is counted twice; and the next one works."""
    use_all()
    load = Gauge("load", "", multiprocess_mode="sum")
    load.set_function(lambda: 5)
    before, as_shown = replaced_names(), shown()
    Stopping.armed = True
    with pytest.raises(Stopped):
        sqlmetrics.install(path)

    assert replaced_names() == before
    assert shown() == as_shown == dict.fromkeys(SHOWN, 1.0)
    assert REGISTRY.get_sample_value("load") == 5
    Stopping.armed = False
    sqlmetrics.install(path)
    assert shown() == as_shown
    assert scrape()["c_total", (("a", "x"),)] == 1
    assert scrape()["load", ()] == 5


def test_an_uninstall_that_is_stopped_leaves_everything_as_it_was(store: sqlmetrics.Store, stopping: Any) -> None:
    """Metrics go on in the store, and the next `uninstall()` works."""
    use_all()
    before, as_shown = replaced_names(), shown()
    Stopping.armed = True
    with pytest.raises(Stopped):
        sqlmetrics.uninstall()

    assert replaced_names() == before
    assert shown() == as_shown
    assert scrape()["c_total", (("a", "x"),)] == 1
    Counter("later", "").inc()
    assert scrape()["later_total", ()] == 1
    Stopping.armed = False
    sqlmetrics.uninstall()
    assert shown() == as_shown


def test_what_somebody_else_has_replaced_since_stays_theirs(path: str) -> None:
    """`uninstall()` takes back its own only."""
    original: Any = Counter.inc
    sqlmetrics.install(path)
    calls: list[float] = []
    ours: Any = Counter.inc

    def inc(self: Any, amount: float = 1) -> None:
        calls.append(amount)
        ours(self, amount)

    Counter.inc = inc  # type: ignore[method-assign, assignment]
    try:
        counter = Counter("c", "")
        counter.inc()
        sqlmetrics.uninstall()
        counter.inc()
    finally:
        Counter.inc = original  # type: ignore[method-assign]

    assert calls == [1, 1]
    assert REGISTRY.get_sample_value("c_total") == 2
    assert CollectorRegistry.collect.__module__ == "prometheus_client.registry"
