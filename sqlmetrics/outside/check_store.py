"""The checks of a store itself: its content, versions, limits, processes, and the holders of its locks."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import apsw

from ..cells import locks
from ..cells.descriptors import identity_of
from ..errors import SQLMetricsError
from ..rows import checkup, files, onlooking, renew, schema, wal
from ..rows.damage import damage_of, is_damage
from ..rows.database import WAL_BYTES
from . import state
from .findings import ERROR, OK, WARNING, Finding
from .look import Look
from .place import Place
from .state import Status
from .usage import usage
from .words import printable, size

_READ_MARKS = range(120 + 3, 120 + 8)
"""The bytes of ``-shm`` that readers lock (https://www.sqlite.org/walformat.html#locks)."""
_WRITE_LOCK = range(120, 121)
"""The byte of ``-shm`` that the process locks which writes."""
_HELD_SECONDS = 1.0


def findings(place: Place) -> Iterator[Finding]:
    """Yield all findings. What cannot be checked is an error, too."""
    yield reader_of_wal(place.path)
    yield writer(place.path)
    yield integrity(place)
    try:
        yield version(place)
        yield from _of_status(state.status(Look(place)))
    except (SQLMetricsError, apsw.Error, OSError) as error:
        text = damage_of(error, place.path) if is_damage(error) else str(error)
        yield Finding("processes", ERROR, text, "see the other findings")


def integrity(place: Place) -> Finding:
    """Check that database, cells and journals are sound and fit together."""
    begun = time.perf_counter()
    try:
        with contextlib.closing(onlooking.connect(place.path)) as connection:
            file = files.open_existing(connection, place.path)
            renew.check_wal(connection, place.path)
            checkup.check_rows(connection)
            checkup.check(connection, file)
    except (SQLMetricsError, apsw.Error, OSError, UnicodeDecodeError) as error:
        if not is_damage(error):
            return Finding("integrity", ERROR, f"cannot be checked: {error}", "")
        fix = "restart a process of the app, or let one that lives count: it makes the files anew from what can be read"
        return Finding("integrity", ERROR, damage_of(error, place.path), fix)
    return Finding(
        "integrity", OK, f"every page, row, journal and cell goes together ({time.perf_counter() - begun:.1f} s)"
    )


def version(place: Place) -> Finding:
    """Check that the app and this command have the same version, as far as the store tells."""
    with contextlib.closing(onlooking.connect(place.path)) as connection:
        found = schema.check(connection, place.path)
    known = schema.schema_version()
    text = f"the store has schema {found}, this command knows {known}"
    if found == known:
        return Finding("version", OK, text)
    fix = "run the command of the app's own environment" if found < known else "upgrade sqlmetrics here"
    return Finding("version", WARNING, text, fix)


def _of_status(found: Status) -> Iterator[Finding]:
    alive, dead = len(found.alive()), sum(one.state == "dead" for one in found.processes)
    text = f"{alive} alive, {dead} dead and not settled yet"
    yield Finding("processes", OK if alive else WARNING, text, "" if alive else "start the app, or name its store")
    yield from limits(found)
    if found.pid_clashes:
        fix = "give each a name of its own: process_identifier, SQLMETRICS_PROCESS_IDENTIFIER"
        yield Finding("names", WARNING, f"{found.pid_clashes} living processes have the name of another", fix)
    errors = ", ".join(f"{cause} {count:.0f}" for cause, count in found.errors.items())
    if errors:
        fix = "see the app's log (logger sqlmetrics), and docs/reference/errors.md for each cause"
        yield Finding("errors", WARNING, f"since the store was made: {errors}", fix)
    if found.silent:
        fix = "free the write lock, make room on the disk, or continue it (kill -CONT). Scrapes are exact meanwhile"
        yield Finding("rows", WARNING, "; ".join(found.silent), fix)


def limits(found: Status) -> Iterator[Finding]:
    """Check how much of the limits of the cells file is used."""
    fixes = {
        "processes": "stop processes that need no metrics, or give groups of them stores of their own",
        "cell blocks": "sqlmetrics cardinality names the label that has too many values; max_series= limits them",
        "journal extents": "see why flushes do not bring journals to rows: a full disk, or somebody's write lock",
    }
    for name, one in found.limits.items():
        level = ERROR if one.is_near else WARNING if one.used > one.of / 2 else OK
        yield Finding("limits", level, f"{one.used:,} of {one.of:,} {name}", fixes[name] if level != OK else "")


def reader_of_wal(path: str) -> Finding:
    """Check whether a reader keeps the WAL from starting over.

    A reader locks a read mark as long as its transaction lasts; scrapes do that for some milliseconds.
    """
    length = wal.wal_bytes(path)
    if length <= 2 * WAL_BYTES:
        return Finding("wal", OK, f"{size(length)} long")
    who = _steady_holders(path, _READ_MARKS)
    if not who:
        fix = "if it goes on to grow: does a process flush? sqlmetrics status"
        return Finding(
            "wal", WARNING if length > wal.wal_limit(path) else OK, f"{size(length)} long, no reader holds it", fix
        )
    fix = "end its transaction, or the process: an open sqlite3 shell, a backup, a dashboard"
    return Finding("wal", ERROR, f"{size(length)} long, and held by {who}", fix)


def writer(path: str) -> Finding:
    """Check whether a program keeps the write lock, so that nobody can flush; a flush has it for some milliseconds."""
    who = _steady_holders(path, _WRITE_LOCK)
    if not who:
        return Finding("write lock", OK, "no program keeps it")
    fix = "end its transaction, or the process, unless it is a worker that flushes very many new series"
    return Finding("write lock", WARNING, f"held by {who}: no other process can flush", fix)


def _steady_holders(path: str, lock_bytes: range) -> str:
    """Return a text with the processes that hold one of these locks for a whole second; '' if there is none."""
    until, holders = time.monotonic() + _HELD_SECONDS, _holders(path, lock_bytes)
    while holders and time.monotonic() < until:
        time.sleep(0.05)
        holders &= _holders(path, lock_bytes)
    return ", ".join(_described(pid) for pid in sorted(holders))


def _holders(path: str, lock_bytes: range) -> set[int]:
    """Return the pids of processes that hold one of these locks now; 0 stands for those not visible from here."""
    try:
        identity = identity_of(os.stat(path + "-shm", follow_symlinks=False))
        if identity not in _open:
            _open[identity] = os.open(path + "-shm", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return set()
    fd = _open[identity]
    return {locks.holder(fd, mark) for mark in lock_bytes if locks.is_locked(fd, mark)}


_open: dict[tuple[int, int], int] = {}
"""Descriptors of ``-shm`` by the file's identity. They stay open, because a close would drop this process's locks."""


def _described(pid: int) -> str:
    used = usage(pid) if pid else None
    return (
        f"pid {pid} ({printable(used.name)})" if used else f"pid {pid}" if pid else "a process of another pid namespace"
    )
