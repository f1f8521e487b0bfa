"""Descriptors of mapped files, and a way back to a file whose descriptor other code has closed.

Daemons close all descriptors that they inherit. By then the number may belong to another file, which must not be locked
or enlarged.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import stat
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any

from ..errors import InstallError

NOWHERE = 2**31 - 1
"""A number that no descriptor has: a call with it raises OSError, and never locks or enlarges a file of others."""


_LOWEST = 3


def open_file(name: str, flags: int, mode: int = 0o777) -> int:
    """`os.open`, but never as standard input, output or error, which a daemon may have closed. Raises OSError.

    The interpreter, and many a library, write to descriptor 2 whatever it is by now. SQLite does the same with its
    own files (https://www.sqlite.org/howtocorrupt.html, 1.1).
    """
    fd = os.open(name, flags, mode)
    if fd >= _LOWEST:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        os.close(fd)


def status_of(file: str | int) -> os.stat_result | None:
    """Return the status of a name (links not followed) or a descriptor; None if there is none. Raises OSError."""
    try:
        return os.fstat(file) if isinstance(file, int) else os.stat(file, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBADF):
            raise
        return None


def identity_of(status: os.stat_result) -> tuple[int, int]:
    """Return the device and inode of a file, by which it differs from all others."""
    return status.st_dev, status.st_ino


def kept(fd: int, path: str, identity: tuple[int, int], flags: int) -> int:
    """Return `fd` if it still belongs to the file with this identity; else open the file at `path`, if it is that one.

    If `path` leads to another file or to nothing, the null device takes its place until the flusher notices that the
    store was replaced: it has no room, and nobody locks it. `fd` is not closed, because other code may own that number
    by now. Returns NOWHERE if nothing can be opened. Raises OSError if the status of `fd` cannot be read.
    """
    found = status_of(fd)
    if found is not None and identity_of(found) == identity:
        return fd
    with contextlib.suppress(OSError):
        there = status_of(path)
        if there is not None and identity_of(there) == identity:
            return open_file(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
        if found is not None and stat.S_ISCHR(found.st_mode):
            return fd
        return open_file(os.devnull, flags)
    return NOWHERE


class Mapped:
    """A file that this interpreter has mapped. fd: its descriptor; map: the mapping; own_slots: see `CellsFile`.

    Every copy of this package in an interpreter uses it, so other versions rely on these names.
    """

    def __init__(self, fd: int, map_: mmap.mmap):
        self.fd = fd
        self.map = map_
        self.own_slots: set[int] = set()
        self.identity = identity_of(os.fstat(fd))
        self.others: list[Mapped] = []
        """Other mappings of the same file. They are never closed, because that would release its locks."""

    def __del__(self, status: Any = os.fstat, close: Any = os.close) -> None:
        """Close the descriptor at the interpreter's end, or the process's next interpreter would find it open.

        The names of this module are gone by then, so the functions are arguments.
        """
        try:
            found = status(self.fd)
            if (found.st_dev, found.st_ino) == self.identity:
                close(self.fd)
        except (OSError, AttributeError):  # the app has closed it, or `__init__` has failed
            pass


_TABLE = "_files_mapped_by_sqlmetrics"


def _table() -> dict[str, Any]:
    return sys.modules.setdefault(_TABLE, types.ModuleType(_TABLE)).__dict__


def mapped() -> dict[tuple[int, int], Mapped]:
    """Return all files that this interpreter has mapped, by identity.

    The table lies outside of this package, so that a second copy of the package finds what the first has mapped: one
    that is vendored, or that was imported again after somebody had taken the modules out of `sys.modules`.
    """
    files: dict[tuple[int, int], Mapped] = _table().setdefault("files", {})
    return files


def note(new: Mapped) -> Mapped:
    """Note a mapping, and return the one to use: another thread may have been faster."""
    found = mapped().setdefault(new.identity, _forgotten().pop(new.identity, new))
    if found is not new and memoryview(found.map).readonly and not memoryview(new.map).readonly:
        mapped()[new.identity], found, new = new, new, found
    if found is not new:
        found.others.append(new)
    return found


def forget(found: Mapped) -> bool:
    """Forget a mapping, so that it ends with its last user; False if it has to stay, because of locks on the file.

    It stays if this process writes to the file, or has mapped it in another way, too: see `cellsfile`.
    """
    is_read_only = memoryview(found.map).readonly and not found.own_slots and not found.others
    if not is_read_only or found.identity in _begun() or mapped().get(found.identity) is not found:
        return False
    _forgotten()[found.identity] = mapped().pop(found.identity)
    return True


def _forgotten() -> weakref.WeakValueDictionary[tuple[int, int], Mapped]:
    """Return the mappings that are forgotten but still used: their descriptors are this interpreter's."""
    forgotten: weakref.WeakValueDictionary[tuple[int, int], Mapped] = _table().setdefault(
        "forgotten", weakref.WeakValueDictionary()
    )
    return forgotten


def _begun() -> list[tuple[int, int]]:
    """Return the identities of files that are being opened: by other threads, or by threads from before a fork."""
    begun: list[tuple[int, int]] = _table().setdefault("begun", [])
    return begun


@contextlib.contextmanager
def opening(path: str, identity: tuple[int, int]) -> Iterator[None]:
    """Open and `note` a file within. Raises InstallError if another interpreter of this process has it open.

    Record locks belong to the whole process. So each of two interpreters would take the other one for dead and settle
    it, both would take the same cells, and the one that ends first would release the locks of both.
    """
    begun = _begun()
    if not any(identity in known for known in (begun, mapped(), _forgotten())):
        _refuse_if_open(path, identity)
    begun.append(identity)
    try:
        yield
    finally:
        begun.remove(identity)


def _refuse_if_open(path: str, identity: tuple[int, int]) -> None:
    """Raise InstallError if the file is open here. Inheritable descriptors don't count, they are a launcher's."""
    if any(_identity_of_private(fd) == identity for fd in _descriptors()):
        raise InstallError(
            f"{path} is in use by another Python interpreter of this process (pid {os.getpid()}), or by another copy"
            " of sqlmetrics in it; run their code in one interpreter (mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
            " or in a process each (mod_wsgi: a WSGIDaemonProcess each), or give each of them a store of its own"
        )


def _descriptors() -> Iterator[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):  # the second is that of macOS
        with contextlib.suppress(OSError):
            yield from map(int, os.listdir(folder))
            return
    yield from range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65_536))


