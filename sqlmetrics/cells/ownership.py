"""Checks who owns the files: in a folder that everybody may write to, another user may have put them there.

Only such folders (``/dev/shm``, ``/tmp``) are checked. Where others may not write, they cannot plant anything.
"""

from __future__ import annotations

import os
import stat

from ..errors import ForeignFileError
from .descriptors import open_file

SUFFIXES = ("", "-wal", "-shm", "-cells")
"""The suffixes of a store's four files."""
JOURNAL_SUFFIX = "-journal"
"""The suffix of a file that SQLite obeys if it exists, though a store never has one; see `rows.undisturbed`."""

_groups: dict[str, int] = {}


def share(path: str, gid: int) -> None:
    """Accept files of this group for the store at `path`, which is shared with the group's members."""
    _groups[path] = gid


def check(path: str, *, looking: bool = False) -> None:
    """Raise ForeignFileError if one of the store's files may be another user's; root's files are accepted.

    looking: whether the caller only reads; then files that its group may read are accepted, too.
    """
    if _is_open_to_all(path):
        for suffix in SUFFIXES:
            _check_name(path + suffix, looking=looking)


def check_file(name: str) -> None:
    """Raise ForeignFileError if there is a file of this name that may be another user's."""
    if _is_open_to_all(name):
        _check_name(name)


def open_checked(name: str, flags: int, *, looking: bool = False) -> int:
    """Open a file of the store; does not wait at a fifo. Raises OSError, or ForeignFileError as `check` does.

    It checks the open file, as another file may take a name at any moment.
    """
    fd = open_file(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if _is_open_to_all(name) and not (looking and _is_shared_with_me(status)):
            _check(name, status)
    except BaseException:
        os.close(fd)
        raise
    return fd


def planted_journal(path: str) -> str:
    """Return what is wrong with the file that SQLite would take for the store's rollback journal; '' if nothing is.

    This is checked in any folder, because even a fifo of one's own would stop SQLite.
    """
    name = path + JOURNAL_SUFFIX
    try:
        wrong = _what_is_wrong(name, os.stat(name, follow_symlinks=False))
    except OSError:
        return ""
    return wrong and f"{name} {wrong}; it is no file of the store's, delete it"


def _is_open_to_all(name: str) -> bool:
    """Whether anybody may write to the folder of a file."""
    try:
        return bool(os.stat(os.path.dirname(name)).st_mode & stat.S_IWOTH)
    except OSError:
        return False  # then nothing can be opened, and the open tells why


def _check_name(name: str, *, looking: bool = False) -> None:
    try:
        status = os.stat(name, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not (looking and _is_shared_with_me(status)):
        _check(name, status)


def _is_shared_with_me(status: os.stat_result) -> bool:
    """Whether a plain file may be read as a member of its group."""
    is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return is_plain and bool(status.st_mode & stat.S_IRGRP) and status.st_gid in (os.getegid(), *os.getgroups())


def _check(name: str, status: os.stat_result) -> None:
    if wrong := _what_is_wrong(name, status):
        is_foreign = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        ways_out = _ways_into(status) if is_foreign else "delete it, or use a folder of your own"
        raise ForeignFileError(f"{name} {wrong}, in a folder that anybody may write to; {ways_out}")


def _ways_into(status: os.stat_result) -> str:
    return (
        "to count in that user's store, share it with a group (group=, SQLMETRICS_GROUP, mode 0660) that both are in;"
        f" to look at it, be in that group (mode 0640 is enough), be that user (sudo -u '#{status.st_uid}'), or mount"
        " its folder read-only elsewhere; for a store of your own, use a folder of your own"
    )


def _what_is_wrong(name: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "is a symlink"
    if not stat.S_ISREG(status.st_mode):
        return f"is no plain file ({stat.filemode(status.st_mode)})"
    if status.st_nlink > 1:
        return "is a hard link to a file that has another name"
    if status.st_uid not in (0, os.geteuid()) and status.st_gid != _group_of(name):
        return f"belongs to uid {status.st_uid} (this is uid {os.geteuid()})"
    return ""


def _group_of(name: str) -> int:
    """Return the group that the store of this file is shared with; -1 if there is none."""
    return next((gid for path, gid in _groups.copy().items() if name.startswith(path)), -1)
