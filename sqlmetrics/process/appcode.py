"""How this package treats exceptions of the app's code: of log handlers, functions, collectors and identifiers.

Such code may raise anything, `SystemExit` and `KeyboardInterrupt` included. If an argument of a call raises (a label
value with a `__str__` of its own, say), the call raises, as in one process. Anywhere else, the exception is caught,
counted and logged once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import CodeType, TracebackType

from . import native

_GREENLETS = ("gevent", "eventlet", "greenlet")


def is_for_caller(error: BaseException) -> bool:
    """Whether an exception is meant for the code that called this package, so that it must not be caught here.

    Ctrl+C and all that signal handlers raise is. So is what ends a greenlet or its wait (`GreenletExit`, `Timeout`):
    caught here, it would end nothing. In other threads than the main one, such as the flusher's, only the latter is.
    """
    if not native.is_main_thread():
        return _is_of_greenlets(error)
    return isinstance(error, KeyboardInterrupt) or _is_of_greenlets(error) or _is_of_a_signal_handler(error)


def _is_of_greenlets(error: BaseException) -> bool:
    modules = (str(kind.__module__).partition(".")[0] for kind in type(error).__mro__)
    return not isinstance(error, Exception) and any(module in _GREENLETS for module in modules)


def _is_of_a_signal_handler(error: BaseException) -> bool:
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {getattr(getattr(one, "__func__", one), "__code__", None) for one in handlers}
    return not codes.isdisjoint(_codes(error.__traceback__))


def _codes(traceback: TracebackType | None) -> set[CodeType]:
    found = set()
    while traceback is not None:
        found.add(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    return found


def safe_repr(thing: object, text_of: Callable[[object], str] = repr) -> str:
    """Return the `repr` of one of the app's objects, for the log; a plain one if its own raises.

    text_of: what to call instead of `repr`.
    """
    try:
        return text_of(thing)
    except BaseException as error:
        if is_for_caller(error):
            raise
        return object.__repr__(thing)
