"""What `top` shows: the rates between two looks, sorted and filtered as the user chooses."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..outside import words
from ..outside.look import Look
from ..outside.place import Place
from ..outside.processes import Process
from ..outside.sights import FamilyRate, ProcessRate, Rates, Sight, Sights, rates

Table = tuple[list[str], list[list[str]]]
"""Heads (those of text columns begin with <), and rows."""
_BEHIND = {"sqlmetrics_rows_behind_seconds", "sqlmetrics_journal_bytes_behind"}
_DEATHS = 3


def _down(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else -value


def _p99(one: FamilyRate) -> float:
    return one.distribution.quantile(0.99) if one.distribution else math.nan


FAMILY_ORDERS: dict[str, Callable[[FamilyRate], object]] = {
    "rate": lambda one: (_down(one.per_second), one.name),
    "p99": lambda one: (_down(_p99(one)), one.name),
    "series": lambda one: (-one.series, one.name),
    "name": lambda one: one.name,
}
PROCESS_ORDERS: dict[str, Callable[[ProcessRate], object]] = {
    "rate": lambda one: (_down(one.per_second), one.process.pid),
    "cpu": lambda one: (_down(one.cpu), one.process.pid),
    "rss": lambda one: (_down(one.process.rss_bytes), one.process.pid),
    "name": lambda one: one.process.pid,
}
"""The orders of the two tables."""


@dataclass
class Choice:
    """The user's choices. sort: of `FAMILY_ORDERS`; order: of `PROCESS_ORDERS`; part: of a name, the filter."""

    sort: str = "rate"
    order: str = "rate"
    part: str = ""

    def next_sort(self) -> None:
        """Sort the families by the next column."""
        self.sort = _after(self.sort, list(FAMILY_ORDERS))

    def next_order(self) -> None:
        """Sort the processes by the next column."""
        self.order = _after(self.order, list(PROCESS_ORDERS))

    def takes(self, name: str) -> bool:
        """Whether the filter takes a name."""
        return self.part.lower() in name.lower()


def _after(one: str, of: list[str]) -> str:
    return of[(of.index(one) + 1) % len(of)]


@dataclass(frozen=True)
class Death:
    """A process that was alive at one look, and not at the next. at: the time of that, in seconds since the epoch."""

    pid: str
    at: float


@dataclass(frozen=True)
class Overview:
    """What happened between the last two looks. behind: how far rows are behind, in seconds and in bytes."""

    place: Place
    at: float
    rates: Rates
    behind: tuple[float, float]
    deaths: list[Death]
    is_first: bool

    def alive(self) -> list[ProcessRate]:
        """Return the processes that are alive."""
        return [one for one in self.rates.processes if one.process.is_alive]


class Watch:
    """Looks at a store again and again."""

    def __init__(self, look: Look):
        self._look, self._sights = look, Sights()
        self._last: Sight | None = None
        self._deaths: deque[Death] = deque(maxlen=_DEATHS)

    @property
    def place(self) -> Place:
        """The store."""
        return self._look.place

    def look(self) -> Overview:
        """Look again. Raises as `Look` does."""
        before, after = self._last, self._sights.take(self._look)
        self._last = after
        found = rates(before or after, after)
        self._deaths.extend(Death(one.pid, after.at) for one in found.ended)
        return Overview(self.place, after.at, found, self._behind(), list(self._deaths), before is None)

    def _behind(self) -> tuple[float, float]:
        families = self._look.families(_BEHIND, self_metrics=True).families
        found = {one.name: one.samples[0].value for one in families if one.samples}
        seconds, count = (found.get(name, 0.0) for name in sorted(_BEHIND, reverse=True))
        return seconds, count


def as_json(found: Overview) -> dict[str, object]:
    """Return what `--json` prints. Its keys are documented, and must stay."""
    return {
        "store": found.place,
        "seconds": found.rates.seconds,
        "families": [_family_json(one) for one in found.rates.families],
        "processes": [_process_json(one) for one in found.rates.processes],
        "rows_behind_seconds": found.behind[0],
        "journal_bytes_behind": int(found.behind[1]),
        "died": [one.pid for one in found.deaths],
    }


