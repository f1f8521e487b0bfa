"""Which versions of SQLite can lose committed pages where two processes write and checkpoint at the same instant.

Every flusher of the store does just that. See "The WAL-Reset Bug" on https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import apsw

_FIXED_BRANCHES = {(3, 44): 6, (3, 50): 7}
"""Of older branches, the first release with the fix."""
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
    """What to tell the user of that SQLite, '' if it is in order."""
    found = found or version()
    if is_fixed(found):
        return ""
    return (
        f"apsw uses SQLite {'.'.join(map(str, found))}, which can lose committed rows where two processes write at one"
        " instant (https://www.sqlite.org/wal.html, the WAL-reset bug); SQLite 3.51.3 has the fix: install apsw as a"
        " wheel, or build it against a newer SQLite"
    )
