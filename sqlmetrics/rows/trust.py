"""Whose files these are: in a folder that everybody may write to, another user can have put them there.

Only such a folder (``/dev/shm``, ``/tmp``) is looked at: where others may not write, they cannot plant anything.
"""

from __future__ import annotations

import os
import stat

from ..errors import ForeignFileError

SUFFIXES = ("", "-wal", "-shm", "-cells")
"""What the names of a store's four files end in."""

_groups: dict[str, int] = {}


def share(path: str, gid: int) -> None:
    """Accept files of this group, of the store at `path`: it is shared with it, so its members may make them."""
    _groups[path] = gid


def check(path: str) -> None:
    """Raise ForeignFileError if one of the store's files may be another user's: only root's and one's own are used."""
    if _is_open_to_all(path):
        for suffix in SUFFIXES:
            _check(path + suffix, _groups.get(path, -1))


def check_file(name: str, gid: int) -> None:
    """Raise ForeignFileError if the file may be another user's, who is no member of the group `gid` (-1: of none)."""
    if _is_open_to_all(name):
        _check(name, gid)


def _is_open_to_all(name: str) -> bool:
    """Whether anybody may write to the folder of a file."""
    try:
        return bool(os.stat(os.path.dirname(name)).st_mode & stat.S_IWOTH)
    except OSError:
        return False  # nothing to be opened either; who opens it says why


def _check(name: str, gid: int) -> None:
    try:
        status = os.stat(name, follow_symlinks=False)
    except FileNotFoundError:
        return
    if status.st_uid not in (0, os.geteuid()) and status.st_gid != gid:
        raise ForeignFileError(
            f"{name} belongs to uid {status.st_uid} (this is uid {os.geteuid()}) and lies in a folder that anybody may"
            " write to; delete it, use a folder of your own, or share the store with group= or SQLMETRICS_GROUP"
        )
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        kind = "a symlink" if stat.S_ISLNK(status.st_mode) else f"no plain file ({stat.filemode(status.st_mode)})"
        what = kind if not stat.S_ISREG(status.st_mode) else "a hard link to a file that has another name"
        raise ForeignFileError(
            f"{name} is {what}, in a folder that anybody may write to; delete it, or use a folder of your own"
        )
