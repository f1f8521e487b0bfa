"""The flusher: a thread that writes changes to rows about once a second; or, without threads, turns between requests.

A round in which nothing changed costs seven `stat` calls, a comparison of the process's own blocks, and one `fcntl`
or two for each process of the store: no SQLite, no write.
"""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ..process import fork, native, under_uwsgi, waits
from ..process.appcode import is_for_caller

BATCH_SECONDS = 0.01
"""A flush waits so many seconds for more new children, and again after each one that comes."""
_MOST_BATCH_SECONDS = 0.5
"""But it waits no longer than this, or `flush_interval`."""
_REST = 10
"""After a long flush it rests for so many times as long as that has computed, but not longer than `flush_interval`:
while children come by the thousands, the making of their rows must not take the time of their own making."""
_LONG_SECONDS = 0.02
QUIET_SECONDS = 1.0
"""A forked process writes its first rows at this age (or after one interval, if that is less). A process that ends
earlier need not open SQLite: others write the rows of what it has counted."""
BUSY_SECONDS = 0.05
"""If another process was writing, the next try comes after this time. The first tries come sooner, to meet the short
pauses of a process with much to write."""
_SOON_SECONDS = 0.01
_SOON = 50
"""The number of such early tries."""
_LOOK_SECONDS = 0.0001
_AFTER_ERROR_SECONDS = 0.01
"""Seconds until the thread goes on after an unforeseen exception, so that it does not loop at full speed."""

T = TypeVar("T")


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Outcome(enum.Enum):
    """The result of a flush."""

    NOTHING_CHANGED = enum.auto()
    DONE = enum.auto()
    BUSY = enum.auto()
    """Another process was writing: try again soon."""
    FAILED = enum.auto()


