"""Promise 12: texts, numbers and times of any class show what they show in one process, and are in nobody's way."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import math
import re
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import prometheus_client
import pytest
from differential import peer
from helpers import Child, Shell, child, in_child, scrape, value
from prometheus_client import Counter, Gauge

import sqlmetrics

MODES = ("all", "mostrecent", "livesum", "max")


class Text(str):
    """A text that prints as another one."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another"

    def __repr__(self) -> str:
        return "Text()"


class Safe(str):
    """A text that `str()` leaves as it is, as those of template engines are."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Lazy:
    """A translation that is looked up when it is used."""

    def __str__(self) -> str:
        return "translated"

    def __getattr__(self, name: str) -> Any:
        return getattr("translated", name)


class State(str, enum.Enum):
    """An enum of strings."""

    UP = "up"
    DOWN = "down"


class Number(enum.IntEnum):
    """An enum of numbers."""

    ONE = 1


class Float64(float):
    """A float that writes itself as numpy's does."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)!r})"

    __str__ = __repr__


class Float32:
    """A number that is no float, as numpy's others are."""

    def __init__(self, number: float):
        self.number = number

    def __float__(self) -> float:
        return self.number

    def __radd__(self, other: float) -> Float64:
        return Float64(other + self.number)

    def __neg__(self) -> Float32:
        return Float32(-self.number)

    def __lt__(self, other: float) -> bool:
        return self.number < other

    def __le__(self, other: float) -> bool:
        return self.number <= other


class Whole(int):
    """An int that writes itself as something else."""

    def __repr__(self) -> str:
        return "Whole()"

    __str__ = __repr__


Use = Callable[[Any, Any], object]


def named(given: object) -> str:
    """What a case is called, the same in each process that runs tests."""
    return re.sub(r"test_odd_values\.| object at 0x\w+| id='\d+'", "", ascii(given))[:30]


def tried(action: Callable[[], object]) -> str:
    """What comes of something: the error that it raises, if any."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def lines(text: bytes) -> list[str]:
    """The lines of an exposition, in no order, without the times at which children were made."""
    return sorted(line for line in text.decode().splitlines() if "_created" not in line)


class Sides:
    """One use of metrics in `prometheus_client`'s memory mode and, in a process of its own, in the store."""

    def __init__(self, use: Use):
        registry = peer.CollectorRegistry()
        self.said = tried(lambda: use(peer, registry))
        self._shown = lambda: lines(peer.generate_latest(registry))
        self.user = Child()
        if self.user.in_child:
            store = sqlmetrics.install()
            act = {"use": lambda: tried(lambda: use(prometheus_client, None)), "flush": lambda: store.flush().name}
            self.user.serve(**act)

    def agree(self, shell: Shell, expected: list[str] | None = None) -> None:
        """Compare them: from the journal, from rows, and when the process has been killed."""
        shown = self._shown() if expected is None else sorted(expected)
        healthy = Counter("healthy", "Healthy", registry=None)
        healthy.inc()
        healthy_lines = ["# HELP healthy_total Healthy", "# TYPE healthy_total counter", "healthy_total 1.0"]
        wanted = sorted([*shown, *healthy_lines])
        assert self.user.do("use") == self.said
        assert lines(sqlmetrics.generate_latest()) == wanted
        assert self.user.do("flush") in ("DONE", "NOTHING_CHANGED")
        assert lines(sqlmetrics.generate_latest()) == wanted
        self.user.kill()
        assert lines(sqlmetrics.generate_latest()) == wanted
        assert sqlmetrics.install().flush().name in ("DONE", "NOTHING_CHANGED")
        assert shell.value("SELECT value FROM metrics WHERE metric = 'healthy_total'") == 1.0
        assert lines(sqlmetrics.generate_latest()) == wanted


@pytest.fixture(autouse=True)
def _installed(store: sqlmetrics.Store) -> None:
    """All of these tests have a store."""


NAMES = [Text("told"), Safe("told"), State.UP, Lazy(), 5, 1.5, b"told", None, "", "\ud800", "zażółć"]


@pytest.mark.parametrize("given", NAMES, ids=named)
def test_names_of_any_class_are_taken_or_refused_as_in_one_process(shell: Shell, given: object) -> None:
    """Name, namespace, subsystem and unit of a metric."""

    def use(client: Any, registry: Any) -> None:
        said = []
        for argument in ("name", "namespace", "subsystem", "unit"):
            arguments = {"name": f"{argument}_told", "documentation": "Help"} | {argument: given}
            said.append(tried(lambda given=arguments: client.Counter(**given, registry=registry).inc()))  # type: ignore[misc]
        raise AssertionError(said)  # how both sides are compared

    Sides(use).agree(shell)


