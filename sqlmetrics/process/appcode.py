"""Code of the app that runs in the middle of this package's: log handlers, functions, collectors, identifiers.

It may raise anything, `SystemExit` and `KeyboardInterrupt` included. What it hands over in a call (a label value with a
`__str__` of its own, say) raises in that call, as in one process. Anywhere else it is caught, counted and told once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import CodeType, TracebackType

from . import native

_GREENLETS = ("gevent", "eventlet", "greenlet")


def is_for_caller(error: BaseException) -> bool:
    """Whether an exception has only come by in the app's code, and must reach whoever called this package.

    So it is with Ctrl+C and all that signal handlers raise, and with what ends a greenlet or its wait (`GreenletExit`,
    `Timeout`): nobody would stop if it was caught here. The thread of the flusher has no such caller.
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


def told(thing: object, text_of: Callable[[object], str] = repr) -> str:
    """A text for the log of a thing of the app's, also where its own way to make one raises."""
    try:
        return text_of(thing)
    except BaseException as error:
        if is_for_caller(error):
            raise
        return object.__repr__(thing)
