"""What sqlmetrics replaces and touches in `prometheus_client` is as it knows it; else a sentence says what is not.

A release of `prometheus_client` that fails here may work all the same: read the sentence, look at the modules that it
names, and then add to the tables below what has become right too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    Summary,
    exposition,
    metrics,
    utils,
    values,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar, Sample
from touched import fingerprint, parameters, underscored

from sqlmetrics.cells import shape
from sqlmetrics.client import patch

PEER = f"prometheus_client {version('prometheus_client')}"

SIGNATURES = {
    "values.ValueClass": "(typ, metric_name, name, labelnames, labelvalues, help_text, **kwargs)",
    "values.MultiProcessValue": "(process_identifier=…)",
    "multiprocess.MultiProcessCollector": "(registry, path=None)",
    "multiprocess.mark_process_dead": "(pid, path=None)",
    "MultiProcessCollector.__init__": "(self, registry, path=None)",
    "MultiProcessCollector.collect": "(self)",
    "MultiProcessCollector.merge": "(files, accumulate=True)",
    "MultiProcessCollector._read_metrics": "(files)",
    "MultiProcessCollector._accumulate_metrics": "(metrics, accumulate)",
    "CollectorRegistry.__init__": (
        "(self, auto_describe=False, target_info=None, support_collectors_without_names=False)"
    ),
    "exposition.make_wsgi_app": "(registry=…, disable_compression=False)",
    "MetricWrapperBase.__init__": (
        "(self, name, documentation, labelnames=(), namespace='', subsystem='', unit='', registry=…, _labelvalues=None)"
    ),
    "MetricWrapperBase.labels": "(self, *labelvalues, **labelkwargs)",
    "Counter.inc": "(self, amount=1, exemplar=None)",
    "Gauge.inc": "(self, amount=1)",
    "Gauge.dec": "(self, amount=1)",
    "Gauge.set": "(self, value)",
    "Summary.observe": "(self, amount)",
    "Histogram.observe": "(self, amount, exemplar=None)",
    "Counter._metric_init": "(self)",
    "Gauge._metric_init": "(self)",
    "Summary._metric_init": "(self)",
    "Histogram._metric_init": "(self)",
    "MetricWrapperBase.remove": "(self, *labelvalues)",
    "MetricWrapperBase.remove_by_labels": "(self, labels)",
    "MetricWrapperBase.clear": "(self)",
    "Counter.reset": "(self)",
    "Info._metric_init": "(self)",
    "Info.info": "(self, val)",
    "Enum._metric_init": "(self)",
    "Enum.__init__": (
        "(self, name, documentation, labelnames=(), namespace='', subsystem='', unit='', registry=…,"
        " _labelvalues=None, states=None)"
    ),
    "Enum.state": "(self, state)",
    "Gauge.set_function": "(self, f)",
    "CollectorRegistry._get_names": "(self, collector)",
    "CollectorRegistry.register": "(self, collector)",
    "CollectorRegistry.unregister": "(self, collector)",
    "CollectorRegistry.collect": "(self)",
    "RestrictedRegistry.collect": "(self)",
}
"""The parameters of all that is replaced."""

BODIES = {
    "MetricWrapperBase.labels": "26e8b8d8 c92af653",
    "Counter.inc": "aa6ffdd1",
    "Gauge.inc": "7d92c578",
    "Gauge.dec": "20876f74",
    "Gauge.set": "abde5aea",
    "Summary.observe": "d290ce48",
    "Histogram.observe": "b37a740d",
    "Counter._metric_init": "fce87953",
    "Gauge._metric_init": "da9e9325",
    "Summary._metric_init": "d48e35c1",
    "Histogram._metric_init": "77a22ba2",
    "MetricWrapperBase.remove": "18ffe242",
    "MetricWrapperBase.remove_by_labels": "3c8a222b",
    "MetricWrapperBase.clear": "bf11f266 4b060c17",
    "Counter.reset": "766ae35e",
    "CollectorRegistry.collect": "e126dbe5",
    "RestrictedRegistry.collect": "d507ebe7",
}
"""What is done in its own way, and not by a call of the peer's method: see `touched.fingerprint`."""


def replaced_ones() -> dict[str, tuple[Any, str, str]]:
    """{what: (where it is, its name there, the module that replaces it)}"""
    names = [(where, name, "sqlmetrics.client.patch") for where, name, _ in patch._REPLACED]
    methods = [(where, name, new.__module__) for where, name, new in patch._METHODS]
    return {f"{where.__name__.rpartition('.')[2]}.{name}": (where, name, by) for where, name, by in names + methods}


REPLACED = replaced_ones()


def original(what: str) -> Callable[..., Any]:
    """What the peer has there; nothing is installed when a test begins."""
    where, name, _ = REPLACED[what]
    found = where.__dict__[name]
    function: Callable[..., Any] = getattr(found, "__func__", found)
    return function


