"""Reading journals whose texts repeat: the short way gives what the long way gives, sense and nonsense alike."""

from __future__ import annotations

import itertools

import pytest

from sqlmetrics.cells.sense import Decoder, NonsenseError, decode

pytestmark = pytest.mark.promise(2)

HEADS = [
    '["child", "hits", "counter", false, ["path"], ["hits_total"], [""], ["/"]',
    '["child", "hits", "counter", false, ["path"], ["hits_total"], [""], ["/, 5, 1.5]"]',
    '["child", "hits", "counter", false, ["path"], ["hits_total"], [""], ["a\\"]',
    '["child", "level", "gauge", true, [], ["level"], [""], []',
    '["child", "hits", "counter", false, ["path"], ["hits_total"], [""], ["/"',
    '["child", "hits", "counter", false, ["path"], ["hits_total"], [""]',
    '["family", "hits", "counter", "", "Hits"',
    '["family", "hits", "counter", "", "Hits", 5, "", null',
    '["unheard of", "hits"',
    "",
]
CELLS = ["64", "0", "007", "-5", "1.0", "true", "99999999999999999999999", "64 ", "+6", "\\u0661", '"64"', "[64"]
TIMES = [
    "1764200000.25",
    "1764200000",
    "1e9",
    "01.5",
    "1.",
    ".5",
    "NaN",
    "Infinity",
    "-1.5",
    "1.5e400",
    "1.5]",
    '"1.5"',
]
TAILS = ["]", "", " ]", "]]", "]\n", ", 1]"]


def _result(read: object, payload: bytes) -> object:
    try:
        return read(payload)  # type: ignore[operator]
    except NonsenseError as error:
        return str(error)


def _payloads() -> list[bytes]:
    texts = [f"{h}, {c}, {t}{tail}" for h, c, t, tail in itertools.product(HEADS, CELLS, TIMES, TAILS)]
    texts += [f"{h},{c}, {t}]" for h, c, t in itertools.product(HEADS, CELLS, TIMES)]
    return [text.encode() for text in [*HEADS, *(head + "]" for head in HEADS), *texts]]


@pytest.mark.parametrize("order", [list, lambda payloads: payloads[::-1]])
def test_a_record_reads_the_same_whatever_was_read_before_it(order: object) -> None:
    """Thousands of texts, most of them broken at one place, in two orders, each read twice."""
    decoder = Decoder()
    payloads = order(_payloads())  # type: ignore[operator]
    assert sum(not isinstance(_result(decode, payload), str) for payload in payloads) > 10
    for payload in [*payloads, *payloads]:
        assert _result(decoder, payload) == _result(decode, payload)
        assert repr(_result(decoder, payload)) == repr(_result(decode, payload))
