"""Threads and locks of the system, also where gevent or eventlet have put greenlets in their places.

Both replace what is in `_thread` and `threading` (monkey patching), before this package is imported or after it. A
flusher that is a greenlet would stop all others for as long as SQLite works, and would never get its turn beside one
that computes. So it is a thread of the system's, and whatever it shares with others is locked for threads.

All greenlets of a thread are one to these locks: one that comes while another has it is taken for a signal handler,
somebody who comes in the middle of an operation. That does no harm, and does not happen where nothing waits for
anything in the meantime.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from threading import RLock as RLock


def _second_copy(module: Any) -> Any:
    """Another copy of a built-in module, which nobody knows and so nobody patches.

    It has types of its own: eventlet replaces all instances of `threading.RLock` that it finds when it patches.
    """
    spec = BuiltinImporter.find_spec(module.__name__)
    if spec is None:
        return module  # not built in, in another Python
    copy = module_from_spec(spec)
    BuiltinImporter.exec_module(copy)
    return copy


_real = _second_copy(_thread)
allocate_lock: Callable[[], _thread.LockType] = _real.allocate_lock
get_ident: Callable[[], int] = _real.get_ident
get_native_id: Callable[[], int] = _real.get_native_id
start_new_thread: Callable[[Callable[[], object], tuple[()]], int] = _real.start_new_thread
if not TYPE_CHECKING:
    RLock = _real.RLock


def sleep(seconds: float) -> None:
    """Have this thread, with all its greenlets, wait."""
    lock = allocate_lock()
    lock.acquire()
    lock.acquire(timeout=seconds)


class Greenlets(NamedTuple):
    """What an app has in the place of threads."""

    spawn: Callable[[Callable[[], None]], object]
    sleep: Callable[[float], object]


def greenlets() -> Greenlets | None:
    """What the app has in the place of threads, None where its threads are threads."""
    if _says("gevent.monkey", "is_module_patched", "_thread"):
        import gevent

        return Greenlets(gevent.spawn, partial(gevent.sleep, ref=False))  # who waits for all need not wait for this
    if _says("eventlet.patcher", "is_monkey_patched", "thread"):
        import eventlet

        return Greenlets(eventlet.spawn_n, eventlet.sleep)
    return None


def _says(module: str, question: str, name: str) -> bool:
    ask = getattr(sys.modules.get(module), question, None)  # another thread may be importing it
    return bool(ask is not None and ask(name))


def is_main_thread() -> bool:
    """Whether this is the thread whose greenlets an app runs; taken for it where the system does not say."""
    return not sys.platform.startswith("linux") or get_native_id() == os.getpid()
