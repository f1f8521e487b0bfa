"""Code of the app that raises, whatever it raises: the flusher goes on, operations go on, and it is told once."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import Shell, child, flush_all, own, scrape, value, wait_for
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info, Summary, values
from prometheus_client.core import GaugeMetricFamily

import sqlmetrics
from sqlmetrics.store.flusher import Flusher

pytestmark = pytest.mark.promise(4)


class UnspeakableError(Exception):
    """No text can be made of it."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


KINDS: dict[str, Callable[[], BaseException]] = {
    "an error": lambda: ValueError("nothing"),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "generator's end": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "recursion": RecursionError,
    "no memory": lambda: MemoryError("much"),
    "stop": StopIteration,
    "a system's": lambda: OSError(28, "No space left on device"),
    "a key": lambda: KeyError("nobody"),
    "no text": UnspeakableError,
}


def fail(kind: str) -> Any:
    """Raise one of a kind."""
    raise KINDS[kind]()


class Log(logging.Handler):
    """Keeps the messages of the package's logger, and raises one kind after the other."""

    def __init__(self, kinds: list[str]):
        super().__init__()
        self.messages: list[str] = []
        self._next = itertools.cycle(kinds) if kinds else None

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if self._next is not None:
            kind = next(self._next)
            is_main = threading.current_thread() is threading.main_thread()
            fail("exit" if kind == "interrupt" and is_main else kind)  # there, that is Ctrl+C

    def count(self, text: str) -> int:
        """How many messages have this text in them."""
        return sum(text in message for message in self.messages)


@pytest.fixture
def log() -> Iterator[Log]:
    """What the package logs."""
    yield from _logging([])


@pytest.fixture
def raising_log() -> Iterator[Log]:
    """The same, with a handler that raises each time."""
    yield from _logging(list(KINDS))


def _logging(kinds: list[str]) -> Iterator[Log]:
    handler, logger = Log(kinds), logging.getLogger("sqlmetrics")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_functions_may_raise_anything_in_the_flusher(path: str, shell: Shell, log: Log) -> None:
    """Each is told once, the others are asked on, rows are written on, and the count of errors grows."""
    sqlmetrics.install(path, flush_interval=0.02)
    asked = dict.fromkeys(KINDS, 0)

    def begin() -> None:
        for kind in KINDS:
            Gauge(f"bad {kind}".replace(" ", "_").replace("'", ""), "Bad").set_function(lambda kind=kind: ask(kind))
        Gauge("good", "Good", multiprocess_mode="sum").set_function(lambda: min(asked.values()))

    def ask(kind: str) -> Any:
        asked[kind] += 1
        return fail(kind)

    with child(begin=begin, told=lambda: log.count("its last answer stays")) as one:
        one.do("begin")
        wait_for(lambda: (value("good") or 0) > 3)
        shell.wait_for_row("SELECT 1 FROM samples WHERE metric = 'good' AND value > 5")
        assert one.do("told") == len(KINDS)
        wait_for(lambda: (own("errors_total", cause="app") or 0) > 3 * len(KINDS))


def test_collectors_may_raise_anything_in_the_flusher(path: str, log: Log) -> None:
    """Also in the numbers that they yield; what else they yield is shown."""
    sqlmetrics.install(path, flush_interval=0.02)

    class Number:
        def __init__(self, kind: str):
            self.kind = kind

        def __float__(self) -> float:
            return fail(self.kind)

    class Collector:
        def __init__(self, kind: str, in_number: bool):
            self.kind, self.in_number, self.times = kind, in_number, 0

        def collect(self) -> Iterator[Any]:
            self.times += 1
            name = f"of {self.kind}".replace(" ", "_").replace("'", "")
            yield GaugeMetricFamily(name, "", value=self.times)
            yield GaugeMetricFamily("wrong", "", value=Number(self.kind)) if self.in_number else fail(self.kind)

        def __repr__(self) -> str:
            return fail(self.kind)

    def begin() -> None:
        for kind in KINDS:
            sqlmetrics.publish(Collector(kind, in_number=True), "livemax")
            sqlmetrics.publish(Collector(kind, in_number=False), "livemax")

    def shown() -> list[str]:
        return [name for (name, _), number in scrape().items() if name.startswith("of_") and number > 3]

    with child(begin=begin, told=lambda: log.count("its last answer stays")) as one:
        one.do("begin")
        # An exception that is no `Exception` ends the asking of that collector for this time.
        wait_for(lambda: len(shown()) == sum(isinstance(make(), Exception) for make in KINDS.values()))
        assert one.do("told") == 2 * len(KINDS)


