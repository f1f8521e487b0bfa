"""A scrape asks again only for what has changed; it shows what the first scrape of another reader shows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import Child, child, flush_all, scrape, wait_for
from prometheus_client import Counter, Enum, Gauge, Histogram, Summary, values

import sqlmetrics
from sqlmetrics.cells import shape
from sqlmetrics.scrape import query
from sqlmetrics.store.flusher import Outcome

pytestmark = pytest.mark.promise(2, 9)

STEPS = 120
NAMES = 40


class _App:
    """What processes count; the same in all of them, as they are forked."""

    def __init__(self, store: sqlmetrics.Store):
        self.store = store
        self.counts, self.sizes = Counter("counts", "C", ["of"]), Summary("sizes", "S", ["of"])
        self.latency = Histogram("latency", "L", ["of"], buckets=(1, 2, 3))
        self.total = Gauge("total", "G", ["of"], multiprocess_mode="sum")
        self.each = Gauge("each", "G", ["of"], multiprocess_mode="all")
        self.newest = Gauge("newest", "G", ["of"], multiprocess_mode="mostrecent")
        self.task = Enum("task", "E", ["of"], states=["off", "on"])

    def count(self, name: str, amount: float) -> None:
        """Change sums alone, of series that may be new."""
        self.counts.labels(name).inc(amount)
        self.sizes.labels(name).observe(amount)
        self.latency.labels(name).observe(amount)

    def set(self, name: str, amount: float) -> None:
        """Change gauges."""
        for gauge in (self.total, self.each, self.newest):
            gauge.labels(name).set(amount)
        self.task.labels(name).state("on" if amount > 1 else "off")

    def flush(self) -> None:
        """Make rows of all of it; a flush counts itself, too."""
        flush_all(self.store)

    def remove(self, name: str) -> None:
        """Remove a series that is there."""
        self.counts.labels(name)
        self.counts.remove(name)

    def start(self, stack: ExitStack) -> Child:
        """Start another process."""
        return stack.enter_context(child(count=self.count, set=self.set, flush=self.flush, remove=self.remove))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_any_change_between_two_scrapes_is_shown(path: str, seed: int) -> None:
    """Counting, new series, flushes, removals, processes that come, end and are folded, in any order."""
    app = _App(sqlmetrics.install(path, flush_interval=1000))
    chance = random.Random(seed)
    with ExitStack() as stack:
        others = [app.start(stack) for _ in range(3)]

        def step() -> None:
            one, name, amount = chance.choice(others), str(chance.randrange(NAMES)), chance.choice([0.1, 1.5, 2.0, 1e9])
            what = chance.choices(["count", "set", "flush", "remove", "end", "begin"], [60, 10, 10, 3, 3, 3])[0]
            if what in ("count", "set"):
                one.do(what, name, amount)
            elif what in ("flush", "remove"):
                one.do(what, *([name] if what == "remove" else []))
            elif what == "begin" and len(others) < 6:
                others.append(app.start(stack))
            elif what == "end" and len(others) > 2:
                others.remove(one)
                one.kill()

        for number in range(STEPS):
            step()
            if number % 3 == 0:
                first = _first_scrape(path)
                assert json.loads(json.dumps(sorted(scrape().items()))) == first, f"step {number}"


def _first_scrape(path: str) -> object:
    """What a process shows that knows nothing of earlier scrapes."""
    code = "import json, sys; from helpers import scrape; print(json.dumps(sorted(scrape(sys.argv[1]).items())))"
    command = [sys.executable, "-c", code, path]
    found = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(found.stdout)


def test_only_what_has_changed_is_asked_for_again(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample of hundreds; all of them again where most have changed, or anything else is not as it was."""
    counts = Counter("counts", "C", ["of"])

    def use(first: int, last: int) -> None:
        for number in range(first, last):
            counts.labels(str(number)).inc()

    answers: list[int] = []
    ask = query.sums

    def noted(*arguments: Any, **named: Any) -> query.Totals:
        answer = ask(*arguments, **named)
        answers.append(len(answer.values))
        return answer

    with child(use=use, flush=lambda: store.flush() is Outcome.NOTHING_CHANGED) as one:
        one.do("use", 0, 300)
        use(0, 300)
        wait_for(lambda: one.do("flush"))
        flush_all(store)
        scrape()
        monkeypatch.setattr(query, "sums", noted)
        one.do("use", 7, 8)
        assert scrape()["counts_total", (("of", "7"),)] == 3
        one.do("use", 0, 300)
        assert scrape()["counts_total", (("of", "7"),)] == 4
        one.do("use", 300, 301)
        assert scrape()["counts_total", (("of", "300"),)] == 1

    assert answers[0] == 1
    assert min(answers[1:]) >= 300


@pytest.mark.parametrize(("first", "last", "amount"), [("", "max", 5), ("max", "", 8)])
@pytest.mark.parametrize("flushes", ["both", "the last one", "the last one first"])
@pytest.mark.store(flush_interval=1000)
def test_a_counter_that_is_declared_in_another_mode_is_shown_in_it(
    store: sqlmetrics.Store, first: str, last: str, amount: int, flushes: str
) -> None:
    """Sums and gauges are asked for apart; who has scraped before knows which of them the series was."""
    assert ("tries", "counter", "") not in shape.metadata  # or the newest declaration would not be the last one here

    def use(mode: str, amount: float) -> None:
        one = values.ValueClass("counter", "tries", "tries_total", ("of",), ("x",), "Tries", multiprocess_mode=mode)
        one.inc(amount)

    def flush() -> bool:
        return store.flush() is Outcome.NOTHING_CHANGED

    def shown() -> float:
        return scrape()["tries_total", (("of", "x"),)]

    with child(use=use, flush=flush) as one, child(use=use, flush=flush) as two:
        one.do("use", first, 3)
        assert shown() == 3
        if flushes == "both":
            wait_for(lambda: one.do("flush"))
            assert shown() == 3
        two.do("use", last, 5)
        assert shown() == 8
        wait_for(lambda: two.do("flush"))
        if flushes == "the last one":
            assert shown() in (8, amount)  # the other's is not in rows yet
        wait_for(lambda: one.do("flush"))
        assert shown() == amount
