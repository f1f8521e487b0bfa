"""Converts what the app passes to an exact `str`, `int` or `float`, whatever its class is.

Objects are not always what type hints say: a help text may be None, a label value a lazy translation, and a test may
have put a mock in the place of `time.time`. In a journal, such an object would disturb every process that reads it. So
everything that goes there is converted here first.
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
    """Return the characters of a `str` of any class, as an encoder writes them; for other objects, their `str()`.

    For a member of an enum of strings, that is its value, as `prometheus_client` exposes it. Raises what `str()`
    raises.
    """
    if type(value) is str:
        return value
    # By type(): isinstance() would believe the __class__ of a proxy.
    return str.__str__(value if issubclass(type(value), str) else str(value))


def name(value: object) -> str:
    """Return the text in a form that SQLite can hold: lone surrogates become escapes. Raises what `text` raises."""
    found = text(value)
    if found.isascii():
        return found
    whole = found.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # joins the pairs
    return whole.encode("utf-8", "backslashreplace").decode()


def help_text(value: object) -> str:
    """Return the text of a metric's documentation, '' for None. Raises what `text` raises."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else text(value)


def labels(names: Iterable[object], values: Iterable[object]) -> dict[str, str]:
    """Return a label set with exact texts. Raises what `text` raises."""
    return {text(one): text(value) for one, value in zip(names, values, strict=False)}


def number(amount: Any) -> float:
    """Return 0.0 + `amount` as a float. Raises what that raises, for a text, say."""
    total = 0.0
    total += amount
    return float(total)


def seconds(value: Any) -> float:
    """Return a time as finite seconds since the epoch; the system's time if the value makes no sense as a time."""
    try:
        found = float(value)
    except Exception:  # whatever it is: an operation does not fail for its time
        found = math.nan
    return found if math.isfinite(found) else _read_clock(time.CLOCK_REALTIME)


def now() -> float:
    """Return the time of the app's clock, which a test may have frozen, in seconds since the epoch.

    If a mock has answers in store (`side_effect`), it is not asked: the test has counted them for the app's own calls.
    """
    clock = time.time
    if getattr(clock, "side_effect", None) is not None:
        return _read_clock(time.CLOCK_REALTIME)
    try:
        return seconds(clock())
    except Exception:  # whatever it is: the app did not ask for the time
        return _read_clock(time.CLOCK_REALTIME)


def system_now() -> float:
    """Return the system's time, whatever clock the app sees, in seconds since the epoch."""
    return float(_read_clock(time.CLOCK_REALTIME))
