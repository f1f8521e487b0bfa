"""Threads and locks of the system, even where gevent or eventlet have put greenlets in their place.

Both replace what is in `_thread` and `threading` (monkey patching), before or after the import of this package. A
flusher that is a greenlet would stop all other greenlets while SQLite works, and would get no turn while one of them
computes. So the flusher is a thread of the system, and what it shares with others has locks for threads.

To these locks, all greenlets of a thread are the same. If a greenlet comes while another one has such a lock, it is
treated like a signal handler that interrupts an operation. That does no harm, and cannot happen as long as no code
waits for anything while it has such a lock.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from threading import RLock as RLock


def _second_copy(module: Any) -> Any:
    """Return another copy of a built-in module, which nobody knows, and so nobody patches.

    Its types are others, too: eventlet replaces all instances of `threading.RLock` that it finds when it patches.
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
    """Make this thread wait, with all its greenlets."""
    lock = allocate_lock()
    lock.acquire()
    lock.acquire(timeout=seconds)


@contextmanager
def held(lock: Any, seconds: float) -> Iterator[bool]:
    """Hold a lock within; go on without it, and with False, if others do not release it within so many seconds."""
    is_held = bool(lock.acquire(timeout=seconds))
    try:
        yield is_held
    finally:
        if is_held:
            lock.release()


class Greenlets(NamedTuple):
    """The functions of gevent or eventlet that replace those of threads."""

    spawn: Callable[[Callable[[], None]], object]
    sleep: Callable[[float], object]


def greenlets() -> Greenlets | None:
    """Return the greenlets that the app has in the place of threads; None if its threads are threads."""
    if _says("gevent.monkey", "is_module_patched", "_thread"):
        import gevent

        return Greenlets(gevent.spawn, partial(gevent.sleep, ref=False))  # not one to wait for at exit
    if _says("eventlet.patcher", "is_monkey_patched", "thread"):
        import eventlet

        return Greenlets(eventlet.spawn_n, eventlet.sleep)
    return None


def _says(module: str, question: str, name: str) -> bool:
    ask = getattr(sys.modules.get(module), question, None)  # another thread may be importing it
    return bool(ask is not None and ask(name))


def is_main_thread() -> bool:
    """Whether this is the main thread, which runs the app's greenlets; True where the system does not tell."""
    return not sys.platform.startswith("linux") or get_native_id() == os.getpid()
