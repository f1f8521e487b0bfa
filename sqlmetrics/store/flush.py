"""One flush: bring what changed in this process into rows, settle the dead, and mend what can be mended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

import apsw

from ..cells import exact, ownership
from ..cells.arenas import SharedArena
from ..cells.images import Image
from ..cells.journal import JournalGoneError
from ..cells.part import Part
from ..cells.shape import Key
from ..errors import DamagedError
from ..process import fork, waits
from ..process.appcode import is_for_caller, safe_repr
from ..rows import behind, checkup, database, exemplars, fold, ingest, inherited, nonsense, removal, settle, slices
from ..rows.damage import is_damage
from ..rows.wal import checkpoint, refuse_long, wal_bytes, wal_limit
from . import erasure
from .admission import Admission
from .conflicts import Conflicts
from .flusher import Outcome
from .follow import Follower
from .masters import Masters
from .opened import Opened
from .remover import Remover

_BLOCKS_AT_ONCE = 160
"""The most blocks of cells (4 KiB each) that one transaction writes: some 100 ms if all their cells have changed."""


before_flush: list[Callable[[Opened], None]] = []
"""Functions that call code of the app before each flush, so that the rows have what that counts."""
after_flush: list[Callable[[Part], None]] = []
"""Functions to call after each flush: they drop the objects of children that are gone."""


class Rounds:
    """What the flushes of one store do, besides writing this process's values.

    notices: the names of processes that were reported dead, and are not settled yet. given_back: children that this
    process has given back by itself since its last scrape.
    """

    def __init__(self, store: Opened, follower: Follower):
        self.store = store
        self.follower = follower
        self.conflicts = Conflicts(store.home)
        self.admission = Admission(store)
        self.remover = Remover(store, follower)
        self.masters = Masters()
        self.notices: list[str] = []
        self.given_back: list[Key] = []

    def after_fork_in_child(self, of_master: Iterable[SharedArena]) -> None:
        """Leave the parent's work to the parent. of_master: the cells of a master that cannot flush, see `masters`."""
        self.remover = Remover(self.store, self.follower)
        self.masters = Masters(of_master)
        self.notices, self.given_back = [], []

    def has_notices(self) -> bool:
        """Whether a process was reported dead and not settled yet, or a removal waits."""
        return bool(self.notices) or self.remover.has_work()

    def act_on_notices(self, connection: apsw.Connection) -> None:
        """Settle the processes that were reported dead, even meanwhile. Raises apsw.Error."""
        file = self.store.file
        while self.notices:
            pids = list(self.notices)
            with settle.settling(connection, file) as settled:
                noticed = [slot for pid in pids for slot in settle.mark_dead(connection, file, pid, settled)]
                fold.forget_oldest(connection, self.store.settings.keep_dead)
            del self.notices[: len(pids)]
            for slot in noticed:
                file.lapse(slot)


def ask(store: Opened) -> None:
    """Ask functions and published collectors for their values. Raises only errors for which `is_for_caller` is true."""
    if store.writing.held_here():
        return  # this is a signal handler in the middle of a flush
    try:
        for one in before_flush:
            one(store)
    except BaseException as error:  # whatever it is: without this thread nothing would be mended
        if is_for_caller(error):
            raise
        store.home.report("app", f"functions and published collectors could not be called ({safe_repr(error)})")


def flush(rounds: Rounds, *, pause: float = 0.0) -> Outcome:
    """Flush a store; calls no code of the app.

    Never raises: trouble is reported once per cause and tried again at the next round. Nothing is lost by a
    flush that fails, scrapes read the cells and the journals.

    pause: write no waiting exemplars if a flush has written some less than so many seconds ago.
    """
    fork.notice()
    store = rounds.store
    if store.writing.held_here():
        return Outcome.BUSY  # this is a signal handler in the middle of a flush
    try:
        if not rounds.follower.follow():
            return Outcome.BUSY
        store.writing.keep_open()
        store.part.move_in()
        store.part.tell_families()
        store.part.tell_exemplars(pause)
        checkup.check_if_due(store.path, store.file)
        _look_for_planted(store)
        rounds.admission.look_if_written()  # first, as a burst of new children may have begun
        outcome = _flush(rounds) if _has_work(rounds) else Outcome.NOTHING_CHANGED
        rounds.admission.look_if_written()
        erasure.carry_on(store)
        store.part.zero_unread()
        for tell in after_flush:
            tell(store.part)
        nonsense.tell(store.path, store.trouble)
        store.home.over("flush", "flushes work again")
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


def _look_for_planted(store: Opened) -> None:
    if planted := ownership.planted_journal(store.path):
        store.trouble.report("foreign", f"{planted}; sqlmetrics ignores it and goes on")
    else:
        store.trouble.over("foreign", f"{store.path}{ownership.JOURNAL_SUFFIX} is gone")


def _after_failure(store: Opened, error: BaseException) -> None:
    if not store.is_open():
        return
    store.home.report("flush", f"cannot flush ({safe_repr(error)}); scrapes go on, rows come later")
    if isinstance(error, Exception) and is_damage(error):
        store.file.doubt()
    with contextlib.suppress(OSError):  # the system may fail to tell which files are there
        # A connection to deleted files stays open, because the next round reads them for the last time.
        if not isinstance(error, apsw.FullError) and not store.writing.is_cut_off():
            # A new connection may find what this one cannot: rights, another file. But on a full disk this one stays
            # open: if it was the only one, no other could be opened, because the WAL's index needs room then.
            store.writing.close_idle()
    store.figures.bring()


