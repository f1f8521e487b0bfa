"""One flush: bring what changed in this process into rows, settle the dead, and mend what can be mended."""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from ..appcode import is_for_caller, told
from ..cells import heirs, trust
from ..cells.arenas import SharedArena
from ..cells.freed import Run
from ..cells.images import Image
from ..cells.journal import JournalGoneError
from ..client import children
from ..errors import DamagedError, StoreError
from ..process import fork
from . import checkup, database, erasure, exemplars, fold, ingest, nonsense, removal, settle
from .renew import is_damage
from .sweep import sweep, sweep_words

if TYPE_CHECKING:
    from ..store import Store

WAL_LIMIT = 64 * 1024 * 1024
"""Bytes of WAL above which flushes write registrations and folds only, above twice that nothing, until a checkpoint
succeeds: a reader that does not end its transaction keeps SQLite from using the WAL again from its beginning."""


class WalTooLongError(StoreError):
    """Nothing is written: a reader keeps the WAL from being checkpointed. Cells and journals hold what is new."""


class Outcome(enum.Enum):
    """What a flush came to."""

    NOTHING_CHANGED = enum.auto()
    DONE = enum.auto()
    BUSY = enum.auto()
    """Another process was writing: try again soon."""
    FAILED = enum.auto()


to_be_asked: list[Callable[[Store], None]] = []
"""What calls code of the app before each flush, so that what it brings is in the rows."""


def ask(store: Store) -> None:
    """Ask all that has to be asked for its values. Never raises anything but what `is_for_caller`."""
    if store.writing.held_here():
        return  # a signal handler in the middle of a flush
    try:
        for one in to_be_asked:
            one(store)
    except BaseException as error:  # whatever it is: without this thread nothing would be mended
        if is_for_caller(error):
            raise
        store.trouble.report("app", f"{store.path}: what is to be asked for its values could not be ({told(error)})")


def flush(store: Store, *, pause: float = 0.0) -> Outcome:
    """Flush a store; calls no code of the app.

    Never raises: trouble is reported once per cause and tried again at the next round. Nothing is lost by a
    flush that fails, scrapes read the cells and the journals.

    pause: leave exemplars that wait to the next flush if a flush has taken some less than so many seconds ago.
    """
    fork.notice()
    if store.writing.held_here():
        return Outcome.BUSY  # a signal handler in the middle of a flush
    try:
        if not store.follow_replacement():
            return Outcome.BUSY
        store.writing.keep_open()
        store.part.move_in()
        store.part.teller.tell_families()
        store.part.teller.tell_exemplars(pause)
        checkup.check_if_due(store.path, store.file)
        _look_for_planted(store)
        outcome = _flush(store) if _has_work(store) else Outcome.NOTHING_CHANGED
        erasure.carry_on(store)
        store.part.zero_unread()
        children.drop(store.part)
        nonsense.tell(store.path, store.trouble)
        store.trouble.over("flush", f"{store.path}: flushes work again")
    except (apsw.BusyError, apsw.InterruptError, fork.GaveWayError):
        outcome = Outcome.BUSY  # another process writes to the store, or another thread forks
    except JournalGoneError:
        outcome = Outcome.BUSY  # another process settles this one; or else there is damage
        if all(arena.is_mine() for arena in store.part.arenas()):
            store.file.doubt()
    except BaseException as error:  # whatever it is: without this thread nothing would be mended
        if is_for_caller(error):
            raise
        outcome = Outcome.FAILED
        _after_failure(store, error)
    return outcome


def _look_for_planted(store: Store) -> None:
    if planted := trust.planted_journal(store.path):
        store.trouble.report("foreign", f"{planted}; it is not believed, the store goes on")
    else:
        store.trouble.over("foreign", f"{store.path}{trust.JOURNAL_SUFFIX} is gone")


def _after_failure(store: Store, error: BaseException) -> None:
    if not store.is_open():
        return
    store.trouble.report("flush", f"{store.path}: cannot flush ({told(error)}); scrapes go on, rows come later")
    if isinstance(error, Exception) and is_damage(error):
        store.file.doubt()
    with contextlib.suppress(OSError):  # also the system may fail to say what is there
        # The last reading of files that were deleted is to be had from it, which the next round takes.
        if not isinstance(error, apsw.FullError) and not store.writing.is_cut_off():
            # A new connection may find what this one cannot: rights, another file. On a full disk nobody can open the
            # first one, for the WAL's index then needs room; so this one stays open.
            store.writing.close_idle()
    store.figures.bring()


