"""The state of a store, as `status` prints it: its processes, its size, and what went wrong."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import apsw
from prometheus_client.metrics_core import Metric

from ..cells import layout
from ..rows import wal
from ..scrape.about import assembled
from ..scrape.members import Member
from ..scrape.reading import Scrape
from ..scrape.wanted import wanted
from ..version import __version__
from .look import Look, settings
from .place import Place
from .processes import Process, processes

_LIMITS = {"processes": layout.SLOTS, "cell blocks": layout.CELL_BLOCKS, "journal extents": layout.EXTENTS}
_DEATHS = 10
SELECT_DEATHS = """
SELECT pid, os_pid, started, flushed, died, noticed FROM ended_process ORDER BY number DESC LIMIT ?
"""
NEARLY = 0.8
"""A limit is near if more than this share of it is used, as in the alert SqlmetricsCellsNearLimit."""
FREE_BYTES = 16 * 1024 * 1024
"""A disk with less room is nearly full."""
_SUSPICIOUS = 10.0
"""A process that has counted is suspicious if it has not flushed for so many seconds; a second look confirms that."""
_LOOKS = 0.1


@dataclass(frozen=True)
class Work:
    """How often some work was done, and how many seconds it took in all."""

    count: float
    seconds: float

    @property
    def mean(self) -> float | None:
        """Seconds for each time; None if there was none."""
        return self.seconds / self.count if self.count else None


@dataclass(frozen=True)
class Limit:
    """How many things are in use, and how many there can be."""

    used: int
    of: int

    @property
    def is_near(self) -> bool:
        """Whether there will soon be no more room."""
        return self.used > NEARLY * self.of


@dataclass(frozen=True)
class Death:
    """A process that ended. died: when it was settled; noticed: what noticed its end, see `rows.deaths`."""

    pid: str
    os_pid: int
    started: float | None
    flushed: float | None
    died: float
    noticed: str


@dataclass(frozen=True)
class Status:
    """The state of a store.

    processes: see `Process`. deaths: the last processes that ended, the newest first. ended: how many have ended since
    the store was made or reset, by what noticed it. files: bytes on the disk by file (`database`, `wal`, `shm`,
    `cells`). limits: those of the cells file. last_flush: the last one of any known process, in seconds since the
    epoch, also of one that has ended; None if unknown. journal_bytes_behind: bytes that processes have announced and
    that are not in rows. pid_clashes: how many living processes have the name of another one. errors: how many, by
    cause. silent: messages about processes that count but do not flush. trouble: all messages that an operator should
    read, these included.
    """

    store: Place
    processes: list[Process]
    deaths: list[Death]
    ended: dict[str, int]
    files: dict[str, int]
    free_bytes: int
    limits: dict[str, Limit]
    last_flush: float | None
    flushes: Work
    scrapes: Work
    journal_bytes_behind: int
    pid_clashes: int
    errors: dict[str, float]
    versions: dict[str, str]
    silent: list[str]
    trouble: list[str]

    def alive(self) -> list[Process]:
        """Return the processes that are alive, as the kernel says."""
        return [one for one in self.processes if one.is_alive]


def status(look: Look) -> Status:
    """Look at a store. Waits some seconds if a process seems not to flush, to be sure. Raises as `Look` does."""
    members, families = look.ask(wanted(self_metrics=True), _answer)
    known = processes(members)
    deaths = [Death(*row) for row in look.rows(SELECT_DEATHS, _DEATHS)]
    flushes = [one.flushed for one in known] + [one.flushed for one in deaths]
    used = _by_label(families, "sqlmetrics_used_ratio")
    found = Status(
        store=look.place,
        processes=known,
        deaths=deaths,
        ended={how: int(count) for how, count in _by_label(families, "sqlmetrics_processes_ended").items() if count},
        files={file: int(size) for file, size in _by_label(families, "sqlmetrics_bytes").items()},
        free_bytes=int(_by_label(families, "sqlmetrics_free_bytes")[""]),
        limits={name: Limit(round(used[name] * of), of) for name, of in _LIMITS.items()},
        last_flush=max(filter(None, flushes), default=None),
        flushes=_work(families, "flush"),
        scrapes=_work(families, "scrape"),
        journal_bytes_behind=int(_by_label(families, "sqlmetrics_journal_bytes_behind")[""]),
        pid_clashes=int(_by_label(families, "sqlmetrics_pid_clashes")[""]),
        errors={cause: count for cause, count in _by_label(families, "sqlmetrics_errors").items() if count},
        versions=versions(look),
        silent=_not_flushing(look, known),
        trouble=[],
    )
    return replace(found, trouble=_trouble(found))


def _answer(scrape: Scrape) -> tuple[list[Member], dict[str, Metric]]:
    """Return the processes, and by name all families, those about the store itself included."""
    found = assembled(scrape.result(), scrape.about(), {}, None)
    return scrape.members(), {one.family.name: one.metric() for one in found}


def _trouble(found: Status) -> list[str]:
    """Return the messages that an operator should read."""
    trouble = [f"{one.used:,} of {one.of:,} {name} are in use" for name, one in found.limits.items() if one.is_near]
    if found.free_bytes < FREE_BYTES:
        trouble.append(f"the disk has {found.free_bytes / 2**20:.1f} MiB left")
    if found.pid_clashes:
        trouble.append(f"{found.pid_clashes} living processes have the name (pid) of another")
    if found.files["wal"] > wal.wal_limit(found.store.path):
        size = f"{found.files['wal'] / 2**20:.0f} MiB"
        trouble.append(f"the WAL takes {size}: a reader keeps it from starting over, or nobody can checkpoint it")
    return trouble + found.silent


def versions(look: Look) -> dict[str, str]:
    """Return the versions of this command's parts, which may differ from the app's, and of the store's schema."""
    return {
        "sqlmetrics": __version__,
        "schema": str(look.rows("PRAGMA user_version")[0][0]),
        "SQLite": ".".join(map(str, wal.version())),
        "apsw": apsw.apsw_version(),
        "Python": platform.python_version(),
    }


