"""Promise 1: a scrape yields what `prometheus_client`'s own multiprocess mode yields for the same operations."""

from __future__ import annotations

import json
import math
import os
import random

import differential
import pytest
from differential import ACTIONS, SPECS, Scenario, Step
from helpers import child, value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge

import sqlmetrics

pytestmark = pytest.mark.promise(1)

MANY = os.environ.get("SQLMETRICS_MANY_SEEDS") == "1"
SEEDS = range(200 if MANY else 12)
TEXTS = (
    *("", " ", "/", "pid", "NaN", "+Inf", "a,b", "{}", 'say "hi"', "back\\slash", "\\n", "two\nlines", "\r\t", "\0"),
    *("a\0b", "é", "e\u0301", "日本", "🎉", "\u2028", "\ufeff", "\uffff", "\U0010ffff", "\x7f", "\x85", "'; --"),
    *("\ud800", "\udfff end", "\ud83c\udf88", "\udf89\ud83c", "\\ud800", 1, 1.5, True, None),
)
FLUSH_INTERVALS = (0.01, 60.0)
"""Seconds: nearly everything is in rows, or nearly everything is in cells and journals only."""


def scenario_of(seed: int) -> Scenario:
    """The same scenario for the same seed."""
    chance = random.Random(seed)
    special = chance.choice((0.0, 0.0, 0.02, 0.2))  # one NaN hides all that is added to it later
    # Few metrics and labels meet in the same series often, many cover more of them.
    metrics = chance.sample(range(len(SPECS)), chance.choice((6, 12, len(SPECS))))
    labels = chance.choice((2, 64))
    steps = []
    for _ in range(150):
        amount = chance.randrange(1, 4) if chance.random() < special else chance.randrange(4, 256)
        metric = chance.choice(metrics)
        steps.append(Step(chance.choice(ACTIONS), chance.randrange(60), metric, chance.randrange(labels), amount))
    texts = tuple(chance.sample(TEXTS, 4))
    return Scenario(texts, chance.choice(FLUSH_INTERVALS), chance.random() < 0.3, tuple(steps))


def _no_twins(texts: tuple[str, ...]) -> bool:
    """Whether different texts stay different once JSON has joined their surrogates to pairs.

    If not, a process has two children with the same labels: in the peer, one overwrites the other.
    """
    return len(set(texts)) == len({json.loads(json.dumps(text)) for text in texts})


SCENARIOS = st.builds(
    Scenario,
    texts=st.tuples(*[st.text(st.characters(exclude_categories=()), max_size=5)] * 4).filter(_no_twins),
    flush_interval=st.sampled_from(FLUSH_INTERVALS),
    late_install=st.booleans(),
    steps=st.lists(
        st.builds(
            Step,
            action=st.sampled_from(ACTIONS),
            who=st.integers(0, 59),
            metric=st.integers(0, len(SPECS) - 1),
            labels=st.integers(0, 63),
            amount=st.integers(0, 255),
        ),
        max_size=40,
    ).map(tuple),
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.slow
def test_both_modes_show_the_same_numbers_after_the_same_operations(seed: int) -> None:
    """Whoever scrapes, at any moment, with processes forking and dying; and the shell's view says the same."""
    different = differential.run(scenario_of(seed))

    assert not different, "\n".join(different)


@settings(
    max_examples=500 if MANY else 15,
    derandomize=not MANY,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(SCENARIOS)
@pytest.mark.slow
def test_both_modes_show_the_same_numbers_after_any_operations(scenario: Scenario) -> None:
    """A failure is reduced to the fewest steps that show it."""
    different = differential.run(scenario)

    assert not different, "\n".join(different)


# --- where the peer's answer depends on the order of its files, ours is a choice ----------------------------


@pytest.mark.parametrize("amounts", [(math.nan, 1.0), (1.0, math.nan)])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_wins_min_and_max(store: sqlmetrics.Store, mode: str, amounts: tuple[float, float]) -> None:
    """Whichever process has it, and whether or not they live."""
    level = Gauge("level", "Level", multiprocess_mode=mode)
    level.set(0)

    with child(set=level.set) as one, child(set=level.set) as other:
        one.do("set", amounts[0])
        other.do("set", amounts[1])
        assert math.isnan(value("level"))
        one.kill()
        store.flush()
        assert math.isnan(value("level"))
        other.kill()
        store.flush()
        assert math.isnan(value("level"))


@pytest.mark.parametrize("sets_last", ["earlier", "later"])
def test_the_later_process_wins_a_tie_of_timestamps(store: sqlmetrics.Store, sets_last: str) -> None:
    """Later is who came to the store later, not who set the gauge later, and not who lives longer."""
    level = Gauge("level", "Level", multiprocess_mode="mostrecent")

    with child(set=level._value.set) as earlier, child(set=level._value.set) as later:
        earlier.do("set", 1, 100.0)
        later.do("set", 2, 100.0)
        if sets_last == "earlier":
            earlier.do("set", 1, 100.0)
        assert value("level") == 2
        later.kill()
        store.flush()
        assert value("level") == 2
        earlier.kill()
        store.flush()
        assert value("level") == 2


def test_the_newest_help_text_wins(store: sqlmetrics.Store) -> None:
    """Whether it is in the rows yet or not."""

    def make(text: str) -> None:
        Counter("events", text, registry=None).inc()

    def shown() -> list[str]:
        return [family.documentation for family in sqlmetrics.MultiProcessCollector(None).collect()]

    with child(make=make, flush=lambda: store.flush().name) as one, child(make=make) as other:
        one.do("make", "older")
        one.do("flush")
        other.do("make", "newer")

        assert shown() == ["newer"]
        assert value("events_total") == 2
