"""Writes what takes long in slices, each a transaction of its own, so that other processes get their turn in between.

SQLite has no queue for its write lock: the process that tries at the right moment gets it. So only one process at a
time writes in slices. Before each slice it leaves the write lock alone for longer than the processes with little to
write (other flushes, folds and removals) wait between two tries.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import apsw

from ..cells import layout, locks
from ..cells.cellsfile import CellsFile
from ..cells.journal import JournalGoneError
from ..errors import DamagedError, StoreError
from ..process import fork, native, waits
from . import behind
from .ingest import committed, ingest, is_settled
from .settle import settling
from .wal import checkpoint, refuse_long

PORTION = 96 * 1024
"""The bytes of a journal, some 900 children, that are read at once, and that a transaction may write besides others.

With 256 KiB, four processes that compute on two busy cores kept others waiting for 400 ms, with 96 KiB for 180 ms.
"""
SECONDS = 0.05
"""A transaction that has taken longer than this writes no further portion."""
PAUSE = 0.012
"""Seconds between two slices: SQLite looks for its lock every 10 ms at most while it waits."""
_LOOK_SECONDS = 0.003

Writing = Callable[[], AbstractContextManager[apsw.Connection]]
"""Gives a connection for one slice."""


@contextlib.contextmanager
def turn(file: CellsFile, patience: float) -> Iterator[None]:
    """Wait for the turn to write one slice within; patience: seconds. Raises apsw.BusyError if that takes longer."""
    end = time.monotonic() + patience
    while not locks.try_lock(file.fd, layout.SLICES_LOCK_AT):
        fork.give_way()
        if time.monotonic() > end:
            raise apsw.BusyError("another process writes in slices")
        native.sleep(_LOOK_SECONDS)
    try:
        native.sleep(PAUSE)
        yield
    finally:
        locks.unlock(file.fd, layout.SLICES_LOCK_AT)


def leave_turn() -> None:
    """Wait between two slices until another process that waits for its turn has it."""
    native.sleep(2 * _LOOK_SECONDS)


def bring_journal(writing: Writing, file: CellsFile, slot: int, instance: int) -> Iterator[int]:
    """Make rows of an instance's journal, slice by slice, until one more transaction can take the rest.

    Yields after each slice how many bytes of the journal are rows. Ends if the instance is settled meanwhile.
    Raises apsw.Error, JournalGoneError, DamagedError or WalTooLongError.
    """
    patience = waits.WRITE_LOCK
    while True:
        with turn(file, patience), writing() as connection:
            refuse_long(connection)
            with settling(connection, file):
                end = _bring_some(connection, file, slot, instance)
            checkpoint(connection)
        if end is None:
            return
        yield end
        if file.published[slot] - end <= PORTION:
            return
        patience = waits.SLICES
        leave_turn()


def _bring_some(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> int | None:
    if is_settled(connection, file, slot, instance):
        return None
    begun = time.monotonic()
    while True:
        end = ingest(connection, file, slot, instance, most=PORTION)
        if file.published[slot] - end <= PORTION or time.monotonic() - begun > SECONDS:
            behind.note_partial(connection, [instance])
            return end


class TooMuchError(StoreError):
    """What must become rows first takes longer than the caller can wait."""


def bring_all(writing: Writing, file: CellsFile, slots: Iterable[tuple[int, int]], until: float = math.inf) -> None:
    """Call `bring_journal` for those of these (slot, instance) with a long journal; skip what cannot be read.

    until: in seconds of CLOCK_MONOTONIC. Raises apsw.Error, or TooMuchError at that time.
    """
    for slot, instance in slots:
        with contextlib.suppress(JournalGoneError, DamagedError):
            if file.published[slot] > PORTION and _is_long(writing, file, slot, instance):
                for _ in bring_journal(writing, file, slot, instance):
                    if time.monotonic() > until:
                        raise TooMuchError("thousands of new children are to be made rows first")


def _is_long(writing: Writing, file: CellsFile, slot: int, instance: int) -> bool:
    with writing() as connection:
        return file.published[slot] - (committed(connection, instance) or 0) > PORTION
