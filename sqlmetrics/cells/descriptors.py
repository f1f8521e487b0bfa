"""What a descriptor or a name stands for, and a way back to a file whose descriptor somebody else has closed.

Daemons close all that they inherit. The number may be another file's by then, which must not be locked or enlarged.
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
"""The number of no descriptor: what needs one raises an OSError, and never locks or enlarges a file of others."""


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
    """Of a name (not followed) or a descriptor; None if there is no such thing. Raises OSError."""
    try:
        return os.fstat(file) if isinstance(file, int) else os.stat(file, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBADF):
            raise
        return None


def identity_of(status: os.stat_result) -> tuple[int, int]:
    """What tells a file from others: device and inode."""
    return status.st_dev, status.st_ino


def kept(fd: int, path: str, identity: tuple[int, int], flags: int) -> int:
    """Return `fd` if it is still that of the file with this identity, else one of the file at `path`.

    Raises OSError where `fd` cannot be looked at. Returns NOWHERE where it is lost and no other can be had.

    Where that is another file too, the null device stands in, until it is noticed that the store was replaced: there
    is no room in it, and nobody has a lock on it. No descriptor is closed: its number's owner would be surprised.
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

    It is used by every copy of this package that the interpreter loads, so other versions rely on these names.
    """

    def __init__(self, fd: int, map_: mmap.mmap):
        self.fd = fd
        self.map = map_
        self.own_slots: set[int] = set()
        self.identity = identity_of(os.fstat(fd))
        self.others: list[Mapped] = []
        """Of the same file, and never closed: that would release its locks."""

    def __del__(self, status: Any = os.fstat, close: Any = os.close) -> None:
        """At the interpreter's end: a number does not close itself, and the next interpreter would find it open.

        The names of this module are gone by then, so what is needed comes as arguments.
        """
        try:
            found = status(self.fd)
            if (found.st_dev, found.st_ino) == self.identity:
                close(self.fd)
        except (OSError, AttributeError):  # the app has closed it, or it could not be looked at when this was made
            pass


_TABLE = "_files_mapped_by_sqlmetrics"


def _table() -> dict[str, Any]:
    return sys.modules.setdefault(_TABLE, types.ModuleType(_TABLE)).__dict__


def mapped() -> dict[tuple[int, int], Mapped]:
    """All files that this interpreter has mapped, by their identities.

    They are noted beside the package, so that a copy of it finds what another has mapped: one that is vendored, or
    that was imported anew after somebody had taken the modules out of `sys.modules`.
    """
    files: dict[tuple[int, int], Mapped] = _table().setdefault("files", {})
    return files


def note(new: Mapped) -> Mapped:
    """Note a mapping, and return the one to be used: another thread may have been faster."""
    found = mapped().setdefault(new.identity, _forgotten().pop(new.identity, new))
    if found is not new and memoryview(found.map).readonly and not memoryview(new.map).readonly:
        mapped()[new.identity], found, new = new, new, found
    if found is not new:
        found.others.append(new)
    return found


def forget(found: Mapped) -> bool:
    """Let a mapping end with the last that uses it, and say whether it will; not where a lock may hang on the file.

    That is where this process writes to it, or maps it in another way, too: see `cellsfile`.
    """
    is_read_only = memoryview(found.map).readonly and not found.own_slots and not found.others
    if not is_read_only or found.identity in _begun() or mapped().get(found.identity) is not found:
        return False
    _forgotten()[found.identity] = mapped().pop(found.identity)
    return True


def _forgotten() -> weakref.WeakValueDictionary[tuple[int, int], Mapped]:
    """What is forgotten and still used: its descriptors are this interpreter's, and the file may come back."""
    forgotten: weakref.WeakValueDictionary[tuple[int, int], Mapped] = _table().setdefault(
        "forgotten", weakref.WeakValueDictionary()
    )
    return forgotten


def _begun() -> list[tuple[int, int]]:
    """What is being opened: by other threads, or before a fork."""
    begun: list[tuple[int, int]] = _table().setdefault("begun", [])
    return begun


@contextlib.contextmanager
def opening(path: str, identity: tuple[int, int]) -> Iterator[None]:
    """Open and `note` a file within. Raises InstallError if another interpreter of this process has it open.

    The kernel's record locks are the process's. So of two interpreters each would take the other for dead and settle
    it, both would take the same cells, and the first that ends would release the locks of both.
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
    """A descriptor that is inheritable is none of an interpreter's: a launcher hands it on, see `launch`."""
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
    """A file that is open and mapped for as long as the process lives, or until it was only read and is forgotten."""

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

    @property
    def fd(self) -> int:
        """The descriptor."""
        return self._mapped.fd

    def view(self, start: int, end: int, kind: str) -> Any:
        """The bytes from `start` to `end` as an array of the struct kind given."""
        return self.bytes[start:end].cast(kind)  # type: ignore[call-overload]

    def stay_open(self) -> None:
        """Open the file again if its descriptor was closed, see `kept`. Raises OSError."""
        self._mapped.fd = kept(self.fd, self.path, self.identity, self.flags)
