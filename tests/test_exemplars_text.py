"""Exemplars in text and samples: as the peer's own encoder writes them, whatever they hold."""

from __future__ import annotations

import math

import pytest
from exemplified import App, quiet, registry, shown, traces
from helpers import in_child, value
from prometheus_client import CollectorRegistry, Counter, Summary
from prometheus_client import exposition as plain
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser
from prometheus_client.samples import Exemplar

import sqlmetrics

pytestmark = pytest.mark.promise(12)

ESCAPINGS = ["underscores", "dots", "values", "allow-utf-8"]
ODD = ["", 'a"b', "a\nb\\n", " # {} 0.0", "é😀\u2028", "\x00", "{trace=1}", ","]
PARSED = [text for text in ODD if '"' not in text]
"""The peer's own parser cannot read a quote in an exemplar, or an exemplar behind a quoted name."""


@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize("escaping", ESCAPINGS)
def test_the_text_is_that_of_prometheus_client(path: str, escaping: str, is_flushed: bool) -> None:
    """Byte for byte, whatever the texts, and it parses back to what was given; text 0.0.4 has no exemplars."""
    store = quiet(path)
    odd = Counter("odd.name", "Odd", ["who", "ö"], registry=None)
    app = App()

    def use() -> None:
        for text in ODD:
            odd.labels(text, " 0.0").inc(3, {"trace": text, "more": "x"})
        for number, text in enumerate(PARSED):
            app.count(str(number), text)
        app.observe(0.5, "half")
        app.observe(2e7, "large")
        app.requests.labels("none").inc()
        if is_flushed:
            store.flush()

    in_child(use)
    one = registry()
    text = sqlmetrics.generate_latest(openmetrics=True, escaping=escaping)

    assert text == openmetrics.generate_latest(one, escaping)
    assert sqlmetrics.generate_latest(escaping=escaping) == plain.generate_latest(one, escaping)
    assert b'="x",trace="' in text
    assert b'="x",trace="' not in sqlmetrics.generate_latest(escaping=escaping)
    if escaping == "underscores":
        text = sqlmetrics.generate_latest(openmetrics=True, names=["requests_total", "latency_bucket"])
        samples = [s for family in parser.text_string_to_metric_families(text.decode()) for s in family.samples]
        found = [s.exemplar and s.exemplar.labels["trace"] for s in samples if s.name == "requests_total"]
        assert found == [*PARSED, None]
        assert [s.exemplar and s.exemplar.value for s in samples if s.name == "latency_bucket"] == [0.5, None, 2e7]


def test_exemplars_stay_with_their_lines_in_a_restricted_scrape(path: str) -> None:
    """Exemplars stay with their lines where a scrape asks for some names."""
    quiet(path)
    app = App()
    app.observe(1.5, "b")
    app.observe(9, "c")
    app.count("/", "a")
    names = ["latency_bucket", "requests_total"]
    text = sqlmetrics.generate_latest(openmetrics=True, names=names)

    restricted = CollectorRegistry().restricted_registry(names)
    sqlmetrics.MultiProcessCollector(restricted)
    assert text == openmetrics.generate_latest(restricted)
    assert b'latency_bucket{le="2.0"} 1.0 # {trace="b"} 1.5 ' in text
    assert b"trace" not in sqlmetrics.generate_latest(openmetrics=True, names=["latency_sum"])


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d"])
def test_lone_surrogates_come_back_as_they_were(path: str, text: str) -> None:
    """They come back as they were, and are escapes in the text, where no encoding has them."""
    store = quiet(path)
    app = App()
    app.count(text, text)
    for _ in range(2):
        assert traces() == {text: text}
        written = sqlmetrics.generate_latest(openmetrics=True).decode()
        assert written.count("\\u") == 2 * sum("\ud800" <= letter <= "\udfff" for letter in text)
        store.flush()
    assert dict(store.trouble.counts) == {}


@pytest.mark.parametrize("amount", [math.nan, math.inf, 0.0, 5e-324, 0.1 + 0.2, 10**30, True])
def test_odd_amounts_come_back_from_journals_and_rows(path: str, amount: float) -> None:
    """From the journal and from rows."""
    store = quiet(path)
    app = App()
    app.count("/", "a", amount)
    for _ in range(2):
        assert repr(shown()["/"].value) == repr(float(amount))
        assert in_child(lambda: repr(shown()["/"].value)) == repr(float(amount))
        store.flush()


def test_an_exemplar_that_cannot_be_written_is_not_kept(store: sqlmetrics.Store) -> None:
    """What the encoders would refuse is not kept; a bad exemplar is an error, but counts, as with the peer."""
    summary, app = Summary("size", "Size"), App()
    summary.observe(1)
    summary._sum.set_exemplar(Exemplar({"trace": "a"}, 1, 1.0))
    app.latency._sum.set_exemplar(Exemplar({"trace": "a"}, 1, 1.0))
    with pytest.raises(ValueError, match="128"):
        app.count("/", "x" * 200)

    assert traces() == {}
    assert value("requests_total", who="/") == 1
    sqlmetrics.generate_latest(openmetrics=True)


def test_an_exemplar_is_what_its_labels_were_at_the_observation(store: sqlmetrics.Store) -> None:
    """An exemplar is what its labels were at the observation."""
    labels = {"trace": "a"}
    app = App()
    app.requests.labels("/").inc(1, {"trace": "first"})
    app.requests.labels("/").inc(1, labels)
    labels["trace"] = "b"
    store.flush()
    assert traces() == {"/": "a"}
