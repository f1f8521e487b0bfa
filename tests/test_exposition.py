"""Whatever texts an app uses, what is scraped parses back to exactly what was set, and the tables are whole."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from helpers import Shell, child
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, parser
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser

import sqlmetrics

pytestmark = pytest.mark.promise(12)

BREAKERS = [
    "'); DROP TABLE sample;--",
    'x"} 1\nfake_total{y="',
    "back\\slash\\",
    '"',
    "\n",
    "# EOF",
    "{}",
    '{"by":"x"}',
    "\u2028\u0085\x0b",
    "é😀\U0010ffff",
    "",
    " ",
    "\x00",
]
# A carriage return ends a line for the parsers' str.splitlines(); lone surrogates cannot be sent as UTF-8 at all.
TEXT = st.sampled_from(BREAKERS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20
)
VALUES = st.floats() | st.sampled_from([0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 0.1 + 0.2])
FORMATS: tuple[tuple[Callable[..., bytes], Callable[..., object]], ...] = (
    (generate_latest, parser.text_string_to_metric_families),
    (openmetrics.generate_latest, openmetrics_parser.text_string_to_metric_families),
)


def parsed(write: Callable[..., bytes], read: Callable[..., object], registry: CollectorRegistry) -> dict[object, str]:
    """{(sample name, labels): value}, of the metrics of these tests only; NaN is equal to NaN."""
    found = {}
    for family in read(write(registry).decode()):  # type: ignore[attr-defined]
        for sample in family.samples:
            found[(sample.name, tuple(sorted(sample.labels.items())))] = repr(float(sample.value))
    return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)
@given(labels=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5, unique=True), help_text=TEXT, number=VALUES)
@pytest.mark.slow
def test_texts_and_numbers_parse_back_to_what_was_set(
    folder, labels: list[tuple[str, str]], help_text: str, number: float
) -> None:
    """In both formats: from the journal, from rows, and after the process has ended."""
    path = str(folder / "metrics.sqlite3")
    store = sqlmetrics.install(path, flush_interval=1000)
    sqlmetrics.reset(force=True)
    plain = CollectorRegistry()
    gauge = Gauge("size", help_text, ["one", "two"], multiprocess_mode="max", registry=None)
    counter = Counter("done", help_text, ["one", "two"], registry=None)
    expected = {}

    def use() -> None:
        for pair in labels:
            gauge.labels(*pair).set(number)
            counter.labels(*pair).inc(3)

    for pair in labels:
        names = (("one", pair[0]), ("two", pair[1]))
        expected[("size", names)] = repr(number + 0.0)  # -0.0 is shown as 0.0
        expected[("done_total", names)] = "3.0"
    sqlmetrics.MultiProcessCollector(plain)
    with child(use=use, flush=lambda: store.flush() and None) as one:
        one.do("use")
        assert [parsed(*how, plain) for how in FORMATS] == [expected] * 2
        one.do("flush")
        assert [parsed(*how, plain) for how in FORMATS] == [expected] * 2
        one.kill()
    store.flush()
    assert [parsed(*how, plain) for how in FORMATS] == [expected] * 2
    helps = {family.name: family.documentation for family in plain.collect()}
    assert set(helps.values()) == {help_text}
    assert Shell(path).value("PRAGMA integrity_check") == "ok"
    assert Shell(path).value("SELECT count(*) FROM sqlite_schema WHERE name = 'cell_copy'") == 1


@pytest.mark.parametrize("name", BREAKERS)
def test_names_of_processes_parse_back_to_what_they_are(path: str, name: str) -> None:
    """Which are what the app says they are, and labels of `all` gauges: from the journal and from rows."""
    store = sqlmetrics.install(path, process_identifier=lambda: name, flush_interval=1000)
    Gauge("size", "Size").set(3)
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)

    expected = {("size", (("pid", name),)): "3.0"}
    assert [parsed(*how, registry) for how in FORMATS] == [expected] * 2
    store.flush()
    assert [parsed(*how, registry) for how in FORMATS] == [expected] * 2
    sqlmetrics.mark_process_dead(name)
    assert Shell(path).value("SELECT hex(pid) FROM processes") == name.encode().hex().upper()
