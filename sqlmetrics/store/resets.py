"""Empties a store, but only while no other process uses it, unless that is forced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from ..cells import layout, locks
from ..errors import StoreError, StoreInUseError
from ..process import waits
from ..rows import database, deaths, fold, settle
from ..rows.making import making
from ..rows.removal import sweep_gauges
from ..rows.renew import DAMAGED_SUFFIX, forget_unfinished
from . import erasure
from .opened import Opened


def reset(store: Opened, *, force: bool, keep_own: bool) -> None:
    """Delete all rows; with `keep_own`, all but this process's. Raises StoreInUseError, apsw.BusyError."""
    own = _own(store) if keep_own else set()
    with _writing(store) as (connection, settled):
        slots = store.file.held_slots()
        _refuse_if_used(store, slots, own, force)
        settle.empty(connection, store.file, slots, own, settled)
        deaths.forget(connection)
    _leave_no_trace(store)


def begin_at_zero(store: Opened) -> None:
    """Delete the values of earlier runs. Keep the deaths on record, as an app that crashed may have restarted already.

    Raises as `reset` does.
    """
    own = _own(store)
    with _writing(store) as (connection, settled):
        slots = store.file.held_slots()
        _refuse_if_used(store, slots, own, False)
        settle.record_ended(connection, store.file, [one for one in slots if one[1] not in own])
        settle.empty(connection, store.file, slots, own, settled)
    _leave_no_trace(store)


def _leave_no_trace(store: Opened) -> None:
    """Erase what was deleted from all files. If a reader holds that up for a second, flushers go on with it."""
    for arena in store.part.arenas():
        store.file.notify(arena.slot)
    with store.part.binding() as outermost:
        if outermost:
            store.file.blocks.wipe_free()
            store.file.extents.wipe_free()
    with contextlib.suppress(OSError):
        os.unlink(store.path + DAMAGED_SUFFIX)
    with contextlib.suppress(apsw.BusyError, StoreError, OSError), making(store.path, store.settings, waits.RUNNING):
        forget_unfinished(store.path)
    erasure.finish(store, waits.CALL)
    store.flusher.start()


def begin_with_sums(store: Opened) -> None:
    """Delete the gauges of earlier runs, whose processes are gone, and keep the sums. Raises as `reset` does."""
    with _writing(store) as (connection, settled):
        _refuse_if_used(store, store.file.held_slots(), _own(store), False)
        settle.settle_dead(connection, store.file, settled, "start")
        fold.drop_gauges(connection)
        sweep_gauges(connection, store.file)
    erasure.finish(store, waits.CALL)


def _own(store: Opened) -> set[int]:
    return {arena.instance for arena in store.part.arenas()}


@contextmanager
def _writing(store: Opened) -> Iterator[tuple[apsw.Connection, list[settle.Slot]]]:
    """Run a transaction that may settle processes; wait a second for a writer."""
    with store.writing() as connection:
        database.wait_for_others(connection, waits.CALL)
        try:
            with settle.settling(connection, store.file) as settled:
                yield connection, settled
        finally:
            database.wait_for_others(connection, waits.WRITE_LOCK)


def _refuse_if_used(store: Opened, slots: list[settle.Slot], own: set[int], force: bool) -> None:
    file = store.file
    living = [slot for slot, instance in slots if instance not in own and file.is_alive(slot)]
    launched = locks.is_locked(file.fd, layout.RUN_LOCK_AT)
    if (living or launched) and not force:
        who = f"{len(living)} living process(es) hold a part of it" if living else "a server that uses it is running"
        raise StoreInUseError(
            f"{store.path} cannot be reset: {who}; stop them first, or force it, and what they count starts anew"
        )
