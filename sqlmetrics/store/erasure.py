"""Erases what was removed from all files of the store, so that nobody can read it there.

The transaction that deletes it leaves zeros in its place (`secure_delete`), and asks for three chores, which the next
process that flushes does (see `chores`, and "Erasure" in docs/design.md for what a reader may see meanwhile):

1. *wiping*: the parts of all journals that are rows by now are overwritten;
2. *truncating*: the pages of the WAL, among them older ones, are brought to the database, and the WAL is cut off;
3. *rebuilding*: where SQLite splits and joins pages, it leaves copies of rows between them; so all are written anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from ..cells import journal, layout
from ..cells.cellsfile import CellsFile
from ..process import waits
from ..rows import database, settle
from .opened import Opened

SHARE = 0.01
"""The share of the time that rebuilding may take, as nobody else writes meanwhile; a large store is rebuilt rarely."""
LIMIT = 16 * 1024 * 1024
"""A database with more bytes is not rebuilt, because all of it would go through the WAL."""
STEPS = 10_000
"""Steps of SQLite's virtual machine, a millisecond or less, after which a fork or an exit can stop it."""
POSTPONED = 60.0
"""Seconds until rebuilding is tried again if there was no room for it."""
_SELECT_COMMITTED = "SELECT id, journal FROM instance WHERE died IS NULL"


def carry_on(store: Opened) -> None:
    """Do the chores that are due and can be done without waiting for a reader. Raises apsw.Error."""
    file = store.file
    if any(chore.is_due() for chore in (file.wiping, file.truncating, file.rebuilding)):
        _carry_on(store, is_stoppable=True)


def finish(store: Opened, seconds: float = waits.WRITE_LOCK, *, limit: int = LIMIT) -> bool:
    """Do all chores, even before they are due; wait for other processes. Returns whether all are done.

    Raises apsw.Error.

    limit: see `LIMIT`.
    """
    file = store.file
    for tries_left in waits.tries(seconds):
        file.truncating.rest(0)
        file.rebuilding.rest(0)
        with contextlib.suppress(apsw.BusyError):  # the flushers go on with it
            _carry_on(store, is_stoppable=False, limit=limit)
        if file.rebuilding.is_done() or not tries_left:
            break
        time.sleep(waits.WRITE_LOCK)
    return file.rebuilding.is_done()


def _carry_on(store: Opened, *, is_stoppable: bool, limit: int = LIMIT) -> None:
    with store.writing() as connection:
        wipe(store, connection)
        if _truncate(store, connection) and store.file.rebuilding.is_due():
            _rebuild(store, connection, is_stoppable=is_stoppable, limit=limit)


def wipe(store: Opened, connection: apsw.Connection) -> None:
    """Overwrite the parts of all journals that are in rows, if that is to be done. Raises apsw.Error."""
    file = store.file
    if file.wiping.is_done():
        return
    with settle.settling(connection, file), store.part.binding() as outermost:
        event, _ = file.wiping.state()
        if outermost and journal.wipe(file, _committed(connection, file)):
            file.wiping.note_done(event)


def _committed(connection: apsw.Connection, file: CellsFile) -> dict[int, int]:
    """Return by instance how many bytes of its journal nobody will read again: all, if the process is settled."""
    rows: Any = connection.execute(_SELECT_COMMITTED).fetchall()
    settled = {i: file.published[slot] for slot, i in file.held_slots() if file.states[slot] == layout.SETTLED}
    return dict(rows) | settled


def _truncate(store: Opened, connection: apsw.Connection) -> bool:
    """Checkpoint the WAL and cut it off; False if that is not due, or if a reader or a writer is in the way."""
    chore = store.file.truncating
    event, _ = chore.state()
    if not (chore.is_due() or store.file.rebuilding.is_due()):
        return False
    chore.rest(store.settings.flush_interval / 2)  # even if it fails: other processes need not try as well
    with _waiting_for_nobody(connection), contextlib.suppress(apsw.BusyError, apsw.FullError):
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)  # most of it, while others may write
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        chore.note_done(event)
        return True
    return False


def _rebuild(store: Opened, connection: apsw.Connection, *, is_stoppable: bool, limit: int) -> None:
    """Write all pages anew, but only after `_truncate`: while a reader stays, the WAL would grow each time."""
    chore = store.file.rebuilding
    event, _ = chore.state()
    begun = time.perf_counter()
    try:
        if _bytes_used(connection) > limit:
            raise apsw.FullError
        with _stopped_by(connection, lambda: is_stoppable and store.flusher.is_stopping):
            connection.execute("VACUUM")
    except (apsw.FullError, apsw.InterruptError) as error:
        chore.rest(POSTPONED if isinstance(error, apsw.FullError) else 1.0)
        return
    chore.rest((time.perf_counter() - begun) / SHARE)
    with _waiting_for_nobody(connection), contextlib.suppress(apsw.BusyError):
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        chore.note_done(event)


def _bytes_used(connection: apsw.Connection) -> int:
    pages, free, size = (connection.pragma(name) for name in ("page_count", "freelist_count", "page_size"))
    return (int(pages) - int(free)) * int(size)


@contextlib.contextmanager
def _stopped_by(connection: apsw.Connection, condition: Callable[[], bool]) -> Iterator[None]:
    """Make statements end with InterruptError when the condition is true."""
    connection.set_progress_handler(condition, STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None)


@contextlib.contextmanager
def _waiting_for_nobody(connection: apsw.Connection) -> Iterator[None]:
    """Try only once, because this process would wait with the write lock held."""
    database.wait_for_others(connection, 0)
    try:
        yield
    finally:
        database.wait_for_others(connection, waits.WRITE_LOCK)