class Flusher:
    """A thread that starts at a process's first operation, and does not exist while the process forks.

    It does not use `threading`, and has a plain lock as its bell: an operation in a signal handler may ring the bell
    while the main thread is inside `threading`, whose own locks are not reentrant.

    flush: calls no code of the app. before, after: call code of the app: functions before each flush, and log handlers
        after it. If the app's threads are greenlets, a greenlet calls both, because the locks of such an app work
        between greenlets, eventlet's only between those of one thread.
    forked: whether this process was forked just now; see `QUIET_SECONDS`.
    """

    def __init__(
        self,
        interval: float,
        flush: Callable[[], Outcome],
        before: Callable[[], None],
        after: Callable[[], None],
        *,
        forked: bool = False,
    ):
        self._interval = interval
        self._most_wait = min(interval, _MOST_BATCH_SECONDS)
        self._quiet_until = _now() + min(interval, QUIET_SECONDS) if forked else 0.0
        self._flush = flush
        self._before = before
        self._after = after
        self._bell = native.allocate_lock()
        self._bell.acquire()
        self._ended = native.allocate_lock()
        self._running = False
        self._wakes = 0
        self._is_rung = False
        """Whether the bell has been rung since the last flush began."""
        self.is_stopping = False
        """Whether a fork, or the end of the process, waits for the thread."""
        self._thread_id = 0
        self._is_missing = False
        self._tries = 0  # in a row that failed because another process was writing
        self.is_awaited = False
        """Whether the thread is wanted, but this process cannot have one."""
        self._turn_at = 0.0
        self._greenlets: native.Greenlets | None = None
        self._has_greenlet = False

    def wake(self) -> None:
        """Start the thread if there is none, and make it flush soon. Never waits."""
        self._wakes += 1
        if not (self._is_rung and self._running):
            self.start()
            self._is_rung = True
            self._ring()

    def note_child(self) -> None:
        """Note a new child: start the thread if there is none, and make it flush soon, but see `QUIET_SECONDS`."""
        self._wakes += 1
        if not (self._is_rung and self._running):
            self.start()
            if not self._is_quiet():
                self._is_rung = True
                self._ring()

    def _is_quiet(self) -> bool:
        return self._quiet_until > 0.0 and _now() < self._quiet_until

    def start(self) -> None:
        """Start the thread if there is none; it flushes after the usual time."""
        if not self._running and not self.is_stopping:
            self.is_awaited = not under_uwsgi.can_have_threads()
            if not self.is_awaited:
                self._start()
        self._greenlets = native.greenlets()  # the app may have patched its threads a moment ago
        if self._greenlets is not None and not self._has_greenlet and not self.is_stopping:
            self._spawn(self._greenlets)

    def start_again(self) -> None:
        """Start the thread if it could not be started when it was needed."""
        if self._is_missing:
            self.start()

    def take_turn(self) -> None:
        """Start the thread if that is possible by now, else flush here if it is time. Never raises.

        Call it between two requests.
        """
        if not self.is_awaited or self.is_stopping:
            return
        now = _now()
        if now < self._turn_at:
            return
        if under_uwsgi.can_have_threads():
            self.start()
        else:
            self._turn_at = now + self._pause(self._round())

    def _pause(self, outcome: Outcome) -> float:
        if outcome is not Outcome.BUSY:
            self._tries = 0
            return self._interval
        self._tries += 1
        return min(self._interval, _SOON_SECONDS if self._tries <= _SOON else BUSY_SECONDS)

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has been rung already
            self._bell.release()

    def _start(self) -> None:
        if not self._ended.acquire(blocking=False):
            return
        self._running = True
        try:
            native.start_new_thread(self._run, ())
        except BaseException as error:  # the system has no thread, or the interpreter is shutting down
            self._running = False
            self._is_missing = True
            self._ended.release()
            if is_for_caller(error):
                raise
        else:
            self._is_missing = False

    def stop(self, *, for_fork: bool = False) -> bool:
        """End the thread and wait for it; True if it was running. Operations do not start it until `allow`.

        for_fork: wait for a moment only, as the thread may be calling code of the app. If it uses SQLite, `yielding`
            waits for it.
        """
        self.is_stopping = True
        was_running = self._running
        if was_running and self._thread_id != native.get_native_id():  # a log handler may fork
            self._ring()
            if for_fork:
                has_ended = fork.acquire(self._ended, waits.FLUSHER_AT_FORK)
            else:
                has_ended = self._ended.acquire(timeout=waits.FLUSHER_AT_EXIT)
            if has_ended:
                self._ended.release()
                self._wait_until_gone()
        return was_running

    def _wait_until_gone(self) -> None:
        """Wait until the system's thread is gone, too: Python 3.12 warns of a fork while there are several threads."""
        for _ in range(int(waits.FLUSHER_AT_EXIT / _LOOK_SECONDS)):
            if not os.path.exists(f"/proc/self/task/{self._thread_id}"):
                break
            native.sleep(_LOOK_SECONDS)  # or the loop would keep the thread from its last steps

    def allow(self) -> None:
        """Let the next operation start the thread again."""
        self.is_stopping = False

    def _run(self) -> None:
        self._thread_id = native.get_native_id()
        self._is_rung = False
        try:
            while not self.is_stopping:
                self._surely(self._rounds)
        finally:
            self._running = False
            self._ended.release()

    def _rounds(self) -> None:
        outcome, rest = Outcome.DONE, 0.0
        while not self.is_stopping:
            if self._is_quiet():
                self._bell.acquire(timeout=max(0.0, self._quiet_until - _now()))
            elif self._bell.acquire(timeout=self._pause(outcome)):
                self._wait_for_more(rest)
            if not self.is_stopping:
                self._is_rung = False
                begun = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
                outcome = self._round()
                took = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) - begun
                rest = min(_REST * took, self._interval) if took > _LONG_SECONDS else 0.0

    def _wait_for_more(self, rest: float) -> None:
        """Wait until no more children come, or have come for long enough; but at least `rest` seconds."""
        begun, wakes = time.clock_gettime(time.CLOCK_MONOTONIC), -1
        waited = 0.0
        while not self.is_stopping and (waited < rest or (wakes != self._wakes and waited < self._most_wait)):
            wakes = self._wakes
            self._bell.acquire(timeout=BATCH_SECONDS)  # returns early only for a stop
            waited = time.clock_gettime(time.CLOCK_MONOTONIC) - begun

    def _round(self) -> Outcome:
        self._greenlets = native.greenlets()  # the app may have patched its threads meanwhile
        if self._greenlets is not None:
            return self._surely(self._flush) or Outcome.FAILED
        self._surely(self._before)
        outcome = self._surely(self._flush)
        self._surely(self._after)
        return outcome or Outcome.FAILED

    @staticmethod
    def _surely(action: Callable[[], T]) -> T | None:
        """Run an action, and go on whatever it raises: the app's code, or a trace function of the app, may raise."""
        try:
            return action()
        except BaseException as error:
            if is_for_caller(error):
                raise
            native.sleep(_AFTER_ERROR_SECONDS)
            return None

    def _spawn(self, greenlets: native.Greenlets) -> None:
        if not native.is_main_thread():
            return  # greenlets of another thread may get no turn; the next operation of the main thread does it
        self._has_greenlet = True
        try:
            greenlets.spawn(partial(self._call_app, greenlets, os.getpid()))
        except Exception:  # whatever it is: an operation on a metric does not fail for that
            self._has_greenlet = False

    def _call_app(self, greenlets: native.Greenlets, pid: int) -> None:
        """Call code of the app again and again, in a greenlet. pid: of its process; a forked one must end its copy."""
        try:
            while not self.is_stopping and os.getpid() == pid:
                self._surely(self._before)
                self._surely(self._after)
                greenlets.sleep(self._interval)
        finally:
            self._has_greenlet = False
