"""What a descriptor or a name stands for, and a way back to a file whose descriptor somebody else has closed.

Daemons close all that they inherit. The number may be another file's by then, which must not be locked or enlarged.
"""

from __future__ import annotations

import errno
import os
import stat


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
    """Return `fd` if it is still that of the file with this identity, else one of the file at `path`. Raises OSError.

    Where that is another file too, the null device stands in, until it is noticed that the store was replaced: there
    is no room in it, and nobody has a lock on it. No descriptor is closed: its number's owner would be surprised.
    """
    found = status_of(fd)
    if found is not None and identity_of(found) == identity:
        return fd
    there = status_of(path)
    if there is not None and identity_of(there) == identity:
        return os.open(path, flags | os.O_NOFOLLOW)
    if found is not None and stat.S_ISCHR(found.st_mode):
        return fd
    return os.open(os.devnull, flags)
