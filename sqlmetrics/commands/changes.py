"""What `remove` and `reset`, which change a store, share: they ask first, wait for others, and leave small files."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import apsw

from ..cells.ownership import SUFFIXES
from ..errors import PathError, SQLMetricsError
from ..outside.look import settings
from ..outside.place import Place
from ..process.waits import WRITE_LOCK
from ..rows.slices import TooMuchError
from ..store import erasure
from ..store.store import Store

NOT_SMALL = "somebody reads or writes, so the files become small later, by the app's processes"
SECONDS = 30.0
"""How long to wait for the write locks of others."""


class NotConfirmedError(SQLMetricsError):
    """The user has not said yes, so nothing was changed."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of the database and of the WAL."""

    database: int
    wal: int

    @property
    def total(self) -> int:
        """Both."""
        return self.database + self.wal


def sizes(path: str) -> Sizes:
    """Return the sizes of a store's files now; 0 for a missing file."""
    return Sizes(*(os.path.getsize(one) if os.path.exists(one) else 0 for one in (path, path + "-wal")))


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal, unless `yes`. Raises NotConfirmedError."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmedError(f"{question} There is no terminal to ask on: give --yes. Nothing was changed.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmedError("nothing was changed")


def opened(place: Place) -> Store:
    """Open a store to change it. Raises NoStoreError, PathError (it may not be written) or StoreError."""
    for suffix in SUFFIXES:
        name = place.path + suffix
        if os.path.exists(name) and not os.access(name, os.W_OK):
            raise PathError(_why_not_writable(name))
    return Store(place.path, settings(), create=False)


def _why_not_writable(name: str) -> str:
    if os.statvfs(name).f_flag & os.ST_RDONLY:
        return f"{name} is on a file system that is mounted read-only here; do it where the app writes to it"
    status = os.stat(name)
    return (
        f"{name} ({stat.filemode(status.st_mode)}) belongs to uid {status.st_uid}, and uid {os.geteuid()} may not write"
        f" it; do it as that user (sudo -u '#{status.st_uid}')"
    )


def insist(act: Callable[[], object]) -> None:
    """Run an action that needs the write lock; try again while others have it. Raises what it raises in the end."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            act()
            return
        except (apsw.BusyError, TooMuchError):
            if time.monotonic() > until:
                raise
            time.sleep(WRITE_LOCK)


def shrink(store: Store) -> bool:
    """Erase what was deleted from the files, and cut the WAL; False if a reader or a writer is in the way."""
    disk = os.statvfs(os.path.dirname(store.path))
    room = disk.f_bavail * disk.f_frsize // 4  # all of it is in the WAL for a moment
    return erasure.finish(store, SECONDS / 3, limit=max(erasure.LIMIT, room))
