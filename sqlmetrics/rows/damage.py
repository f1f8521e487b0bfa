"""Tells which errors mean that files of a store are damaged, and not that they are busy, full or forbidden."""

from __future__ import annotations

import struct

import apsw

from ..errors import DamagedError, SQLMetricsError
from .database import NoDatabaseError

NONSENSE = (LookupError, ValueError, TypeError, struct.error)
"""What texts and numbers raise that make no sense; UnicodeDecodeError is a ValueError."""


def is_damage(error: BaseException) -> bool:
    """Whether an error means that files of ours are damaged; ForeignFileError means that they are not ours."""
    if isinstance(error, SQLMetricsError):
        return isinstance(error, (DamagedError, NoDatabaseError))
    if isinstance(error, apsw.IOError):
        return getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_READ)
    return isinstance(error, NONSENSE) or (isinstance(error, apsw.Error) and not isinstance(error, _PASSING))


def damage_of(error: Exception, path: str) -> str:
    """Return in a few words what is wrong with a file, without its path."""
    if isinstance(error, NoDatabaseError):
        return "it is no SQLite database any more"
    return str(error).removeprefix(f"{path}: ") or type(error).__name__


def unreadable(error: Exception, path: str) -> DamagedError:
    """Return the error for someone who only reads."""
    return DamagedError(f"{path}: cannot be read ({damage_of(error, path)}); a process that counts mends it")


_PASSING = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.CantOpenError,
    apsw.InterruptError,
    apsw.NoMemError,
    apsw.ThreadingViolationError,
    apsw.ConnectionClosedError,
)
