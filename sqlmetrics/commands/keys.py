"""Reads single keys from a terminal, and restores the terminal at the end, whatever the end is."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from types import FrameType, TracebackType
from typing import NoReturn

ESCAPE = "\x1b"
ENTER, BACKSPACE = ("\r", "\n"), ("\x7f", "\b")


_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Keyboard:
    """Reads keys as they are pressed, without showing them. Use it as a context manager.

    Signals that end raise SystemExit meanwhile, so that the terminal is restored, and it cannot be suspended.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self._fd)
        ends = {number: signal.signal(number, _leave) for number in _ENDS}
        self._handlers = {**ends, signal.SIGTSTP: signal.signal(signal.SIGTSTP, signal.SIG_IGN)}
        tty.setcbreak(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def pressed(self, seconds: float) -> list[str]:
        """Return keys as soon as any are pressed; [] after so many seconds. Raises OSError at the terminal's end."""
        if not select.select([self._fd], [], [], max(seconds, 0.0))[0]:
            return []
        given = os.read(self._fd, 1024)
        if not given:
            raise OSError("the terminal is gone")
        text = given.decode("utf-8", "ignore")
        return [ESCAPE] if text == ESCAPE else [] if text.startswith(ESCAPE) else list(text)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
