"""No lock on the hot path: threads, signal handlers and amounts that run Python code, all at once, are exact."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers import child, hasty_threads, scrape, value, wait_for
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics

pytestmark = pytest.mark.promise(4)


@contextmanager
def storm(action: object, seconds: float = 0.0002) -> Iterator[None]:
    """Signals whose handler does something; the next one comes a moment after it has done it."""

    def handle(*_: object) -> None:
        action()  # type: ignore[operator]
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    with hasty_threads():
        yield


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_and_signal_handlers_on_one_counter_are_exact(path: str) -> None:
    """Eight threads and a storm of handlers, on a known child and on new ones, while the flusher runs."""
    store = sqlmetrics.install(path, flush_interval=0.002)
    requests = Counter("requests", "Requests", ["by"])
    shared = requests.labels("all")
    latency = Histogram("latency", "Latency")
    handled = [0]
    each = 20_000

    def handle() -> None:
        handled[0] += 1
        shared.inc()
        requests.labels(f"handler {handled[0] % 50}").inc()

    def work(which: int) -> None:
        for number in range(each):
            shared.inc()
            if number % 50 == 0:
                requests.labels(f"thread {which} {number}").inc()
                latency.observe(1)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    with storm(handle):
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            store.flush()
    shown = scrape()

    by_handler = sum(count for (name, labels), count in shown.items() if labels and labels[0][1].startswith("handler"))
    by_threads = sum(count for (name, labels), count in shown.items() if labels and labels[0][1].startswith("thread"))
    assert shown["latency_count", ()] == by_threads == 8 * each / 50
    assert 0 < by_handler <= handled[0]
    assert shown["requests_total", (("by", "all"),)] - 8 * each == handled[0]


class Careful:
    """An amount that does something of its own whenever it is looked at."""

    def __init__(self, amount: float, action: object):
        self.amount = amount
        self.action = action

    def __float__(self) -> float:
        self.action()  # type: ignore[operator]
        return float(self.amount)

    def __radd__(self, other: float) -> float:
        self.action()  # type: ignore[operator]
        return other + self.amount

    def __lt__(self, other: float) -> bool:
        return self.amount < other

    def __neg__(self) -> Careful:
        return Careful(-self.amount, self.action)


class Subclass(float):
    """A float with an addition of its own."""

    def __radd__(self, other: float) -> float:
        return other + float(self)


@pytest.mark.usefixtures("_hasty_threads")
def test_amounts_that_run_python_code_are_exact(path: str) -> None:
    """An amount that itself counts, from several threads: nothing is lost between reading and storing."""
    sqlmetrics.install(path, flush_interval=0.002)
    requests = Counter("requests", "Requests")
    level = Gauge("level", "Level", multiprocess_mode="sum")
    sizes = Histogram("sizes", "Sizes")

    def work() -> None:
        for _ in range(2000):
            requests.inc(Careful(2, requests.inc))  # type: ignore[arg-type]
            requests.inc(Subclass(1))
            requests.inc(True)
            level.inc(Careful(2, level.inc))  # type: ignore[arg-type]
            level.dec(Careful(1, level.inc))  # type: ignore[arg-type]
            sizes.observe(Subclass(0.5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert value("requests_total") == 4 * 2000 * 5
    assert value("level") == 4 * 2000 * 3
    assert value("sizes_sum") == 4 * 2000 * 0.5


def test_new_children_made_in_signal_handlers_are_kept(path: str) -> None:
    """A handler comes in the middle of anything, binding and moving included: what it makes is kept, and seen soon.

    The metrics are its own: the peer's lock of a metric is held while a child is made, and cannot be taken twice.
    """
    store = sqlmetrics.install(path, flush_interval=0.002)
    requests = Counter("requests", "Requests", ["number"])
    signals = Counter("signals", "Signals", ["number"])
    seconds = Histogram("seconds", "Seconds", ["number"])
    shared = requests.labels("shared")
    made = [0]

    def handle() -> None:
        made[0] += 1
        signals.labels(str(made[0])).inc()
        seconds.labels(str(made[0] % 100)).observe(1)
        shared.inc()

    done = 0
    with storm(handle):
        while made[0] < 1000:
            done += 1
            requests.labels(str(done % 3000)).inc()
            shared.inc()

    def total(name: str) -> float:
        return sum(count for (sample, _), count in scrape().items() if sample == name)

    wait_for(lambda: store.flush() and total("signals_total") == made[0])
    assert total("seconds_count") == made[0]
    assert shared._value.get() == made[0] + done
    assert total("requests_total") == made[0] + 2 * done


@pytest.mark.slow
@pytest.mark.usefixtures("_hasty_threads")
def test_inherited_gauges_are_bound_by_one_thread_while_others_make_new_ones(path: str) -> None:
    """Inherited gauges are bound by one thread while others make new ones."""
    sqlmetrics.install(path, flush_interval=0.002)
    level = Gauge("level", "Level", ["number"], multiprocess_mode="sum")
    for number in range(1500):
        level.labels(str(number)).set(0)

    def work() -> int:
        errors = []

        def use(which: int) -> None:
            try:
                for number in range(500):
                    level.labels(f"{which} {number}").inc()
                    level.labels(str(number)).inc()
            except Exception as error:
                errors.append(repr(error))

        threads = [threading.Thread(target=use, args=(which,)) for which in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        return len(errors)

    for times in range(1, 4):
        with child(work=work) as one:
            assert one.do("work") == 0
            one.end()
        assert value("level", number="7") == 6 * times
        assert value("level", number="3 7") == times