@pytest.mark.parametrize("what", REPLACED)
def test_what_is_replaced_has_the_parameters_that_we_know(what: str) -> None:
    """Ours would refuse, or drop, a parameter that is new."""
    found, by = parameters(original(what)), REPLACED[what][2]

    assert found == SIGNATURES[what], f"{PEER}: {what} is now {found}; {by} replaces it and knows {SIGNATURES[what]}"


@pytest.mark.parametrize("what", BODIES)
def test_what_is_done_our_own_way_is_done_as_ever(what: str) -> None:
    """Else the peer's method does something that ours does not."""
    found, by = fingerprint(original(what)), REPLACED[what][2]

    assert found in BODIES[what].split(), (
        f"{PEER}: the body of {what} is another one ({found}); {by} does the same without a call of it:"
        f" compare the two\n{inspect.getsource(original(what))}"
    )


def test_the_tables_have_what_is_replaced_and_nothing_else() -> None:
    """`Counter.reset` and `remove_by_labels` are as old as the oldest `prometheus_client` that is supported."""
    assert set(REPLACED) == set(SIGNATURES)
    assert set(BODIES) <= set(REPLACED)


# --- attributes of its objects ------------------------------------------------------------------------------

LABELLED = "_lock:lock _metrics:dict"
METRIC = "_name:str _original_name:str _type:str _documentation:str _kwargs:dict _labelnames:tuple _labelvalues:tuple"
ATTRIBUTES = {
    "Counter": f"{METRIC} _unit:str _created:float _value:mutexvalue _is_parent:method _is_observable:method",
    "Gauge": f"{METRIC} _unit:str _value:mutexvalue _is_most_recent:bool _multiprocess_mode:str _child_samples:method",
    "Summary": f"{METRIC} _unit:str _created:float _count:mutexvalue _sum:mutexvalue",
    "Histogram": f"{METRIC} _unit:str _created:float _buckets:list _sum:mutexvalue _upper_bounds:list",
    "Info": f"{METRIC} _value:dict _is_observable:method",
    "Enum": f"{METRIC} _value:int _states:list _is_observable:method",
    "labelled Counter": f"{METRIC} {LABELLED} _samples:method _multi_samples:method _get_metric:method",
    "CollectorRegistry": (
        "_lock:lock _collector_to_names:dict _names_to_collectors:dict _collectors_without_names:list"
        " _target_info:nonetype _target_info_metric:method"
    ),
    "RestrictedRegistry": "_name_set:set _registry:collectorregistry",
    "Metric": "_restricted_metric:method",
    "ProcessCollector": "_namespace:str _proc:str _pid:function",
    "metrics": "_use_created:bool",
}
"""{an object of the peer's: the underscored attributes that are touched, and their types in small letters}"""
LISTED = {pair.split(":")[0] for pairs in ATTRIBUTES.values() for pair in pairs.split()}


def objects() -> dict[str, Any]:
    """One of each."""
    registry = CollectorRegistry()
    return {
        "Counter": Counter("counter", "help", registry=registry),
        "Gauge": Gauge("gauge", "help", registry=registry),
        "Summary": Summary("summary", "help", registry=registry),
        "Histogram": Histogram("histogram", "help", registry=registry),
        "Info": Info("info", "help", registry=registry),
        "Enum": Enum("enum", "help", states=["on", "off"], registry=registry),
        "labelled Counter": Counter("labelled", "help", ["path"], registry=registry),
        "CollectorRegistry": registry,
        "RestrictedRegistry": registry.restricted_registry(["counter_total"]),
        "Metric": Metric("metric", "help", "gauge"),
        "ProcessCollector": ProcessCollector(registry=None),
        "metrics": metrics,
    }


@pytest.mark.parametrize("what", ATTRIBUTES)
def test_attributes_are_there_and_of_the_kind_that_we_know(what: str) -> None:
    """Those with an underscore, of which nothing is promised to anybody."""
    thing = objects()[what]
    known = dict(pair.split(":") for pair in ATTRIBUTES[what].split())
    found = {name: type(getattr(thing, name, None)).__name__.lower() for name in known}

    assert found == known, "\n".join(
        f"{PEER}: {name} of a {what} is no {kind} but a {found[name]}; it is used in {sorted(underscored()[name])}"
        for name, kind in known.items()
        if found[name] != kind
    )


def test_no_underscored_attribute_of_the_peer_is_missing_from_the_table() -> None:
    """All that sqlmetrics has in its source and that objects of the peer have too."""
    theirs = {name for thing in objects().values() for name in dir(thing)}
    replaced = {name for _, name, _ in REPLACED.values()}

    assert set(underscored()) & theirs - LISTED - replaced == set()


