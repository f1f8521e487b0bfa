"""The lock under which one process at a time makes a store's files, or makes them anew.

The lock is on a file of its own, `LOCK_SUFFIX`, which exists only meanwhile. It is not on the folder, because any user
who may read a folder may lock it, for ever. And no process waits for ever for one that was stopped in the middle.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

import apsw

from .. import config
from ..cells import ownership
from ..cells.descriptors import identity_of, open_file
from ..errors import PathError
from ..process import fork, native
from .database import file_identity

LOCK_SUFFIX = "-lock"
_LOOK_SECONDS = 0.005

_held: set[int] = set()
"""Descriptors of lock files that this process has locked, or waits for."""


class HeldUpError(apsw.BusyError):
    """Another process is making the files, or was stopped in the middle of it. Try again later."""


@contextlib.contextmanager
def making(path: str, settings: config.Settings, seconds: float) -> Iterator[None]:
    """Be the one process that makes files of the store at `path`; wait so many seconds for another one.

    If there is a lock file already, the kernel tells whether it is in use, or was left by a crash.
    Raises HeldUpError, ForeignFileError (another user's file is in the lock's place), PathError or OSError.
    """
    name = path + LOCK_SUFFIX
    fd = _lock(name, settings, seconds)
    try:
        yield
    finally:
        if _is_at(fd, name):  # removed with the lock held, so that a process that waits sees that it is gone
            os.unlink(name)
        _close(fd)


def _lock(name: str, settings: config.Settings, seconds: float) -> int:
    end = time.monotonic() + seconds
    while True:
        fd = _open(name, settings)
        if fd is not None:
            _held.add(fd)
            is_locked = False
            try:
                is_locked = _wait_for(fd, name, end)
            finally:  # even if another thread forks meanwhile
                if not is_locked:
                    _close(fd)
            if is_locked:
                return fd
        if time.monotonic() >= end:
            raise HeldUpError(f"{name} is locked: another process has been making the files for {seconds:g} seconds")


def _wait_for(fd: int, name: str, end: float) -> bool:
    """Lock the file; False if it is not the one at the name any more, or time is up."""
    while _is_at(fd, name):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fork.give_way()
            if time.monotonic() >= end:
                break
            native.sleep(_LOOK_SECONDS)
        else:
            return _is_at(fd, name)
    return False


def _open(name: str, settings: config.Settings) -> int | None:
    """Return a descriptor of the lock file, which is made if needed; None if it has come or gone just now."""
    ownership.check_file(name)
    with contextlib.suppress(FileNotFoundError):
        return ownership.open_checked(name, os.O_RDWR)
    with contextlib.suppress(FileExistsError):
        return make_file(name, settings.mode | 0o600, settings)
    return None


def make_file(name: str, mode: int, settings: config.Settings) -> int:
    """Make a file of the store, with this mode and the configured group, and return a descriptor of it.

    Raises PathError (mode or group cannot be set) or OSError, FileExistsError if there is one.
    """
    fd = open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        if settings.gid() >= 0:
            os.fchown(fd, -1, settings.gid())
    except OSError as error:
        os.close(fd)
        os.unlink(name)
        raise PathError(f"{name}: mode {mode:o} and group {settings.group} cannot be set: {error}") from error
    return fd


def _close(fd: int) -> None:
    _held.discard(fd)
    os.close(fd)


def _is_at(fd: int, name: str) -> bool:
    return identity_of(os.fstat(fd)) == file_identity(name)


class _Locks(fork.ForkAware):
    """Closes lock files in a forked child, which would hold the lock even after its parent has ended."""

    def after_fork_in_child(self) -> None:
        """Close all."""
        while _held:
            with contextlib.suppress(OSError):
                os.close(_held.pop())


_locks = _Locks()
fork.register(_locks)
