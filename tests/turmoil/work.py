"""The app: processes with threads that use metrics of every kind, fork in the midst of it, and scrape themselves."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import logging
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable

import prometheus_client
from prometheus_client import REGISTRY, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.openmetrics import exposition as openmetrics

import sqlmetrics

from . import ledger as accounts
from .audit import Auditor, counts_by_seat
from .ledger import BY_SEAT, PATHS, PER_GROUP, THREADS, Ledger

FLUSH_INTERVAL = 0.1
"""Seconds."""
_PR_SET_PDEATHSIG = 1
_FRESH = 150
"""Label values of the counter whose children are made all the time."""

seat = Counter("turmoil_seat", "By the thread that counts", ["seat"])
seconds = Histogram("turmoil_seconds", "By the thread that observes", ["seat"], buckets=(0.1, 1))
size = Summary("turmoil_size", "By the thread that observes", ["seat"])
shared = Counter("turmoil_shared", "Counted by all", ["path"])
plain = Counter("turmoil_plain", "Without labels")
fresh = Counter("turmoil_fresh", "With many labels", ["item"])
gone = Counter("turmoil_gone", "Removed now and then", ["number"])
noise = Counter("turmoil_noise", "Removed by anybody", ["item"])
top = Gauge("turmoil_top", "The greatest number set", multiprocess_mode="max")
lives = Gauge("turmoil_lives", "1 in each process", multiprocess_mode="livesum")
level = Gauge("turmoil_level", "By process", multiprocess_mode="all")
newest = Gauge("turmoil_newest", "When it was set", multiprocess_mode="mostrecent")
build = Info("turmoil_build", "An info")
phase = Enum("turmoil_phase", "An enum", states=["one", "two"])


class Log(logging.Handler):
    """Keeps what the store logs beside the account."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        self._ledger.say("log", record.levelname, record.getMessage())


def keep_log(ledger: Ledger) -> None:
    """Have the store's log kept."""
    logger = logging.getLogger("sqlmetrics")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [Log(ledger)]


