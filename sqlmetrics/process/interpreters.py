"""Threads in which C code can call Python: in a sub-interpreter, such as mod_wsgi's, not every thread is one.

SQLite calls `apsw` back through `PyGILState_Ensure`, which uses the first thread state of the thread. Before Python
3.12, in a thread of mod_wsgi, that state belongs to another interpreter. The call would then wait for ever for the GIL,
which its own thread holds. A thread that this interpreter starts has only one state, the right one.
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
    """Return two functions, which return the thread state that C code would use, and the one that runs now."""
    try:
        python = ctypes.PyDLL(None)  # not `ctypes.pythonapi`, whose functions the app may have given other types
        found, current = python.PyGILState_GetThisThreadState, python.PyThreadState_Get
    except AttributeError:  # another Python, or one that is hidden from other libraries
        return None
    found.restype = current.restype = ctypes.c_void_p
    return found, current


_functions = _states()


def can_be_called_back() -> bool:
    """Return whether C code can call Python in this thread."""
    return _functions is None or _functions[0]() == _functions[1]()


def in_a_thread_of_its_own(action: Callable[[], T]) -> T:
    """Call `action` in a new thread, in which C code can call Python; return its result. Raises OSError without one.

    The thread has ended by then, because an interpreter does not end while it has another thread.
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
        """Start the thread; return the result of the action or raise its error. Raises OSError if no thread starts."""
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
    """Return whether all connections must be closed before this interpreter ends, as SQLite could not call back then.

    mod_wsgi ends an interpreter with another thread state than the one with which it calls its subscribers.
    """
    return not can_be_called_back() or _subscribe() is not None


def _subscribe() -> Any:
    return getattr(sys.modules.get("mod_wsgi"), "subscribe_shutdown", None)


_last: list[Callable[[], object]] = []


def at_end(action: Callable[[], object]) -> None:
    """Register `action` for the end of the interpreter, with `atexit` or with mod_wsgi. The last one is called first.

    When mod_wsgi ends an interpreter, it deletes the states of the other threads before `atexit` runs. The first of
    these threads that goes on then crashes the process.
    """
    if not _last and (subscribe := _subscribe()) is not None:
        subscribe(lambda *_, **__: _end())
    _last.append(action)
    atexit.register(action)


def not_at_end(action: Callable[[], object]) -> None:
    """Unregister an action of `at_end`."""
    atexit.unregister(action)
    with contextlib.suppress(ValueError):
        _last.remove(action)


def _end() -> None:
    while _last:
        action = _last.pop()
        atexit.unregister(action)
        action()