@pytest.mark.parametrize("given", [Text("told"), Safe("told"), Lazy(), State.UP, "\ud83d\ude00"], ids=named)
def test_help_texts_of_any_class_are_shown_as_in_one_process(shell: Shell, given: object) -> None:
    """Also lazy translations, and pairs of surrogates, which are one character."""
    # What no encoder can write one process cannot show.
    expected = ["# HELP told_total 😀", "# TYPE told_total counter", "told_total 1.0"]
    Sides(lambda client, registry: client.Counter("told", given, registry=registry).inc()).agree(
        shell, expected if given == "\ud83d\ude00" else None
    )


@pytest.mark.parametrize(
    ("given", "shown"),
    [(None, ""), (5, "5"), (b"help \xff", r"help \\xff"), (["a"], "['a']"), ("\ud800", r"\\ud800")],
    ids=named,
)
def test_help_texts_that_cannot_be_exposed_in_one_process_are_shown_as_text(
    shell: Shell, given: object, shown: str
) -> None:
    """There, `prometheus_client` accepts them, and raises an error at each exposition from then on."""
    expected = [f"# HELP told_total {shown}", "# TYPE told_total counter", "told_total 1.0"]
    Sides(lambda client, registry: client.Counter("told", given, registry=registry).inc()).agree(shell, expected)


@pytest.mark.parametrize(
    "given",
    [(Safe("a"), "b"), ["a", "b"], {"a": 1, "b": 2}, "ab", (5, "b"), (None,), 5, ("__a", "b")],
    ids=named,
)
def test_label_names_of_any_class_are_taken_or_refused_as_in_one_process(shell: Shell, given: Any) -> None:
    """Tuples, lists, dicts and strings of them, too."""

    def use(client: Any, registry: Any) -> None:
        client.Counter("told", "Help", given, registry=registry).labels("1", "2").inc()

    Sides(use).agree(shell)


def test_a_generator_of_label_names_is_taken_as_in_one_process(shell: Shell) -> None:
    """It can be gone through once only."""

    def use(client: Any, registry: Any) -> None:
        client.Histogram("told", "Help", (name for name in "ab"), registry=registry).labels("1", "2").observe(1)

    Sides(use).agree(shell)


def test_a_label_name_of_an_enum_of_strings_is_its_value(shell: Shell) -> None:
    """In one process it is shown as ``State.UP``, which no Prometheus reads."""

    def use(client: Any, registry: Any) -> None:
        client.Counter("told", "Help", [State.UP], registry=registry).labels("1").inc()

    expected = ["# HELP told_total Help", "# TYPE told_total counter", 'told_total{up="1"} 1.0']
    Sides(use).agree(shell, expected)


VALUES = [Text("x"), Safe("x"), Lazy(), State.UP, Number.ONE, 5, 1.5, Float64(1.5), Whole(2), None, True, b"x", ["x"]]


@pytest.mark.parametrize("given", VALUES, ids=named)
def test_label_values_of_any_class_are_shown_as_in_one_process(shell: Shell, given: object) -> None:
    """Of all kinds of metrics; given by position and by name, and removed by the same object."""
    more: dict[str, Any] = {"Enum": {"states": ["a", "b"]}, "Gauge": {"multiprocess_mode": "max"}}

    def use(client: Any, registry: Any) -> None:
        for kind in ("Counter", "Gauge", "Summary", "Histogram", "Info", "Enum"):
            metric = getattr(client, kind)(f"of_{kind}", "Help", ["a", "b"], registry=registry, **more.get(kind, {}))
            metric.labels(given, "y")
            metric.labels(b="z", a=given)
            metric.labels(given, "gone")
            metric.remove(given, "gone")
            metric.labels("gone", given)
            metric.remove_by_labels({"b": given})

    Sides(use).agree(shell)


class Mode(str, enum.Enum):
    """Of an enum of strings, `prometheus_client` takes those modes whose name is their value."""

    max = "max"
    MIN = "min"


@pytest.mark.parametrize("mode", [Text("max"), Safe("max"), Mode.max, Mode.MIN, Lazy(), None, 5, b"max"], ids=named)
def test_modes_of_any_class_are_taken_or_refused_as_in_one_process(shell: Shell, mode: Any) -> None:
    """With label names and without."""

    def use(client: Any, registry: Any) -> None:
        client.Gauge("plain", "Help", registry=registry, multiprocess_mode=mode).set(2)
        client.Gauge("labelled", "Help", ["a"], registry=registry, multiprocess_mode=mode).labels("1").inc(3)

    Sides(use).agree(shell)