def test_the_whole_source_is_searched_for_underscored_attributes() -> None:
    """Each module of the package, so that each attribute of the table is found where it is used."""
    modules = set().union(*underscored().values())

    assert len(modules) > 30
    assert {module.rpartition(".")[0] for module in modules} >= {"sqlmetrics", "sqlmetrics.client", "sqlmetrics.scrape"}
    assert LISTED - set(underscored()) == set()


# --- what it calls, and what it returns ---------------------------------------------------------------------


class Recorder(values.MutexValue):  # type: ignore[misc, valid-type]
    """A value class that notes how it is made."""

    made: list[tuple[Any, ...]]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.made.append((*args, kwargs))


MADE = {
    Counter: [("counter", "x", "x_total", ("l",), ("v",), "help", {})],
    Gauge: [("gauge", "x", "x", ("l",), ("v",), "help", {"multiprocess_mode": "all"})],
    Summary: [
        ("summary", "x", "x_count", ("l",), ("v",), "help", {}),
        ("summary", "x", "x_sum", ("l",), ("v",), "help", {}),
    ],
    Histogram: [
        ("histogram", "x", "x_sum", ("l",), ("v",), "help", {}),
        *(
            ("histogram", "x", "x_bucket", ("l", "le"), ("v", bound), "help", {})
            for bound in map(utils.floatToGoString, Histogram.DEFAULT_BUCKETS)
        ),
    ],
}


@pytest.mark.parametrize("kind", MADE)
def test_values_are_made_as_our_value_class_expects(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which `sqlmetrics.client.binder` closes a batch: a child is complete with its last sample."""
    monkeypatch.setattr(values, "ValueClass", Recorder)
    monkeypatch.setattr(Recorder, "made", [], raising=False)
    kind("x", "help", ["l"], registry=None).labels("v")

    assert Recorder.made == MADE[kind], (
        f"{PEER}: a {kind.__name__} makes its values as {Recorder.made}; sqlmetrics.values.SharedValue and"
        f" sqlmetrics.cells.shape.is_last know {MADE[kind]}"
    )


CALLED = {
    "choose_encoder": (exposition.choose_encoder, "(accept_header)", "sqlmetrics.client.negotiation"),
    "gzip_accepted": (exposition.gzip_accepted, "(accept_encoding_header)", "sqlmetrics.client.negotiation"),
    "start_http_server": (
        exposition.start_http_server,
        "(port, addr='0.0.0.0', registry=…, …)",
        "sqlmetrics.web",
    ),
    "generate_latest": (
        exposition.generate_latest,
        "(registry=…, escaping='underscores', …)",
        "sqlmetrics.scrape.text",
    ),
    "OpenMetrics generate_latest": (
        openmetrics.generate_latest,
        "(registry, escaping='underscores', …)",
        "sqlmetrics.scrape.text",
    ),
    "floatToGoString": (utils.floatToGoString, "(d)", "sqlmetrics.scrape.text"),
    "_validate_exemplar": (metrics._validate_exemplar, "(exemplar)", "sqlmetrics.client.operations"),
    "Metric": (Metric, "(name, documentation, typ, unit='', …)", "sqlmetrics.scrape.families"),
    "Sample": (
        Sample,
        "(name, labels, value, timestamp=None, exemplar=None, native_histogram=None)",
        "sqlmetrics.scrape.families",
    ),
    "Exemplar": (Exemplar, "(labels, value, timestamp=None)", "sqlmetrics.cells.exemplars"),
}
"""What is called, or made of a tuple of its fields; parameters that may follow are ``…``."""


@pytest.mark.parametrize("name", CALLED)
def test_what_is_called_takes_what_we_give(name: str) -> None:
    """And a class has the fields that we give it by position."""
    function, known, by = CALLED[name]
    found = parameters(function)
    begin, more, _ = known.partition(", …)")

    assert found == known or (more and found.startswith(begin)), (
        f"{PEER}: {name} is now {found}; {by} calls it and knows {known}"
    )


def test_a_function_of_a_gauge_is_kept_in_the_gauge() -> None:
    """`sqlmetrics.client.sampling` knows by that, when it is installed late, that a gauge has a function."""
    gauge = Gauge("x", "help", registry=None)
    assert "_child_samples" not in vars(gauge)
    gauge.set_function(lambda: 7)

    assert "_child_samples" in vars(gauge), f"{PEER}: Gauge.set_function leaves no _child_samples in the gauge"
    assert [sample.value for sample in gauge._child_samples()] == [7.0]


def test_the_modes_are_those_that_we_know() -> None:
    """`sqlmetrics.cells.shape` has a number for each of them in the store."""
    assert Gauge._MULTIPROC_MODES == shape.MODES, f"{PEER}: the modes of gauges are {Gauge._MULTIPROC_MODES}"
    assert Gauge._MOST_RECENT_MODES == shape.MOST_RECENT_MODES
