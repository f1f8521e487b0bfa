"""Where C code can call Python back: not in every thread of a sub-interpreter, as Apache's mod_wsgi makes them.

`PyGILState_Ensure`, by which SQLite's calls reach `apsw` again, uses the state that the thread had first. Before Python
3.12 that is another interpreter's in a thread that mod_wsgi has brought along, and the call would wait for ever for an
interpreter lock that its own thread has. A thread that this interpreter starts has one state only, the right one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from . import native

T = TypeVar("T")
_LOOK_SECONDS = 0.0001
_MOST_LOOKS = 10_000


def _states() -> tuple[Callable[[], int | None], Callable[[], int | None]] | None:
    """Two functions: the state by which C code finds this thread, and the one that it runs with."""
    try:
        python = ctypes.PyDLL(None)  # not `ctypes.pythonapi`, whose functions the app may have given other types
        found, current = python.PyGILState_GetThisThreadState, python.PyThreadState_Get
    except AttributeError:  # another Python, or one that is hidden from other libraries
        return None
    found.restype = current.restype = ctypes.c_void_p
    return found, current


_functions = _states()


def can_be_called_back() -> bool:
    """Whether C code can call Python in this thread."""
    return _functions is None or _functions[0]() == _functions[1]()


def in_a_thread_of_its_own(action: Callable[[], T]) -> T:
    """Do something in a thread that can be called back, and wait for it. Raises OSError where none can start.

    The thread is gone afterwards: an interpreter that has another one does not end.
    """
    return _Errand(action).result()


class _Errand(Generic[T]):
    """One action in one thread."""

    def __init__(self, action: Callable[[], T]):
        self._action = action
        self._done = native.allocate_lock()
        self._done.acquire()
        self._thread = 0
        self._found: list[T] = []
        self._error: BaseException | None = None

    def result(self) -> T:
        """What the action returns; raises what it raises, or OSError."""
        try:
            native.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        self._done.acquire()
        self._wait_until_gone()
        if self._error is not None:
            raise self._error
        return self._found[0]

    def _wait_until_gone(self) -> None:
        for _ in range(_MOST_LOOKS):
            if not os.path.exists(f"/proc/self/task/{self._thread}"):
                break
            native.sleep(_LOOK_SECONDS)

    def _run(self) -> None:
        self._thread = native.get_native_id()
        try:
            self._found.append(self._action())
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()


def must_close_all() -> bool:
    """Whether nothing may be left for the end of this interpreter that SQLite calls back for; asked shortly before it.

    mod_wsgi ends an interpreter with another state than that with which it says so.
    """
    return not can_be_called_back() or _subscribe() is not None


def _subscribe() -> Any:
    return getattr(sys.modules.get("mod_wsgi"), "subscribe_shutdown", None)


_last: list[Callable[[], object]] = []


def at_end(action: Callable[[], object]) -> None:
    """Call something at the end of the interpreter, what came last first; by `atexit`, or by mod_wsgi before that.

    When mod_wsgi ends an interpreter, the states of its other threads are gone before `atexit` comes, and the first
    of them that goes on takes the process with it.
    """
    if not _last and (subscribe := _subscribe()) is not None:
        subscribe(lambda *_, **__: _end())
    _last.append(action)
    atexit.register(action)


def not_at_end(action: Callable[[], object]) -> None:
    """Take back an `at_end`."""
    atexit.unregister(action)
    with contextlib.suppress(ValueError):
        _last.remove(action)


def _end() -> None:
    while _last:
        action = _last.pop()
        atexit.unregister(action)
        action()