def _family_json(one: FamilyRate) -> dict[str, object]:
    found = {"name": one.name, "type": one.type, "series": one.series, "per_second": one.per_second}
    of = one.distribution
    if of is not None:
        found |= {"count": of.count, "mean": of.mean}
        found |= {"p50": of.quantile(0.5), "p99": of.quantile(0.99)} if of.buckets else {}
    return dict(found)


def _process_json(one: ProcessRate) -> dict[str, object]:
    shown = ("pid", "seen_pid", "state", "program", "series", "rss_bytes")
    return {**{key: getattr(one.process, key) for key in shown}, "cpu": one.cpu, "per_second": one.per_second}


def summary(found: Overview) -> list[str]:
    """Return the lines above the tables."""
    alive, now = found.alive(), time.strftime("%H:%M:%S", time.localtime(found.at))
    rate = None if found.is_first else math.fsum(one.per_second or 0.0 for one in alive)
    cpu, rss = math.fsum(one.cpu or 0.0 for one in alive), sum(one.process.rss_bytes or 0 for one in alive)
    series = sum(one.series for one in found.rates.families)
    deaths = ", ".join(f"{words.printable(one.pid)} {words.seconds(found.at - one.at)} ago" for one in found.deaths)
    return [
        f"store   {found.place}",
        f"now     {now}  {_rate(rate)} events/s, CPU {_percent(cpu)}, RSS {words.size(rss)}",
        f"alive   {len(alive)}, {series:,} series; rows {words.seconds(found.behind[0])},"
        f" {words.size(found.behind[1])} behind",
        f"died    {deaths or 'none since this began to look'}",
    ]


def families_table(found: Overview, choice: Choice) -> Table:
    """Return the families that count events, with quantiles of the observations between the looks."""
    chosen = [one for one in found.rates.families if one.per_second is not None and choice.takes(one.name)]
    chosen.sort(key=FAMILY_ORDERS[choice.sort])  # type: ignore[arg-type]
    return ["<FAMILY", "<TYPE", "EVENTS/S", "P50", "P99", "SERIES"], [_family(one, found.is_first) for one in chosen]


def _family(one: FamilyRate, is_first: bool) -> list[str]:
    quantiles = [one.distribution.quantile(q) if one.distribution and not is_first else None for q in (0.5, 0.99)]
    rate = _rate(None if is_first else one.per_second)
    return [words.printable(one.name), one.type, rate, *map(words.short, quantiles), str(one.series)]


def processes_table(found: Overview, choice: Choice) -> Table:
    """Return the processes: those that are alive, and then those that are dead and not settled."""
    unsettled = [one for one in found.rates.processes if one.process.state != "remembered"]
    chosen = [one for one in unsettled if choice.takes(one.process.pid) or choice.takes(one.process.program or "")]
    chosen.sort(key=PROCESS_ORDERS[choice.order])  # type: ignore[arg-type]
    chosen.sort(key=lambda one: not one.process.is_alive)
    if not chosen and choice.part:  # it is the name of a family
        chosen = sorted(unsettled, key=PROCESS_ORDERS[choice.order])  # type: ignore[arg-type]
    heads = ["<PROCESS", "<STATE", "EVENTS/S", "CPU", "RSS", "SERIES", "AGE", "<PROGRAM"]
    return heads, [_process(one, found) for one in chosen]


def _process(one: ProcessRate, found: Overview) -> list[str]:
    process = one.process
    return [
        _name(process),
        process.state,
        _rate(None if found.is_first else one.per_second),
        _percent(one.cpu) if not found.is_first else "-",
        words.size(process.rss_bytes),
        str(process.series),
        "-" if process.started is None else words.seconds((process.died or found.at) - process.started),
        words.printable(process.program or ""),
    ]


def _name(process: Process) -> str:
    """Return the name of a process, with its pid if the name does not have it."""
    pid = process.seen_pid
    return words.printable(process.pid if pid is None or str(pid) in process.pid else f"{process.pid} ({pid})")


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 1e5 else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