def run(ledger: Ledger, what: Callable[[], object], *, at_exit: bool = True) -> None:
    """All that a forked process does; it never returns."""
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should the coordinator not be there to do it
        os.nice(1)  # so that the coordinator has its turns
        descriptor = os.open(os.path.join(ledger.folder, "stderr"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 2)  # the HTTP server writes there of scrapes that fail
        faulthandler.register(signal.SIGUSR1, file=2)
        keep_log(ledger)
        what()
        if at_exit:
            atexit._run_exitfuncs()
    except BaseException:
        ledger.say("WRONG", "raised", traceback.format_exc())
    os._exit(0)


class Operations:
    """The operations of one thread, and the account of them."""

    def __init__(self, ledger: Ledger, number: int, seed: str):
        self._ledger, self._number, self._label = ledger, number, str(number)
        self.choose = random.Random(seed)
        self._record = ledger.recorded(number)

    def some(self, count: int) -> None:
        """Make operations of all kinds."""
        for _ in range(count):
            self.choose.choice(self._KINDS)(self)

    def _count_own(self) -> None:
        self._record("seat", seat.labels(self._label).inc)

    def _count_with_exemplar(self) -> None:
        self._record("seat", lambda: seat.labels(self._label).inc(exemplar={"trace": self._label}))

    def _observe(self) -> None:
        self._record("seconds", lambda: seconds.labels(self._label).observe(0.5))

    def _observe_with_exemplar(self) -> None:
        self._record("seconds", lambda: seconds.labels(self._label).observe(0.5, {"trace": self._label}))

    def _summarize(self) -> None:
        self._record("size", lambda: size.labels(self._label).observe(2))

    def _count_shared(self) -> None:
        number = self.choose.randrange(PATHS)
        self._record(f"shared{number}", shared.labels(f"/{number}").inc)

    def _count_plain(self) -> None:
        self._record("plain", plain.inc)

    def _count_fresh(self) -> None:
        self._record("fresh", fresh.labels(str(self.choose.randrange(_FRESH))).inc)

    def _count_what_is_removed(self) -> None:
        number = self.choose.randrange(PATHS)
        self._record(f"gone{number}", gone.labels(str(number)).inc)

    def _set_top(self) -> None:
        number = time.monotonic_ns() // 1000
        self._ledger.set_greatest(self._number, number, lambda: top.set(number))

    def _use_others(self) -> None:
        level.set(self.choose.random())
        newest.set(time.time())
        noise.labels(str(self.choose.randrange(10))).inc()
        if self.choose.random() < 0.1:
            build.info({"by": self._label})
            phase.state(self.choose.choice(["one", "two"]))
        if self.choose.random() < 0.01:
            noise.remove(str(self.choose.randrange(10)))

    _KINDS = (
        *[_count_own, _observe, _summarize, _count_shared, _count_plain, _count_fresh, _count_what_is_removed] * 3,
        *(_count_with_exemplar, _observe_with_exemplar, _set_top, _use_others),
    )


class Worker:
    """One process of the app."""

    def __init__(self, path: str, ledger: Ledger, group: int, seed: str, *, threads: int, forks: bool):
        self._path, self._ledger, self._group, self._seed = path, ledger, group, seed
        self._threads, self._forks = threads, forks
        self._forked = 0
        self._is_told_to_end = threading.Event()
        self._auditor = Auditor(ledger, f"worker {group}")

    def serve(self, gate: int = 0) -> None:
        """Install the store when the gate is open, and work until told to end."""
        ledger = self._ledger
        signal.signal(signal.SIGTERM, lambda *_: self._is_told_to_end.set())
        while ledger.words[accounts.GATE] < gate:
            time.sleep(0.0005)
        sqlmetrics.install(self._path, flush_interval=FLUSH_INTERVAL)
        lives.set(1)
        ledger.has_set(self._group)
        others = [threading.Thread(target=self._count, args=(number,)) for number in range(1, self._threads)]
        for thread in others:
            thread.start()
        self._count(0)
        for thread in others:
            thread.join()
        self._wait_for_forked(0)

    def serve_http(self) -> None:
        """The same, with an HTTP endpoint."""
        sqlmetrics.install(self._path, flush_interval=FLUSH_INTERVAL)
        server, _ = prometheus_client.start_http_server(0, "127.0.0.1")
        self._ledger.words[accounts.PORT] = server.server_port
        self.serve()

    def _count(self, thread: int) -> None:
        operations = Operations(self._ledger, PER_GROUP * self._group + thread, f"{self._seed} {thread}")
        next_scrape = 0.0
        try:
            while not self._is_told_to_end.is_set():
                if not self._ledger.words[accounts.STILL]:
                    operations.some(30)
                if thread == 0 and time.monotonic() > next_scrape:
                    next_scrape = time.monotonic() + 0.3 + operations.choose.random()
                    self._auditor.scrape(self._text_of_registry)
                    self._fork_now_and_then(operations.choose)
                time.sleep(0.01)
        except BaseException:
            self._ledger.say("WRONG", "raised", traceback.format_exc())

    def _text_of_registry(self) -> str:
        if random.random() < 0.2:
            return openmetrics.generate_latest(REGISTRY).decode()
        return prometheus_client.generate_latest(REGISTRY).decode()

    def _fork_now_and_then(self, choose: random.Random) -> None:
        words = self._ledger.words
        if self._forked:
            self._wait_for_forked(os.WNOHANG)
        elif self._forks and not words[accounts.CALM]:
            self._ledger.note_fork(self._group, True)
            if words[accounts.CALM]:  # it has come in between
                self._ledger.note_fork(self._group, False)
                return
            self._forked = os.fork()
            if self._forked == 0:
                self._work_briefly(random.Random(choose.random()))

    def _work_briefly(self, choose: random.Random) -> None:
        """In the forked process: it ends, or is killed by an alarm at any instruction."""
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if choose.random() < 0.6:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + choose.random() ** 3 * 0.1)
            number = PER_GROUP * self._group + THREADS
            operations = Operations(self._ledger, number, str(choose.random()))
            operations.some(choose.choice((1, 10, 300)))
        except BaseException:
            self._ledger.say("WRONG", "raised", traceback.format_exc())
        os._exit(0)

    def _wait_for_forked(self, options: int) -> None:
        if not self._forked or os.waitpid(self._forked, options) == (0, 0):
            return
        self._forked = 0
        self._ledger.say("forked ended")
        resolve(self._ledger, self._auditor, self._text_of_registry, [PER_GROUP * self._group + THREADS])
        self._ledger.note_fork(self._group, False)


def resolve(ledger: Ledger, auditor: Auditor, read: Callable[[], str], seats: list[int]) -> None:
    """Of threads that have ended: find out what of their last operations has counted; from now on no less is right."""
    values = auditor.scrape(read)
    if values is None:
        return
    account, counts = ledger.snapshot(), counts_by_seat(values)
    for number in seats:
        for column in BY_SEAT:
            told = counts.get(
                (column, number), {"nothing": 0}
            ).values()  # killed in its midst, one has a sum and no count
            low, high = int(min(told)), int(max(told))
            if account.done(column, number) <= low and high <= account.begun(column, number):
                ledger.resolve(number, column, low, high)


def remove_again_and_again(path: str, ledger: Ledger, seed: str) -> None:
    """A process that removes series that others use, and keeps account of when."""
    choose = random.Random(seed)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    store = sqlmetrics.install(path, flush_interval=FLUSH_INTERVAL)
    removals = (gone.remove, lambda label: gone.remove_by_labels({"number": label}))
    while not ended.wait(choose.random()):
        if ledger.words[accounts.CALM]:
            continue
        for number in choose.choice([range(PATHS), [choose.randrange(PATHS)]]):
            with ledger.removing(number), contextlib.suppress(KeyError):
                choose.choice(removals)(str(number))
                while store.rounds.has_notices():
                    time.sleep(0.01)
            ledger.say("removed", number)