def _has_work(store: Store) -> bool:
    """Whether a flush would write anything; asks memory and the kernel, not SQLite."""
    file = store.file
    return (
        store.has_notices()
        or bool(store.part.heirs.waiting)
        or store.part.has_given_back()
        or store.wards.have_news(store)
        or file.sweeping.is_due()
        or any(arena.has_news() or arena.changed_blocks() for arena in store.part.arenas() if arena.is_mine())
        or any(not file.is_alive(slot) for slot, _ in file.live_slots())
    )


def _flush(store: Store) -> Outcome:
    store.figures.bring()
    begun = time.perf_counter()
    with store.writing() as connection:
        limit = wal_limit(store.path)
        if wal_bytes(store.path) > 2 * limit:
            _checkpoint(store.path, connection)
            if wal_bytes(store.path) > 2 * limit:
                raise WalTooLongError(f"{store.path}-wal is longer than {2 * limit >> 20} MiB")
        store.act_on_notices(connection)
        store.remover.act(connection)
        store.part.look_for_marks()
        heirs.bring(connection, store)
        store.wards.bring(connection)
        arenas = [arena for arena in store.part.arenas() if arena.is_mine()]
        too_long = wal_bytes(store.path) > limit
        changed = {} if too_long else {arena: arena.changed_blocks() for arena in arenas}
        gives_back = store.part.has_given_back()
        with database.unreferenced(connection) if gives_back else contextlib.nullcontext():
            _write(store, connection, arenas, changed)
        store.conflicts.look(connection)
        _checkpoint(store.path, connection)
    store.figures.took("flush", time.perf_counter() - begun)
    return Outcome.DONE


def _write(
    store: Store, connection: apsw.Connection, arenas: list[SharedArena], changed: dict[SharedArena, list[int]]
) -> None:
    """The transaction of a flush."""
    # Images first: what a child has counted in them, its record tells of in the journal that is read after.
    images = {arena: arena.take_images(blocks) for arena, blocks in changed.items()}
    try:
        with settle.settling(connection, store.file) as settled:
            # Another process may have settled this one (see `SharedArena.is_mine`): its rows must not come back.
            mine = [one for one in arenas if not ingest.is_settled(connection, one.file, one.slot, one.instance)]
            for arena in mine:
                _refuse_loss(connection, arena)
            # Before the journal is read: so the record of each child that was given back is among what is read.
            left = {arena: list(arena.freed.leaving) for arena in mine}
            ends = {arena: ingest.ingest(connection, arena.file, arena.slot, arena.instance) for arena in mine}
            given_back = [series for arena in mine for series in removal.leave(connection, arena, left[arena])]
            if given_back:  # at once: without its rows a scrape would show a counter at 0
                sweep(connection, store.file, given_back)
            for arena in mine:
                ingest.copy_images(connection, arena.instance, images.get(arena, {}), stamped=arena.stamped)
            settle.settle_dead(connection, store.file, settled)
            if settled:
                fold.forget_oldest(connection, store.settings.keep_dead)
                sweep_words(connection, store.file)
            exemplars.sweep(connection, store.file)
    except BaseException:
        for arena, image in images.items():
            arena.not_flushed(image)
        raise
    _after_commit(store, ends, images, left)


def _refuse_loss(connection: apsw.Connection, arena: SharedArena) -> None:
    """Raise DamagedError if rows that were written are not there, or blocks are another's: somebody meddled."""
    if (ingest.committed(connection, arena.instance) or 0) < arena.ingested or not arena.is_intact():
        raise DamagedError(f"rows or cells of process {os.getpid()} are gone")


def _after_commit(
    store: Store,
    ends: dict[SharedArena, int],
    images: dict[SharedArena, dict[int, Image]],
    left: dict[SharedArena, list[Run]],
) -> None:
    with store.part.binding():
        for arena, end in ends.items():
            arena.journal.release(end)
            arena.ingested = end
        for arena, image in images.items():
            arena.note_flushed(image)
        for arena, runs in left.items():
            del arena.freed.leaving[: len(runs)]
            arena.recycle(runs)


def wal_bytes(path: str) -> int:
    """The size of a store's WAL file, 0 where there is none."""
    try:
        return os.stat(path + "-wal").st_size
    except OSError:
        return 0


def wal_limit(path: str) -> int:
    """`WAL_LIMIT`, or less on a small disk: a checkpoint needs room for what it copies, so half of the disk stays free.

    Else a WAL that has filled the disk, while a reader kept it from starting over, could never be shortened.
    """
    found = os.statvfs(os.path.dirname(path))
    room = found.f_bavail * found.f_frsize + wal_bytes(path)
    return min(WAL_LIMIT, max(room // 4, database.WAL_BYTES))


def _checkpoint(path: str, connection: apsw.Connection) -> None:
    size = wal_bytes(path)
    with contextlib.suppress(apsw.BusyError):  # somebody reads or writes: it will be tried at the next flush
        if size > wal_limit(path):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        elif size > database.WAL_BYTES:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