def test_an_interrupt_reaches_the_app_from_its_own_scrape(store: sqlmetrics.Store) -> None:
    """Ctrl+C, or the exception of a signal handler, while a function is asked by the app's main thread."""

    class TimeIsUpError(Exception):
        pass

    def is_up(*_: object) -> None:
        raise TimeIsUpError

    pending: list[int] = []

    def slow() -> float:
        if pending and threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), pending.pop())
        return 1

    Gauge("slow", "Slow").set_function(slow)
    # Where the tests run in the background of a shell, SIGINT is ignored, and Python has no handler for it.
    handlers = {signal.SIGALRM: is_up, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        for number, error in ((signal.SIGALRM, TimeIsUpError), (signal.SIGINT, KeyboardInterrupt)):
            pending.append(number)
            with pytest.raises(error):
                scrape()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_log_handlers_may_raise_anything(
    path: str, shell: Shell, raising_log: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the flusher, in `flush()` and in `install()`; the messages are on the standard error then, with one cause."""
    before = Counter("before", "Before")
    before.inc()
    store = sqlmetrics.install(path, flush_interval=0.02)
    assert raising_log.count("took over") == 1
    answers = itertools.cycle([True, False])

    def flaky() -> float:
        is_main = threading.current_thread() is threading.main_thread()
        return 1 if is_main or next(answers) else fail("a key")

    Gauge("flaky", "Flaky").set_function(flaky)
    for number in range(1, 30):
        before.inc()
        shell.wait_for_row(f"SELECT 1 FROM samples WHERE metric = 'before_total' AND value = {number + 1}")
        store.flush()
    wait_for(lambda: raising_log.count("KeyError('nobody')") > len(KINDS))

    assert value("before_total") == 30
    wait_for(lambda: (own("errors_total", cause="app") or 0) >= raising_log.count(""))
    printed = capfd.readouterr().err
    assert "took over 1 metrics" in printed
    assert "KeyError('nobody')" in printed
    assert "The app's logging raised SystemExit(3) for this message" in printed


def test_logging_that_is_told_to_be_silent_is(
    path: str, raising_log: Log, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With `logging.raiseExceptions` off nothing of it is on the standard error."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    store = sqlmetrics.install(path, flush_interval=0.02)
    Gauge("bad", "Bad").set_function(lambda: fail("an error"))
    store.flush()
    wait_for(lambda: raising_log.count("its last answer stays") == 1)
    assert capfd.readouterr().err == ""


def test_a_log_filter_that_forks_counts_and_flushes(path: str) -> None:
    """From within the flusher: the child counts for itself, and the parent's flusher goes on."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    forks = Counter("forks", "Forks", ["by"])

    def fork(_: logging.LogRecord) -> bool:
        pid = os.fork()
        forks.labels("child" if pid == 0 else "parent").inc()
        store.flush()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        raise SystemExit

    logger = logging.getLogger("sqlmetrics")
    logger.addFilter(fork)
    try:
        Gauge("bad", "Bad").set_function(lambda: fail("exit"))
        # Once for each line of the log, of which there may be another one on a busy machine.
        wait_for(lambda: (value("forks_total", by="parent") or 0) == value("forks_total", by="child"))
        forks.labels("parent").inc()
        wait_for(lambda: Shell(path)("SELECT 1 FROM samples WHERE metric = 'forks_total' AND value >= 2"))
    finally:
        logger.removeFilter(fork)


@pytest.mark.parametrize("when", ["always", "later", "now and then"])
def test_a_process_identifier_may_raise_anything(path: str, when: str, log: Log) -> None:
    """Operations go on under the last name, or under the pid, and the next ones have the right name again."""
    now: list[Any] = [] if when == "always" else ["a"]
    kinds = itertools.cycle(KINDS.keys() - {"interrupt"})  # in the main thread, it is Ctrl+C

    def identify() -> Any:
        return now[-1] if now else fail(next(kinds))

    sqlmetrics.install(path, process_identifier=identify, flush_interval=0.02)
    jobs, busy = Counter("jobs", "Jobs", ["of"]), Gauge("busy", "Busy", multiprocess_mode="all")
    info, sizes = Info("version", "Version"), Summary("sizes", "Sizes")

    def use(times: int = 40) -> None:
        for number in range(times):
            if when == "now and then":
                now.append("a") if number % 3 == 0 else now.clear()
            jobs.labels(f"{number % 4}").inc()
            sizes.observe(1)
            busy.inc()
            info.info({"number": f"{number}"})

    use()
    now.clear()
    use()
    assert value("busy", pid=str(os.getpid()) if when == "always" else "a") == 80
    with child(use=use, pid=os.getpid) as one:
        one.do("use")
        if when != "now and then":  # else both have the same name
            assert value("busy", pid=str(one.pid)) == 40  # and not its parent's last name
    assert value("sizes_count") == sum(value("jobs_total", of=f"{number}") or 0 for number in range(4)) == 120
    wait_for(lambda: log.count("the process identifier raised") >= 1)
    if when != "now and then":
        assert log.count("the process identifier raised") == 1


def test_operations_go_on_under_an_identifier_that_has_no_text(path: str) -> None:
    """Its `__str__` and `__eq__` are the app's, too."""

    class Name:
        def __str__(self) -> str:
            return fail("exit")

        def __eq__(self, _: object) -> bool:
            return fail("no text")

        __hash__ = None  # type: ignore[assignment]

    kept = values.ValueClass
    sqlmetrics.install(path, process_identifier=Name)
    try:
        jobs = Counter("jobs", "Jobs", ["of"])
        for number in range(9):
            jobs.labels(f"{number % 3}").inc(1, {"trace": "1"})
        assert scrape() == {("jobs_total", (("of", f"{number}"),)): 3 for number in range(3)}
    finally:
        sqlmetrics.uninstall()
    assert values.ValueClass is kept


def test_what_a_label_value_raises_goes_to_the_caller(store: sqlmetrics.Store) -> None:
    """As in one process, and nothing is half done: not one thing of the call has happened."""

    class Label:
        def __init__(self, times: int, kind: str):
            self.times, self.kind = times, kind

        def __str__(self) -> str:
            self.times -= 1
            return "known" if self.times >= 0 else fail(self.kind)

    jobs, info = Counter("jobs", "Jobs", ["of", "by"]), Info("version", "Version")
    jobs.labels("known", "b").inc()
    info.info({"a": "known"})
    for kind, make in KINDS.items():
        for act in (
            lambda kind=kind: jobs.labels(Label(0, kind), "b"),
            lambda kind=kind: jobs.labels(of=Label(0, kind), by="b"),
            lambda kind=kind: jobs.remove(Label(0, kind), "b"),
            lambda kind=kind: jobs.remove_by_labels({"of": Label(0, kind)}),
            lambda kind=kind: info.info({"a": Label(0, kind)}),
        ):
            with pytest.raises((type(make()), RuntimeError) if kind == "stop" else type(make())):
                act()
    assert value("jobs_total", of="known", by="b") == 1
    assert value("version_info", a="known") == 1
    assert info._value == {"a": "known"}
    jobs.labels("known", "b").inc()
    info.info({"a": Label(1, "an error")})
    jobs.remove_by_labels({"of": Label(1, "an error")})
    assert value("version_info", a="known") == 1
    assert value("jobs_total", of="known", by="b") is None


def test_a_function_that_works_in_one_thread_only_is_told_once(path: str, shell: Shell, log: Log) -> None:
    """Its last answer is shown in all other processes, and its own scrapes do not make the log any longer."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    place = threading.local()
    place.size = 0
    Gauge("size", "Size", multiprocess_mode="livesum").set_function(lambda: place.size)

    def grow() -> float | None:
        place.size += 1
        return REGISTRY.get_sample_value("size")

    for number in range(1, 20):
        assert grow() == number
        wait_for(lambda number=number: store.trouble.counts["app"] >= number)
    shell.wait_for_row("SELECT 1 FROM metrics WHERE metric = 'size' AND value = 19")
    assert log.count("its last answer stays") == 1


def test_warnings_that_are_errors_stop_nothing(path: str) -> None:
    """Nothing of the package warns, whatever is done with it."""
    program = """
import os, sys, warnings
warnings.simplefilter("error")
import sqlmetrics, prometheus_client as p
store = sqlmetrics.install(sys.argv[1], flush_interval=0.02)
jobs = p.Counter("jobs", "Jobs", ["of"])
p.Gauge("size", "Size").set_function(lambda: 1)
jobs.labels("a").inc(); jobs.labels("b").inc(); store.flush(); jobs.remove("b"); store.flush()
if os.fork() == 0:
    jobs.labels("a").inc(); store.flush(); os._exit(0)
os.wait(); jobs.labels("a").inc(); sqlmetrics.mark_process_dead(1); p.generate_latest(p.REGISTRY)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert scrape(path)[("jobs_total", (("of", "a"),))] == 3


def test_a_trace_function_that_raises_does_not_end_the_flusher(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A debugger's or a profiler's, in each thread, at any line."""
    lines = itertools.count()

    def trace(*_: object) -> Any:
        return fail("exit") if next(lines) % 7 == 6 else trace

    waits = Flusher._pause

    def pause(self: Flusher, outcome: Any) -> float:
        if threading.get_ident() != main:
            sys.settrace(trace)
        return waits(self, outcome)

    main = threading.get_ident()
    monkeypatch.setattr(Flusher, "_pause", pause)
    sqlmetrics.install(path, flush_interval=0.01)
    jobs = Counter("jobs", "Jobs")
    jobs.inc()
    wait_for(lambda: next(lines) > 300)
    monkeypatch.setattr(Flusher, "_pause", waits)
    jobs.inc()
    Shell(path).wait_for_row("SELECT 1 FROM samples WHERE metric = 'jobs_total' AND value = 2")


def test_a_recursion_too_deep_for_an_operation_leaves_no_lock_behind(path: str) -> None:
    """It raises as in one process, at whatever depth, and leaves no lock behind: what has returned is counted."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    jobs, latency = Counter("jobs", "Jobs", ["of"]), Histogram("latency", "Latency", ["of"])

    def deep(depth: int, act: Callable[[], object]) -> bool:
        try:
            if depth:
                return deep(depth - 1, act)
            act()
        except RecursionError:
            return False
        return True

    def work() -> int:
        done, limit = 0, len(inspect.stack()) + 150
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(limit)
        try:
            for depth in range(80, 145):
                done += deep(depth, lambda depth=depth: jobs.labels(f"{depth}").inc())
                deep(depth, lambda depth=depth: latency.labels(f"{depth}").observe(1))
                deep(depth, lambda: jobs.remove("nobody"))
        finally:
            sys.setrecursionlimit(before)
        thread = threading.Thread(target=lambda: jobs.labels("thread").inc(), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        flush_all(store)
        return done

    with child(work=work) as one:
        done = int(str(one.do("work")))
        assert 0 < done < 65
        assert sum(number for (name, _), number in scrape().items() if name == "jobs_total") == done + 1