def _by_label(families: dict[str, Metric], name: str) -> dict[str, float]:
    """Return the values of a family with at most one label, by the label's value."""
    samples = families[name].samples if name in families else []
    return {next(iter(one.labels.values()), ""): one.value for one in samples}


def _work(families: dict[str, Metric], name: str) -> Work:
    family = f"sqlmetrics_{name}_seconds"
    found = {one.name: one.value for one in families[family].samples} if family in families else {}
    return Work(found.get(f"{family}_count", 0.0), found.get(f"{family}_sum", 0.0))


def _not_flushing(look: Look, known: list[Process]) -> list[str]:
    """Return messages about living processes that count, but write nothing to rows, though they had time to."""
    suspects, until = _suspects(known), time.monotonic() + 1.0 + 1.5 * min(settings().flush_interval, 10.0)
    while suspects and time.monotonic() < until:
        time.sleep(_LOOKS)
        now = _suspects(processes(look.members()))
        suspects = {who: one for who, one in now.items() if who in suspects and suspects[who].flushed == one.flushed}
    return [_silence(one) for one in suspects.values()]


def _suspects(known: Iterable[Process]) -> dict[tuple[str, int], Process]:
    latest = time.time() - _SUSPICIOUS
    found = [one for one in known if one.is_alive and one.unflushed and (one.flushed or one.started or 0.0) < latest]
    return {(one.pid, one.os_pid): one for one in found}


def _silence(process: Process) -> str:
    """What is said of a process that has counted and does not flush."""
    name = process.pid if process.pid == str(process.os_pid) else f"{process.pid} (pid {process.os_pid})"
    why = " is stopped, so it does not flush" if process.is_stopped else " counts, but does not flush"
    return f"process {name}{why}"
