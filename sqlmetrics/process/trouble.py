"""Trouble with the store while the app runs: logged once per cause, counted, and forgotten when it is over."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections import Counter, deque

from .appcode import is_for_caller, safe_repr

CAUSES = (
    "app",
    "cells",
    "closed",
    "damaged",
    "flush",
    "foreign",
    "notice",
    "records",
    "removal",
    "replaced",
    "too_long",
    "types",
)
"""The causes of trouble; docs/reference/errors.md explains each."""

log = logging.getLogger("sqlmetrics")


class Trouble:
    """Collects what went wrong. Reporting takes no lock and calls no log handler; `write_log` calls them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._current: set[tuple[str, str]] = set()
        self._unlogged: deque[tuple[int, str]] = deque()

    def is_any(self) -> bool:
        """Whether there has ever been any."""
        return bool(self.counts or self._current or self._unlogged)

    def report(self, cause: str, message: str, *, about: str = "") -> None:
        """Count a cause. If it was not there before, log its message at the next `write_log`.

        about: what the cause is about (a metric, say), if it is to be logged once for each of them.
        """
        self.counts[cause] += 1
        if (cause, about) not in self._current:
            self._current.add((cause, about))
            self._unlogged.append((logging.WARNING, message))

    def over(self, cause: str, message: str, *, about: str = "") -> None:
        """Log at the next `write_log` that a cause is gone, if it was there."""
        if (cause, about) in self._current:
            self._current.discard((cause, about))
            self._unlogged.append((logging.INFO, message))

    def happened(self, cause: str, message: str) -> None:
        """Count a cause that is over already, and log its message at the next `write_log`."""
        self.counts[cause] += 1
        self._unlogged.append((logging.WARNING, message))

    def remark(self, message: str) -> None:
        """Log a warning at the next `write_log`, without a cause to count."""
        self._unlogged.append((logging.WARNING, message))

    def write_log(self) -> None:
        """Log what was reported. Call it with no lock of this package held."""
        while self._unlogged:
            with contextlib.suppress(IndexError):  # another thread was faster
                level, message = self._unlogged.popleft()
                self.tell(level, message)

    def tell(self, level: int, message: str, error: BaseException | None = None) -> None:
        """Log a message at once, see `tell`; count the error if the app's logging raises."""
        if not tell(level, message, error):
            self.counts["app"] += 1


def tell(level: int, message: str, error: BaseException | None = None) -> bool:
    """Log a message, with the traceback of an error; False if a log handler or filter of the app raises.

    Then the message goes to standard error, as with the handlers of `logging`, unless `logging.raiseExceptions` is
    false.
    """
    try:
        log.log(level, f"{message} (pid {os.getpid()})", exc_info=error)  # many processes may share a log
    except BaseException as raised:
        if is_for_caller(raised):
            raise
        _complain(message, raised)
        return False
    return True


_complained = False


def _complain(message: str, raised: BaseException) -> None:
    global _complained
    is_first, _complained = not _complained, True
    if not logging.raiseExceptions:
        return
    try:  # there may be no standard error, or one of the app's
        sys.stderr.write(f"sqlmetrics: {message}\n(The app's logging raised {safe_repr(raised)} for this message.)\n")
        if is_first:
            traceback.print_exception(raised)
    except BaseException as error:
        if is_for_caller(error):
            raise
