"""Connections that give way to a fork: none is open at that moment, and no fork waits for a long statement.

SQLite keeps a table of its open files in the process. A child inherits it, and a connection that the child opens then
believes to hold locks that it does not hold (https://www.sqlite.org/howtocorrupt.html, 2.6). So a fork waits until the
last connection is closed. Where another thread is in the middle of something, it is interrupted: the statement ends
within milliseconds, the transaction is rolled back, and what was to be done is done after the fork.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import apsw

from ..errors import StoreError
from ..process import fork, interpreters, native, waits

_LOOK_SECONDS = 0.005


class YieldedError(apsw.BusyError, fork.GaveWayError):
    """Another thread of this process waits to fork until nothing is under way in SQLite. Try again later."""


class ForkedInUseError(StoreError):
    """SQLite cannot be used here: this process was forked in the middle of an SQLite call of its parent."""


class Connection(apsw.Connection):
    """A connection whose statements end when another thread waits to fork, with YieldedError or InterruptError."""

    is_of_file = False
    """Whether it must not be open at a fork."""
    user = 0
    """The thread that uses it."""
    _is_closing = False

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.user = native.get_ident()
        key = id(self)
        _open[key] = weakref.ref(self, lambda _: _open.pop(key, None))

    def execute(self, *arguments: Any, **named: Any) -> apsw.Cursor:
        """Execute as apsw, but not while another thread waits to fork. Raises YieldedError or OSError: see `_done`."""
        _give_way()
        return self._done(super().execute, *arguments, **named)

    def executemany(self, *arguments: Any, **named: Any) -> apsw.Cursor:
        """Execute as apsw, but not while another thread waits to fork. Raises YieldedError or OSError: see `_done`."""
        _give_way()
        return self._done(super().executemany, *arguments, **named)

    @staticmethod
    def _done(execute: Callable[..., apsw.Cursor], *arguments: Any, **named: Any) -> apsw.Cursor:
        """Execute here, or in a new thread that reads all rows. Raises OSError if no thread can start.

        All, because SQLite calls back when it frees an array.
        """
        if interpreters.can_be_called_back():
            return execute(*arguments, **named)
        rows: Any = interpreters.in_a_thread_of_its_own(lambda: Rows(execute(*arguments, **named).fetchall()))
        return rows  # type: ignore[no-any-return]

    def at_once(self, statement: str) -> None:
        """Execute a short statement that puts something in order, even while another thread waits to fork."""
        try:
            self._done(super().execute, statement)
        except apsw.InterruptError:  # that was meant for the statement before
            self._done(super().execute, statement)

    def set_busy_timeout(self, milliseconds: int) -> None:
        """Make statements wait so long for locks of others, but not while another thread waits to fork."""
        if milliseconds / 1000 <= waits.WRITE_LOCK:
            super().set_busy_timeout(milliseconds)
        else:
            self.set_busy_handler(_Patience(milliseconds / 1000))

    def close(self, force: bool = False) -> None:
        """Close the connection. From now on nobody interrupts it, which SQLite forbids."""
        with _interrupting.lock:
            self._is_closing = True
        if interpreters.can_be_called_back():
            super().close(force)
        else:
            interpreters.in_a_thread_of_its_own(partial(super().close, force))
        _open.pop(id(self), None)

    def hurry(self) -> None:
        """Interrupt what another thread is executing."""
        if not self._is_closing:
            self.interrupt()


class Rows(list[Any]):
    """All rows of a statement, with those methods of a cursor that this package uses."""

    def fetchall(self) -> list[Any]:
        """Return the rows that were not fetched before."""
        rows, self[:] = self[:], []
        return rows

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self.pop(0) if self else None

    @property
    def get(self) -> Any:
        """The value, row or list of rows, as `apsw.Cursor.get` returns it."""
        rows = [row[0] if len(row) == 1 else row for row in self.fetchall()]
        return rows if len(rows) > 1 else next(iter(rows), None)


class _Patience:
    """A busy handler that waits for so many seconds, but not while another thread waits to fork."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._end = 0.0

    def __call__(self, calls_before: int) -> bool:
        """Wait a little; False if time is up."""
        now = time.monotonic()
        if calls_before == 0:
            self._end = now + self._seconds
        if now >= self._end or fork.is_wanted():
            return False
        native.sleep(_LOOK_SECONDS)
        return True


_open: dict[int, weakref.ref[Connection]] = {}
_opening: dict[object, int] = {}
"""The threads that open a connection. Each is noted before it looks for a fork, so either one sees the other."""
_inherited: list[object] = []
"""Connections of the parent that were in use at the fork."""


def _give_way() -> None:
    if fork.is_wanted():
        raise YieldedError("another thread forks")


@contextlib.contextmanager
def opening() -> Iterator[None]:
    """Open a connection to a file within. Raises YieldedError or ForkedInUseError."""
    if _inherited:
        raise ForkedInUseError("this process was forked while its parent was using SQLite; start it another way")
    me = object()
    _opening[me] = native.get_ident()
    try:
        _give_way()
        yield
    finally:
        _opening.pop(me, None)


def _living() -> list[Connection]:
    return [one for ref in list(_open.values()) if (one := ref()) is not None]


class _Interrupting(fork.ForkAware):
    """Interrupts connections for a fork, and sees to it that none is open."""

    is_last = True

    def __init__(self) -> None:
        self.lock = native.RLock()

    def hurry(self) -> None:
        """Interrupt all."""
        with self.lock:
            for one in _living():
                one.hurry()

    def before_fork(self) -> None:
        """Wait for connections that other threads have open, or are opening. For its own, it would wait for ever."""
        fork.wait_until(self._is_none_open)

    @staticmethod
    def _is_none_open(seconds: float) -> bool:
        users = {*_opening.copy().values(), *(one.user for one in _living() if one.is_of_file)}
        if users <= {native.get_ident()}:
            return True
        native.sleep(seconds)
        return False

    def after_fork_in_child(self) -> None:
        """Make SQLite unusable here if the parent was in the middle of using it."""
        self.lock = native.RLock()
        if _open or _opening:
            _inherited.extend([*_opening, *(one for one in _living() if one.is_of_file)])
            _opening.clear()


_interrupting = _Interrupting()
fork.register(_interrupting)


def _close_all() -> None:
    """Close all connections if SQLite could not call back later: closing frees the arrays that it has kept."""
    if interpreters.must_close_all():
        for one in _living():
            with contextlib.suppress(apsw.Error, OSError):
                one.close()


interpreters.at_end(_close_all)
