"""Limits the length of the WAL: by checkpoints, and by writing less while a reader keeps these from succeeding.

It also tells whether this SQLite has the WAL-reset bug.
"""

from __future__ import annotations

import contextlib
import os

import apsw

from ..errors import StoreError
from . import database

WAL_LIMIT = 64 * 1024 * 1024
"""Bytes of WAL above which flushes write new children and folds only, and above twice that nothing, until a checkpoint
succeeds: a reader that does not end its transaction keeps SQLite from using the WAL again from its beginning."""

_SMALLEST = 256 * 1024
"""A WAL of so many bytes is never too long, however small the disk is."""


class WalTooLongError(StoreError):
    """Nothing is written: a reader keeps the WAL from being checkpointed. Cells and journals hold what is new."""


def refuse_long(connection: apsw.Connection) -> None:
    """Raise WalTooLongError if nothing may be written until a checkpoint succeeds."""
    path = connection.filename
    limit = wal_limit(path)
    if wal_bytes(path) > limit:  # a flush that failed may have filled the disk with it
        checkpoint(connection)
        if wal_bytes(path) > 2 * limit:
            raise WalTooLongError(f"{path}-wal is longer than {2 * limit >> 20} MiB")


def wal_bytes(path: str) -> int:
    """Return the size of a store's WAL file, 0 if there is none."""
    try:
        return os.stat(path + "-wal").st_size
    except OSError:
        return 0


def wal_limit(path: str) -> int:
    """Return `WAL_LIMIT`, or less on a small disk: half of it stays free, because a checkpoint needs room.

    Otherwise a WAL that has filled the disk, while a reader kept it from starting over, could never be shortened.
    """
    found = os.statvfs(os.path.dirname(path))
    room = found.f_bavail * found.f_frsize + wal_bytes(path)
    return min(WAL_LIMIT, max(room // 4, _SMALLEST))


def checkpoint(connection: apsw.Connection) -> None:
    """Checkpoint a WAL that is long enough, outside of a transaction; leave it if somebody reads or writes."""
    path = connection.filename
    size = wal_bytes(path)
    with contextlib.suppress(apsw.BusyError):
        if size > wal_limit(path):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        elif size > database.WAL_BYTES:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


_FIXED_BRANCHES = {(3, 44): 6, (3, 50): 7}
"""The first release with the fix, by older branches."""
_FIXED = (3, 51, 3)


def is_fixed(version: tuple[int, int, int]) -> bool:
    """Whether this version of SQLite has the fix."""
    first = _FIXED_BRANCHES.get(version[:2])
    return version >= _FIXED or (first is not None and version[2] >= first)


def version() -> tuple[int, int, int]:
    """The version of the SQLite that apsw uses."""
    major, minor, patch = (int(part) for part in apsw.sqlite_lib_version().split(".")[:3])
    return major, minor, patch


def warning(found: tuple[int, int, int] | None = None) -> str:
    """Return the warning about a SQLite with the bug, '' if it has the fix."""
    found = found or version()
    if is_fixed(found):
        return ""
    return (
        f"apsw uses SQLite {'.'.join(map(str, found))}, which can lose committed rows where two processes write at one"
        " instant (https://www.sqlite.org/wal.html, the WAL-reset bug); SQLite 3.51.3 has the fix: install apsw as a"
        " wheel, or build it against a newer SQLite"
    )
