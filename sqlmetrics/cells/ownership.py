"""Whose files these are: in a folder that everybody may write to, another user can have put them there.

Only such a folder (``/dev/shm``, ``/tmp``) is looked at: where others may not write, they cannot plant anything.
"""

from __future__ import annotations

import os
import stat

from ..errors import ForeignFileError

SUFFIXES = ("", "-wal", "-shm", "-cells")
"""What the names of a store's four files end in."""
JOURNAL_SUFFIX = "-journal"
"""Of the file that SQLite believes if it is there, though a store never has one; see `rows.unbelieved`."""

_groups: dict[str, int] = {}


def share(path: str, gid: int) -> None:
    """Accept files of this group, of the store at `path`: it is shared with it, so its members may make them."""
    _groups[path] = gid


def check(path: str) -> None:
    """Raise ForeignFileError if one of the store's files may be another user's: only root's and one's own are used."""
    if _is_open_to_all(path):
        for suffix in SUFFIXES:
            _check_name(path + suffix)


def check_file(name: str) -> None:
    """Raise ForeignFileError if there is something at the name of one file that may be another user's."""
    if _is_open_to_all(name):
        _check_name(name)


def check_opened(fd: int, name: str) -> None:
    """Raise ForeignFileError if the file that was opened at a name may be another user's; nothing can change that."""
    if _is_open_to_all(name):
        _check(name, os.fstat(fd))


def planted_journal(path: str) -> str:
    """What is wrong with the file that SQLite would take for the store's rollback journal, '' if nothing is.

    In any folder: one's own fifo would stop SQLite as well.
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
        return False  # nothing to be opened either; who opens it says why


def _check_name(name: str) -> None:
    try:
        status = os.stat(name, follow_symlinks=False)
    except FileNotFoundError:
        return
    _check(name, status)


def _check(name: str, status: os.stat_result) -> None:
    if wrong := _what_is_wrong(name, status):
        is_foreign = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        way_out = ", or share the store with group= or SQLMETRICS_GROUP" if is_foreign else ""
        raise ForeignFileError(
            f"{name} {wrong}, in a folder that anybody may write to; delete it, use a folder of your own{way_out}"
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
    """The group that the store of this file is shared with, -1 if with none."""
    return next((gid for path, gid in _groups.copy().items() if name.startswith(path)), -1)
