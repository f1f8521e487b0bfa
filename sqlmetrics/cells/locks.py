"""Locks of the kernel (POSIX record locks), which tell the processes that are alive.

A forked child does not inherit them, the kernel drops them at any death, and neither pid reuse nor pid namespaces
matter. Their trap is that closing *any* descriptor of the file drops them all, so nothing in this package closes the
cells file (see `cellsfile`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys

# struct flock: Linux (and most others) begin with l_type, macOS and the BSDs with l_start.
_BSD = sys.platform == "darwin" or "bsd" in sys.platform
_FLOCK = struct.Struct("qqihh" if _BSD else "hhqqi")


def try_lock(fd: int, offset: int) -> bool:
    """Lock the byte at `offset` exclusively without waiting; False if another process holds it."""
    return _try(fd, offset, fcntl.LOCK_EX)


def try_share(fd: int, offset: int) -> bool:
    """Lock the byte at `offset` for sharing without waiting; False if another process holds it alone."""
    return _try(fd, offset, fcntl.LOCK_SH)


def _try(fd: int, offset: int, kind: int) -> bool:
    try:
        fcntl.lockf(fd, kind | fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):  # POSIX allows EAGAIN and EACCES
        return False
    _owed.discard((fd, offset))
    return True


_owed: set[tuple[int, int]] = set()
"""(descriptor, offset) of locks that could not be released: the kernel needs memory to split a range."""


def unlock(fd: int, offset: int) -> None:
    """Release the byte at `offset`, and those that could not be released before. Raises nothing; tries again later."""
    _owed.add((fd, offset))
    for one in _owed.copy():
        if _release(*one):
            _owed.discard(one)


def _release(fd: int, offset: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)
    except OSError as error:
        return error.errno == errno.EBADF  # there is no such lock any more
    return True


def share_by_file(fd: int, offset: int) -> bool:
    """Lock the byte for sharing as `try_share` does, but for the open file instead of for this process.

    Such a lock (``F_OFD_SETLK``, Linux) survives `exec` and forks, until the last process with this open file has
    ended; closing other descriptors does not end it. False if the system has no such locks, or refuses this one.
    """
    if _BSD or not hasattr(fcntl, "F_OFD_SETLK"):
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, offset, 1, 0))
    except OSError:
        return False
    return True


def is_locked(fd: int, offset: int) -> bool:
    """Whether *another* process holds a lock on the byte at `offset`; takes none itself.

    ``F_GETLK`` and not a trial lock: a trial would replace, then drop, a lock of this process.
    """
    return _asked(fd, offset)[0] != fcntl.F_UNLCK


def holder(fd: int, offset: int) -> int:
    """Return the pid of another process that holds a lock on the byte at `offset`, in this process's pid namespace.

    0 if no process holds one, or one that is not visible here, such as a process of another container.
    """
    kind, pid = _asked(fd, offset)
    return max(pid, 0) if kind != fcntl.F_UNLCK else 0


def _asked(fd: int, offset: int) -> tuple[int, int]:
    """Return (kind, pid) of the lock of another process."""
    if _BSD:
        question = _FLOCK.pack(offset, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
        _, _, pid, kind, _ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question)[: _FLOCK.size])
    else:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question)[: _FLOCK.size])
    return kind, pid