@pytest.mark.parametrize(
    "states",
    [list(State), [Text("x"), "y"], (Safe("x"), "y"), "xyz", list(enum.StrEnum("S", ["x", "y"]))]
    if hasattr(enum, "StrEnum")
    else [list(State), [Text("x"), "y"], (Safe("x"), "y"), "xyz"],
    ids=named,
)
def test_states_of_any_class_are_shown_as_in_one_process(shell: Shell, states: Any) -> None:
    """An enum of strings is a natural choice of states."""

    def use(client: Any, registry: Any) -> None:
        client.Enum("plain", "Help", states=states, registry=registry).state(states[1])
        client.Enum("untold", "Help", states=states, registry=registry)
        labelled = client.Enum("labelled", "Help", ["a"], states=states, registry=registry)
        labelled.labels("1").state(states[1])
        labelled.labels("2").state(str.__str__(states[0]))

    Sides(use).agree(shell)


def test_states_that_cannot_be_exposed_in_one_process_are_shown_as_text(shell: Shell) -> None:
    """Numbers, None, a lone surrogate, and two states of one text, of which the first is meant."""

    def use(client: Any, registry: Any) -> None:
        client.Enum("odd", "Help", states=[1, None, "\ud800"], registry=registry).state("\ud800")
        client.Enum("twice", "Help", states=["a", "a", "b"], registry=registry).state("b")
        client.Enum("same", "Help", states=[1, "1", "2"], registry=registry).state("1")

    expected = ['odd{odd="1"} 0.0', 'odd{odd="None"} 0.0', r'odd{odd="\\ud800"} 1.0']
    expected += ['twice{twice="a"} 0.0', 'twice{twice="b"} 1.0', 'same{same="1"} 1.0', 'same{same="2"} 0.0']
    for name in ("odd", "twice", "same"):
        expected += [f"# HELP {name} Help", f"# TYPE {name} gauge"]
    Sides(use).agree(shell, expected)


@pytest.mark.parametrize(
    "info",
    [{"a": State.UP}, {"a": Text("x")}, {Safe("a"): Safe("x")}, {}, {"a": None}, {"label": "x"}, 5, [("a", "x")]],
    ids=named,
)
def test_infos_of_any_class_are_taken_or_refused_as_in_one_process(shell: Shell, info: Any) -> None:
    """With label names and without."""

    def use(client: Any, registry: Any) -> None:
        client.Info("plain", "Help", registry=registry)
        labelled = client.Info("labelled", "Help", ["label"], registry=registry)
        labelled.labels("1").info({"b": "earlier"})
        labelled.labels("1").info(info)

    Sides(use).agree(shell)


def test_an_info_that_cannot_be_exposed_in_one_process_is_shown_as_text(shell: Shell) -> None:
    """Numbers and bytes, as keys and as values, and a lone surrogate."""
    info = {"number": 1, 2: "two", "bytes": b"x", "lone": "\ud800"}
    shown = r'build_info{_="two",bytes="b' + "'x'" + r'",lone="\\ud800",number="1"} 1.0'
    expected = ["# HELP build_info Help", "# TYPE build_info gauge", shown]
    Sides(lambda client, registry: client.Info("build", "Help", registry=registry).info(info)).agree(shell, expected)


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


IDENTIFIERS = [7, Text("x"), Safe("x"), State.UP, Whole(3), None, 1.5, math.nan, b"x", Lazy(), "\ud800", "x" * 5000]


@pytest.mark.parametrize("identifier", [*IDENTIFIERS, mock.Mock(name="identifier")], ids=named)
def test_a_process_identifier_of_any_class_is_compared_as_text(folder: Any, shell: Shell, identifier: object) -> None:
    """It is the pid of gauges, and names the process in `mark_process_dead`."""
    shown = str.__str__(str(identifier)).replace("\ud800", r"\ud800")

    def begin() -> None:
        sqlmetrics.uninstall()
        sqlmetrics.install(shell.path, process_identifier=lambda: identifier)
        for mode in ("all", "liveall"):
            gauge = Gauge(mode, "Help", multiprocess_mode=mode)
            gauge.set(1)
            gauge.inc()
        Counter("told", "Help").inc()
        prometheus_client.Enum("link", "Help", states=["up", "down"]).state("down")

    with child(begin=begin, flush=lambda: sqlmetrics.install().flush().name) as one:
        one.do("begin")
        assert (value("all", pid=shown), value("liveall", pid=shown), value("told_total")) == (2.0, 2.0, 1.0)
        one.do("flush")
        assert value("all", pid=shown) == 2.0
        assert shell.value("SELECT pid FROM samples WHERE metric = 'all'") == shown
        sqlmetrics.mark_process_dead(identifier)
        assert (value("all", pid=shown), value("liveall", pid=shown)) == (2.0, None)
    assert (value("all", pid=shown), value("liveall", pid=shown), value("told_total")) == (2.0, None, 1.0)


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