def _has_work(rounds: Rounds) -> bool:
    """Whether a flush would write anything; asks memory and the kernel, not SQLite."""
    store = rounds.store
    file = store.file
    return (
        rounds.has_notices()
        or bool(store.part.inheritance.waiting)
        or store.part.has_given_back()
        or rounds.masters.have_news(file)
        or file.sweeping.is_due()
        or any(arena.has_news() or arena.changed_blocks() for arena in store.part.arenas() if arena.is_mine())
        or any(not file.is_alive(slot) for slot, _ in file.held_slots())
    )


def _flush(rounds: Rounds) -> Outcome:
    store = rounds.store
    store.figures.bring()
    begun = time.perf_counter()
    _bring_long_journals(store)
    with store.writing() as connection:
        refuse_long(connection)
        rounds.act_on_notices(connection)
        rounds.remover.act(connection)
        store.part.look_for_marks()
        inherited.bring(connection, store.file, store.part)
        rounds.masters.bring(connection)
        arenas = _own(store)
        with_values = wal_bytes(store.path) <= wal_limit(store.path)
        now = exact.system_now()
        first, *others = _pieces(arenas, with_values=with_values)
        _write(store, connection, arenas, first, now if with_values and not others else None)
        rounds.conflicts.look(connection)
        checkpoint(connection)
    for number, piece in enumerate(others, 1):
        with slices.turn(store.file, waits.SLICES), store.writing() as connection:
            refuse_long(connection)
            if _own(store) != arenas:
                raise database.CutOffError(f"{store.path}: this process has moved to other cells meanwhile")
            _write(store, connection, arenas, piece, now if number == len(others) else None)
            checkpoint(connection)
        slices.leave_turn()
    store.figures.took("flush", time.perf_counter() - begun)
    return Outcome.DONE


def _bring_long_journals(store: Opened) -> None:
    """Write long journals in slices, so that the transaction that follows has little of them left."""
    file = store.file
    for arena in store.part.arenas():
        if arena.is_mine() and arena.backlog() > slices.PORTION:
            for end in slices.bring_journal(store.writing, arena.file, arena.slot, arena.instance):
                with store.part.binding():
                    _note_ingested(arena, end)
    long = [(slot, instance) for slot, instance in file.held_slots() if file.published[slot] > slices.PORTION]
    slices.bring_all(store.writing, file, [one for one in long if not file.is_alive(one[0])])


def _own(store: Opened) -> list[SharedArena]:
    return [arena for arena in store.part.arenas() if arena.is_mine()]


def _pieces(arenas: list[SharedArena], *, with_values: bool) -> list[dict[SharedArena, list[int]]]:
    """Return the changed blocks, divided among transactions; there is at least one, perhaps without blocks."""
    changed = [(arena, block) for arena in arenas if with_values for block in arena.changed_blocks()]
    pieces: list[dict[SharedArena, list[int]]] = []
    for start in range(0, len(changed), _BLOCKS_AT_ONCE):
        piece: dict[SharedArena, list[int]] = {}
        for arena, block in changed[start : start + _BLOCKS_AT_ONCE]:
            piece.setdefault(arena, []).append(block)
        pieces.append(piece)
    return pieces or [{}]


def _write(
    store: Opened,
    connection: apsw.Connection,
    arenas: list[SharedArena],
    changed: dict[SharedArena, list[int]],
    complete: float | None,
) -> None:
    """Run one transaction of a flush. complete: the time up to which rows have everything then; None: more follows."""
    # Images before the journal, so that the journal has the record of each child in the images.
    images = {arena: arena.take_images(blocks) for arena, blocks in changed.items()}
    try:
        with settle.settling(connection, store.file) as settled:
            # Another process may have settled this one (see `SharedArena.is_mine`): its rows must not come back.
            here = [one for one in arenas if one.file is store.file]  # another thread may have gone over to new files
            mine = [one for one in here if not ingest.is_settled(connection, one.file, one.slot, one.instance)]
            for arena in mine:
                _refuse_loss(connection, arena)
            # Before the journal is read, so that what is read has the record of each child that was given back.
            left = removal.leaving(store.file, mine)
            ends = {arena: ingest.ingest(connection, arena.file, arena.slot, arena.instance) for arena in mine}
            given_back = removal.leave(connection, left)
            if given_back:  # at once: without its rows a scrape would show a counter at 0
                removal.sweep(connection, store.file, given_back)
            for arena in mine:
                ingest.copy_images(connection, arena.instance, images.get(arena, {}), stamped=arena.stamped)
            if complete is None:
                behind.note_partial(connection, [arena.instance for arena in mine])
            else:
                behind.note_complete(connection, [arena.instance for arena in mine], complete)
            settle.settle_dead(connection, store.file, settled, "flush")
            if settled:
                fold.forget_oldest(connection, store.settings.keep_dead)
                removal.sweep_infos(connection, store.file)
            exemplars.sweep(connection, store.file)
    except BaseException:
        for arena, image in images.items():
            arena.not_flushed(image)
        raise
    _after_commit(store, ends, images, left)


def _refuse_loss(connection: apsw.Connection, arena: SharedArena) -> None:
    """Raise DamagedError if rows that were written are gone, or blocks have another owner: somebody meddled."""
    if (ingest.committed(connection, arena.instance) or 0) < arena.ingested or not arena.is_intact():
        raise DamagedError(f"rows or cells of process {os.getpid()} are gone")


def _after_commit(
    store: Opened,
    ends: dict[SharedArena, int],
    images: dict[SharedArena, dict[int, Image]],
    left: removal.Leaving,
) -> None:
    with store.part.binding():
        for arena, end in ends.items():
            _note_ingested(arena, end)
        for arena, image in images.items():
            arena.note_flushed(image)
        removal.recycle(store.part, left)


def _note_ingested(arena: SharedArena, end: int) -> None:
    """Note after the COMMIT how much of the journal is in rows. Call it inside `binding`."""
    arena.journal.release(end)
    arena.ingested = end
