"""Something that happens at the n-th line of given modules, as a signal handler or a SIGKILL might."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType, ModuleType


class Interruption:
    """A trace function that acts at a line of these modules, or at several, counted from 1.

    where: the line at which it acted last, '' as long as it has not.
    lines: how many were run so far.
    """

    def __init__(self, at: int | Collection[int], modules: Iterable[ModuleType], action: Callable[[], object]):
        self._at = {at} if isinstance(at, int) else set(at)
        self._files = {module.__file__ for module in modules}
        self._action = action
        self.lines = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> Interruption | None:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self.lines += 1
            if self.lines in self._at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                self._action()
        return self

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count the lines of a block."""
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(None)
