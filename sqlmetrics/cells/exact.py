"""What the app gives, by value: whatever class an object is of, a journal gets an exact `str`, `int` or `float`.

Types promise less than they say: a help text may be None, a label a lazy translation, and a test may have put a mock
in the place of `time.time`. One such thing in a journal would be in the way of every process that reads it. So all
that goes there comes through here first.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from typing import Any

# As they were before any test put something else in their places.
_read_clock = time.clock_gettime
own_pid = os.getpid
"""The pid that the kernel knows, whatever `os.getpid` is by now."""


def text(value: object) -> str:
    """The characters of a `str` of any class, as an encoder writes them; of any other object what `str()` gives.

    A member of an enum of strings is its value here, as `prometheus_client` exposes it. Raises what `str()` raises.
    """
    if type(value) is str:
        return value
    # By type(): isinstance() would believe the __class__ of a proxy.
    return str.__str__(value if issubclass(type(value), str) else str(value))


def name(value: object) -> str:
    """A text that SQLite can hold: lone surrogates become escapes. Raises what `text` raises."""
    found = text(value)
    if found.isascii():
        return found
    whole = found.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # joins the pairs
    return whole.encode("utf-8", "backslashreplace").decode()


def help_text(value: object) -> str:
    """The text of a metric's documentation; none where it is None. Raises what `text` raises."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else text(value)


def labels(names: Iterable[object], values: Iterable[object]) -> dict[str, str]:
    """A label set. Raises what `text` raises."""
    return {text(one): text(value) for one, value in zip(names, values, strict=False)}


def number(amount: Any) -> float:
    """The float that adding `amount` to a float makes of it. Raises what that raises: a text is no amount."""
    total = 0.0
    total += amount
    return float(total)


def seconds(value: Any) -> float:
    """A time as finite seconds since the epoch; the system's time instead of what makes no sense as one."""
    try:
        found = float(value)
    except Exception:  # whatever it is: an operation does not fail for its time
        found = math.nan
    return found if math.isfinite(found) else _read_clock(time.CLOCK_REALTIME)


def now() -> float:
    """The time by the clock that the app sees, which a test may have frozen, in seconds since the epoch.

    The answers that a mock has in store are left to the calls of the app, which the test has counted.
    """
    clock = time.time
    if getattr(clock, "side_effect", None) is not None:
        return _read_clock(time.CLOCK_REALTIME)
    try:
        return seconds(clock())
    except Exception:  # whatever it is: the app did not ask for the time
        return _read_clock(time.CLOCK_REALTIME)


def system_now() -> float:
    """The system's time, whatever clock the app sees, in seconds since the epoch."""
    return float(_read_clock(time.CLOCK_REALTIME))
