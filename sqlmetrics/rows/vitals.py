"""How a store is at the moment of a scrape, as metric families: who is in it, how large it is, what limits are near."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping

import apsw

from ..cells import layout
from ..cells.cellsfile import CellsFile
from ..cells.trust import SUFFIXES
from ..scrape.plan import Family, Line
from ..scrape.shown import Shown
from ..scrape.tables import Living
from . import behind

TABLES = ("family", "series", "process", "sample", "retired", "kept", "orphan", "exemplar")
FILES = dict(zip(("database", "wal", "shm", "cells"), SUFFIXES, strict=True))
_BEHIND = "Since when living processes have had something that is not in rows; 0 if they have not."
_ANNOUNCED = "What living processes have announced, new children above all, and what is not in rows yet."
BLOCK = 512
"""Bytes of st_blocks, whatever the file system's own blocks are (POSIX stat.h)."""


def families(connection: apsw.Connection, file: CellsFile, processes: Iterable[Living]) -> list[Shown]:
    """The families, all of them gauges; within a read transaction. processes: those that are not settled."""
    living = Counter(process.pid for process in processes if process.alive)
    ended = sum(not process.alive for process in processes)
    remembered = _count(connection, "SELECT count(*) FROM process WHERE died IS NOT NULL")
    states = {"live": living.total(), "ended": ended, "remembered": remembered}
    rows = {table: _count(connection, f"SELECT count(*) FROM {table}") for table in TABLES}  # noqa: S608
    lag = behind.lag(connection, file)
    return [
        _gauge("processes", "Living; ended, but not folded yet; remembered for their `all` gauges.", "state", states),
        _gauge("pid_clashes", "Living processes that have the pid of another.", "", {"": living.total() - len(living)}),
        _gauge("rows", "Rows of each table.", "table", rows),
        _gauge("bytes", "What each file takes on the disk.", "file", _bytes(connection.filename)),
        _gauge("free_bytes", "Room on the disk of the store for its user.", "", {"": _free(connection.filename)}),
        _gauge("used_ratio", "What is taken of each limit of the cells file, 0 to 1.", "limit", _used(file)),
        _gauge("rows_behind_seconds", _BEHIND, "", {"": lag.seconds}),
        _gauge("journal_bytes_behind", _ANNOUNCED, "", {"": lag.journal_bytes}),
    ]


def _gauge(name: str, help_: str, label: str, values: Mapping[str, float]) -> Shown:
    name = f"sqlmetrics_{name}"
    lines = [Line(name, {label: key} if label else {}) for key in values]
    return Shown(Family(name, "gauge", "", help_, 0), lines, [float(value) for value in values.values()])


def _count(connection: apsw.Connection, sql: str) -> int:
    return int(str(connection.execute(sql).get))


def _bytes(path: str) -> dict[str, int]:
    return {name: _blocks(path + suffix) * BLOCK for name, suffix in FILES.items()}


def _blocks(name: str) -> int:
    try:
        return os.stat(name).st_blocks
    except OSError:
        return 0


def _free(path: str) -> int:
    found = os.statvfs(os.path.dirname(path))
    return found.f_bavail * found.f_frsize


def _used(file: CellsFile) -> dict[str, float]:
    return {
        "processes": len(file.live_slots()) / layout.SLOTS,
        "cell blocks": file.blocks.used() / layout.CELL_BLOCKS,
        "journal extents": file.extents.used() / layout.EXTENTS,
    }