def _identity_of_private(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
        return identity_of(status) if fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC else None
    except OSError:  # closed meanwhile
        return None


class MappedFile:
    """A file that stays open and mapped as long as the process lives, or until `forget` if it is only read."""

    def __init__(self, mapped: Mapped, path: str):
        self._mapped = mapped
        self.path = path
        self.identity = mapped.identity
        self.bytes = memoryview(mapped.map)
        self.writable = not self.bytes.readonly
        self.flags = (os.O_RDWR if self.writable else os.O_RDONLY) | os.O_CLOEXEC

    def forget(self) -> bool:
        """See `forget`."""
        return forget(self._mapped)

    def uses_mapping(self, mapping: Mapped) -> bool:
        """Return whether this is the mapping that it uses."""
        return self._mapped is mapping

    @property
    def fd(self) -> int:
        """The descriptor."""
        return self._mapped.fd

    def view(self, start: int, end: int, kind: str) -> Any:
        """Return the bytes from `start` to `end` as an array of this kind of `struct`."""
        return self.bytes[start:end].cast(kind)  # type: ignore[call-overload]

    def stay_open(self) -> None:
        """Open the file again if its descriptor was closed, see `kept`. Raises OSError."""
        self._mapped.fd = kept(self.fd, self.path, self.identity, self.flags)
