"""The families about a store itself, shown on request: its processes, sizes, work and errors."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping

import apsw

from ..cells import layout
from ..cells.cellsfile import CellsFile
from ..cells.figures import FAMILIES, Waiting
from ..cells.ownership import SUFFIXES
from ..rows import behind, deaths
from ..version import __version__
from .families import FamilySamples
from .plan import Family, Line
from .tables import Living

TABLES = ("family", "series", "instance", "cell_copy", "retired", "kept", "orphan", "exemplar")
FILES = dict(zip(("database", "wal", "shm", "cells"), SUFFIXES, strict=True))
BEHIND = "Since when living processes have had something that is not in rows; 0 if they have not."
ANNOUNCED = "What living processes have announced, new children above all, and what is not in rows yet."
STARTED = "Processes that have used the store since it was made or reset, each in each of its names."
ENDED = "Those of them that have ended, by what noticed it first."
SELECT_SERIES_BY_FAMILY = """
SELECT family.name, count(*)
  FROM series JOIN family ON family.id = series.family
 WHERE family.id NOT IN (SELECT id FROM figure)
 GROUP BY family.id
"""
BLOCK = 512
"""The bytes of a block in `st_blocks`, whatever the file system's own blocks are (POSIX stat.h)."""


def gauges(connection: apsw.Connection, file: CellsFile, processes: Iterable[Living]) -> list[FamilySamples]:
    """Return the families about the store's state, within a read transaction. processes: those not settled yet."""
    path = connection.filename
    living = Counter(process.pid for process in processes if process.alive)
    states = {
        "alive": living.total(),
        "dead": sum(not process.alive for process in processes),
        "remembered": _count(connection, "SELECT count(*) FROM instance WHERE died IS NOT NULL"),
    }
    rows = {table: _count(connection, f"SELECT count(*) FROM {table}") for table in TABLES}  # noqa: S608
    disk = os.statvfs(os.path.dirname(path))
    used = {
        "processes": len(file.held_slots()) / layout.SLOTS,
        "cell blocks": file.blocks.used() / layout.CELL_BLOCKS,
        "journal extents": file.extents.used() / layout.EXTENTS,
    }
    seconds, journal_bytes = behind.lag(connection, file)
    ended = deaths.counts(connection)
    return [
        _info(connection),
        _gauge("processes", "Alive; dead, but not settled yet; remembered for their `all` gauges.", states, "state"),
        _counter("processes_started", STARTED, {"": sum(ended.values()) + states["alive"] + states["dead"]}),
        _counter("processes_ended", ENDED, ended, "noticed"),
        _gauge("pid_clashes", "Living processes that have the pid of another.", living.total() - len(living)),
        _gauge("rows", "Rows of each table.", rows, "table"),
        _gauge("series", "Label sets, and what belongs to each, by family.", _series(connection), "family"),
        _gauge("bytes", "What each file takes on the disk.", {one: _bytes(path + FILES[one]) for one in FILES}, "file"),
        _gauge("free_bytes", "Room on the disk of the store for its user.", disk.f_bavail * disk.f_frsize),
        _gauge("used_ratio", "What is taken of each limit of the cells file, 0 to 1.", used, "limit"),
        _gauge("rows_behind_seconds", BEHIND, seconds),
        _gauge("journal_bytes_behind", ANNOUNCED, journal_bytes),
    ]


def _gauge(name: str, help_: str, values: float | Mapping[str, float], label: str = "") -> FamilySamples:
    of = values if isinstance(values, Mapping) else {"": values}
    return _shown(f"sqlmetrics_{name}", ("gauge", label, help_), {("", key): value for key, value in of.items()})


def _counter(name: str, help_: str, values: Mapping[str, float], label: str = "") -> FamilySamples:
    found = {("_total", key): value for key, value in values.items()}
    return _shown(f"sqlmetrics_{name}", ("counter", label, help_), found)


def _info(connection: apsw.Connection) -> FamilySamples:
    labels = {
        "version": __version__,
        "sqlite_version": apsw.sqlite_lib_version(),
        "schema": str(connection.pragma("user_version")),
    }
    family = Family("sqlmetrics", "info", "", "Versions of what answers this scrape.", None, registered=True)
    return FamilySamples(family, [Line("sqlmetrics_info", labels)], [1.0])


def _series(connection: apsw.Connection) -> dict[str, float]:
    """Return how many series each family has. A family has two types if two versions of an app differ."""
    found: Counter[str] = Counter()
    for name, count in connection.execute(SELECT_SERIES_BY_FAMILY).fetchall():
        found[str(name)] += int(str(count))
    return dict(found)


def _count(connection: apsw.Connection, sql: str) -> int:
    return int(str(connection.execute(sql).get))


def _bytes(name: str) -> int:
    try:
        return os.stat(name).st_blocks * BLOCK
    except OSError:
        return 0


def assembled(
    found: list[FamilySamples], about: list[FamilySamples], waiting: Waiting | None, names: Container[str] | None
) -> list[FamilySamples]:
    """Return the families of the app and, if wanted, those about the store itself.

    found: all families in the store. about: see `gauges`. waiting: this process's figures that are not in the store
    yet; None if families about the store are not wanted. names: the names of the wanted samples.
    """
    result = [shown for shown in found if shown.family.name not in FAMILIES]
    if waiting is None:
        return result
    ours = [*about, *_figures([shown for shown in found if shown.family.name in FAMILIES], waiting)]
    return result + [part for shown in ours if (part := shown.restricted(names)).lines]


def _figures(counted: list[FamilySamples], waiting: Waiting) -> list[FamilySamples]:
    values = defaultdict(float, waiting)
    for shown in counted:
        name = shown.family.name
        for line, value in zip(shown.lines, shown.values, strict=True):
            values[name, line.name.removeprefix(name), next(iter(line.labels.values()), "")] += value
    return [
        _shown(name, about, {figure[1:]: value for figure, value in values.items() if figure[0] == name})
        for name, about in FAMILIES.items()
    ]


def _shown(name: str, about: tuple[str, str, str], values: Mapping[tuple[str, str], float]) -> FamilySamples:
    """Return a family. about: as in `FAMILIES`. values: by the suffix of a sample's name, and the label's value."""
    type_, label, help_ = about
    lines = [Line(name + addition, {label: of} if label else {}) for addition, of in values]
    return FamilySamples(
        Family(name, type_, "", help_, None, registered=True), lines, list(map(float, values.values()))
    )
