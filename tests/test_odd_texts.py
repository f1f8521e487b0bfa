"""Names, help texts, labels, states and modes of any class show what they show in one process."""

from __future__ import annotations

import enum
import math
from typing import Any
from unittest import mock

import prometheus_client
import pytest
from helpers import Shell, child, flush_all, value
from odd import Float64, Lazy, Number, Safe, Sides, State, Text, Whole, named, tried
from prometheus_client import Counter, Gauge

import sqlmetrics

pytestmark = [pytest.mark.promise(12), pytest.mark.usefixtures("store")]

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


IDENTIFIERS = [7, Text("x"), Safe("x"), State.UP, Whole(3), None, 1.5, math.nan, b"x", Lazy(), "\ud800", "x" * 5000]


@pytest.mark.parametrize("identifier", [*IDENTIFIERS, mock.Mock(name="identifier")], ids=named)
def test_a_process_identifier_of_any_class_is_compared_as_text(folder: Any, shell: Shell, identifier: object) -> None:
    """It is the pid of gauges, and names the process in `mark_process_dead`."""
    shown = str.__str__(str(identifier)).replace("\ud800", r"\ud800")

    def begin() -> None:
        sqlmetrics.uninstall()
        sqlmetrics.install(shell.path, process_identifier=lambda: identifier, flush_interval=1000)
        for mode in ("all", "liveall"):
            gauge = Gauge(mode, "Help", multiprocess_mode=mode)
            gauge.set(1)
            gauge.inc()
        Counter("told", "Help").inc()
        prometheus_client.Enum("link", "Help", states=["up", "down"]).state("down")

    with child(begin=begin, flush=lambda: flush_all(sqlmetrics.install())) as one:
        one.do("begin")
        assert (value("all", pid=shown), value("liveall", pid=shown), value("told_total")) == (2.0, 2.0, 1.0)
        one.do("flush")
        assert value("all", pid=shown) == 2.0
        assert shell.value("SELECT pid FROM samples WHERE metric = 'all'") == shown
        sqlmetrics.mark_process_dead(identifier)
        assert (value("all", pid=shown), value("liveall", pid=shown)) == (2.0, None)
    assert (value("all", pid=shown), value("liveall", pid=shown), value("told_total")) == (2.0, None, 1.0)
