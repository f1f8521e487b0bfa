"""Texts and numbers of odd classes, and one use of metrics in memory and in the store side by side."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any

import prometheus_client
from differential import peer
from helpers import Child, Shell
from prometheus_client import Counter

import sqlmetrics

MODES = ("all", "mostrecent", "livesum", "max")


class Text(str):
    """A text that prints as another one."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another"

    def __repr__(self) -> str:
        return "Text()"


class Safe(str):
    """A text that `str()` leaves as it is, as those of template engines are."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Lazy:
    """A translation that is looked up when it is used."""

    def __str__(self) -> str:
        return "translated"

    def __getattr__(self, name: str) -> Any:
        return getattr("translated", name)


class State(str, enum.Enum):
    """An enum of strings."""

    UP = "up"
    DOWN = "down"


class Number(enum.IntEnum):
    """An enum of numbers."""

    ONE = 1


class Float64(float):
    """A float that writes itself as numpy's does."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)!r})"

    __str__ = __repr__


class Float32:
    """A number that is no float, as numpy's others are."""

    def __init__(self, number: float):
        self.number = number

    def __float__(self) -> float:
        return self.number

    def __radd__(self, other: float) -> Float64:
        return Float64(other + self.number)

    def __neg__(self) -> Float32:
        return Float32(-self.number)

    def __lt__(self, other: float) -> bool:
        return self.number < other

    def __le__(self, other: float) -> bool:
        return self.number <= other


class Whole(int):
    """An int that writes itself as something else."""

    def __repr__(self) -> str:
        return "Whole()"

    __str__ = __repr__


Use = Callable[[Any, Any], object]


def named(given: object) -> str:
    """What a case is called, the same in each process that runs tests."""
    return re.sub(r"\bodd\.| object at 0x\w+| id='\d+'", "", ascii(given))[:30]


def tried(action: Callable[[], object]) -> str:
    """What comes of something: the error that it raises, if any."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def lines(text: bytes) -> list[str]:
    """The lines of an exposition, in no order, without the times at which children were made."""
    return sorted(line for line in text.decode().splitlines() if "_created" not in line)


class Sides:
    """One use of metrics in `prometheus_client`'s memory mode and, in a process of its own, in the store."""

    def __init__(self, use: Use):
        registry = peer.CollectorRegistry()
        self.said = tried(lambda: use(peer, registry))
        self._shown = lambda: lines(peer.generate_latest(registry))
        self.user = Child()
        if self.user.in_child:
            store = sqlmetrics.install()
            act = {"use": lambda: tried(lambda: use(prometheus_client, None)), "flush": lambda: store.flush().name}
            self.user.serve(**act)

    def agree(self, shell: Shell, expected: list[str] | None = None) -> None:
        """Compare them: from the journal, from rows, and when the process has been killed."""
        shown = self._shown() if expected is None else sorted(expected)
        healthy = Counter("healthy", "Healthy", registry=None)
        healthy.inc()
        healthy_lines = ["# HELP healthy_total Healthy", "# TYPE healthy_total counter", "healthy_total 1.0"]
        wanted = sorted([*shown, *healthy_lines])
        assert self.user.do("use") == self.said
        assert lines(sqlmetrics.generate_latest()) == wanted
        assert self.user.do("flush") in ("DONE", "NOTHING_CHANGED")
        assert lines(sqlmetrics.generate_latest()) == wanted
        self.user.kill()
        assert lines(sqlmetrics.generate_latest()) == wanted
        assert sqlmetrics.install().flush().name in ("DONE", "NOTHING_CHANGED")
        assert shell.value("SELECT value FROM metrics WHERE metric = 'healthy_total'") == 1.0
        assert lines(sqlmetrics.generate_latest()) == wanted
