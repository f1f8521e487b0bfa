"""Finds dead processes, and settles each once, in one transaction; see `fold` for what becomes of their rows."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import apsw

from ..cells import layout
from ..cells.arenas import pid_namespace
from ..cells.cellsfile import CellsFile
from ..cells.journal import JournalGoneError
from ..cells.shape import LIVE_MODES
from ..errors import DamagedError
from ..process import native, waits
from . import deaths, removal
from .database import CutOffError, bump, transaction
from .fold import end, fold, orphan
from .ingest import committed, ingest, is_settled
from .legacies import Ended, legacies_in_cells, legacies_in_rows, legacies_of_orphans, unsettled
from .schema import ids, refuse_newer
from .series import SeriesIds

Slot = tuple[int, int]
"""(slot, instance)"""
_AT_ONCE = 64
"""How many processes are folded together; their legacies are in memory meanwhile."""

DELETE_LIVE = """
DELETE FROM cell_copy
 WHERE process = :process
   AND series IN (SELECT series.id FROM series JOIN family ON family.id = series.family
                   WHERE family.mode IN ('liveall', 'livemin', 'livemax', 'livesum', 'livemostrecent'))
"""
UPSERT_SETTLED = """
INSERT INTO slot (slot, settled) VALUES (:slot, :process)
ON CONFLICT (slot) DO UPDATE SET settled = excluded.settled
"""
DELETE_UNUSED_SERIES = "DELETE FROM series WHERE id NOT IN (SELECT series FROM cell_copy)"
DELETE_UNUSED_FAMILIES = "DELETE FROM family WHERE id NOT IN (SELECT family FROM series)"
SELECT_NUMBERS = "SELECT id FROM instance UNION SELECT settled FROM slot UNION SELECT 0"
assert all(mode in DELETE_LIVE for mode in LIVE_MODES)


@contextlib.contextmanager
def settling(connection: apsw.Connection, file: CellsFile) -> Iterator[list[Slot]]:
    """Run a transaction that may settle processes; those in the list that it yields are retired after the COMMIT.

    Raises CutOffError if the database is another pair's.
    """
    settled: list[Slot] = []
    try:
        with transaction(connection):
            refuse_newer(connection)
            _refuse_others(connection, file)
            removal.mark_noted(connection, file)
            yield settled
        for slot, instance in settled:
            file.retire_slot(slot, instance, settled)
    finally:
        for slot, _ in settled:
            file.release(slot, settled)


def _refuse_others(connection: apsw.Connection, file: CellsFile) -> None:
    """Raise CutOffError unless rows and cells are of one pair: the files may have been replaced a moment ago."""
    header = file.header()
    if header is None or header[:2] != ids(connection, connection.filename):
        raise CutOffError(f"{connection.filename}: the rows are not those of the cells")


def settle_dead(connection: apsw.Connection, file: CellsFile, settled: list[Slot], noticed: str) -> None:
    """Settle every process that is dead, as the kernel says, within `settling`. noticed: see `deaths`.

    This is decided here, with the write lock held, so two settlers never fold the same process.
    """
    _settle_those_dead(connection, file, file.held_slots(), settled, noticed)


def _settle_those_dead(
    connection: apsw.Connection, file: CellsFile, slots: list[Slot], settled: list[Slot], noticed: str
) -> list[Slot]:
    seized = []
    for one in slots:
        if file.seize(one[0], settled):
            settled.append(one)
            seized.append(one)
    ended = unsettled(connection, file, seized)
    if _may_any_live(connection, ended):
        native.sleep(waits.LAST_WORDS)
        ended = unsettled(connection, file, seized)
    settle(connection, file, ended, noticed)
    return seized


def _may_any_live(connection: apsw.Connection, ended: list[Ended]) -> bool:
    """Whether one of these processes may be alive without its lock. In another pid namespace, it may be."""
    here = pid_namespace() if ended else 0
    known = (identity for one in ended if (identity := one.identity(connection)) is not None)
    return any(namespace != here or _exists(pid) for pid, namespace in known)


def _exists(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
            return file.read().rpartition(")")[2].split()[0] not in "ZX"  # zombies do not count
    except OSError:
        return not os.path.isdir("/proc/self")


def settle(
    connection: apsw.Connection,
    file: CellsFile,
    ended: list[Ended],
    noticed: str | None,
) -> None:
    """Settle processes whose slots are seized, within the caller's transaction.

    noticed: what noticed their deaths, see `deaths`. None: they may be alive, so what they had is kept until they bring
    it back.
    """
    become = fold if noticed else orphan
    ids = SeriesIds(connection)
    for start in range(0, len(ended), _AT_ONCE):
        some = ended[start : start + _AT_ONCE]
        become(connection, list(legacies_in_cells(connection, file, some, ids)))
        instances = [process.instance for process in some]
        if noticed:
            deaths.record(connection, instances, noticed)
        end(connection, instances)
        connection.executemany(UPSERT_SETTLED, [{"slot": one.slot, "process": one.instance} for one in some])


def mark_dead(connection: apsw.Connection, file: CellsFile, pid: str, settled: list[Slot]) -> list[int]:
    """Act on a death notice, within `settling`: delete the `live*` rows, and keep the rest.

    Returns the slots to notify after the COMMIT: those of processes that are alive in spite of the notice. If there is
    a dead process of that name, too, the notice is about that one, and those alive keep their rows.
    """
    namesakes = [slot for slot in file.held_slots() if _is_named(connection, file, slot, pid)]
    if _settle_those_dead(connection, file, namesakes, settled, "notice"):
        return []
    for slot, instance in namesakes:
        with contextlib.suppress(JournalGoneError, DamagedError):
            ingest(connection, file, slot, instance)
        connection.execute(DELETE_LIVE, {"process": instance})
        bump(connection, "epoch")
    return [slot for slot, _ in namesakes]


def _is_named(connection: apsw.Connection, file: CellsFile, slot: Slot, pid: str) -> bool:
    if is_settled(connection, file, *slot):
        return False
    try:
        if committed(connection, slot[1]) is None:
            ingest(connection, file, *slot, most=layout.PAGE)  # its own record comes first
    except (JournalGoneError, DamagedError):
        return False
    found = connection.execute("SELECT pid, pid_namespace FROM instance WHERE id = ?", (slot[1],)).fetchall()
    return found == [(pid, pid_namespace())]


def record_ended(connection: apsw.Connection, file: CellsFile, slots: list[Slot]) -> None:
    """Record the deaths of processes whose values are about to be deleted, at the start of a run; see `deaths`.

    A journal is read for its pid only: what else is in it, and whether it makes sense, does not matter any more.
    """
    ended = [one for one in slots if not is_settled(connection, file, *one)]
    for slot, instance in ended:
        if committed(connection, instance) is None:
            with contextlib.suppress(JournalGoneError, DamagedError):
                ingest(connection, file, slot, instance, most=layout.PAGE)
    deaths.record(connection, [instance for _, instance in ended], "start")


def empty(
    connection: apsw.Connection, file: CellsFile, slots: list[Slot], spared: set[int], settled: list[Slot]
) -> None:
    """Delete all values except those of the spared instances, within `settling`.

    slots: all slots at that time; a process that comes later has no rows yet, and keeps its cells.
    """
    for slot, instance in slots:
        if instance in spared and not is_settled(connection, file, slot, instance):  # by a reset that did not spare it
            ingest(connection, file, slot, instance)
        else:
            connection.execute(UPSERT_SETTLED, {"slot": slot, "process": instance})
            settled.append((slot, instance))
    file.note_erasure()
    marks = ", ".join("?" * len(spared))
    ids = tuple(spared)
    connection.execute("DELETE FROM retired")
    connection.execute("DELETE FROM orphan")
    connection.execute("DELETE FROM kept")
    connection.execute("DELETE FROM exemplar")
    connection.execute(f"DELETE FROM cell_copy WHERE process NOT IN ({marks})", ids)  # noqa: S608
    connection.execute(f"DELETE FROM instance WHERE id NOT IN ({marks})", ids)  # noqa: S608
    connection.execute(DELETE_UNUSED_SERIES)
    connection.execute(DELETE_UNUSED_FAMILIES)
    bump(connection, "epoch")


def return_to(connection: apsw.Connection, file: CellsFile) -> None:
    """Turn this process's old rows into orphans, in files that it had left and that are back at their names.

    The process brings the values itself, in other cells; until then these rows show them. It keeps the locks of its
    old cells: if this change is lost with the next damage, nobody must take them for a dead process's. Raises
    apsw.Error.
    """
    with settling(connection, file) as settled:
        own = [(slot, instance) for slot, instance in file.held_slots() if slot in file.own_slots]
        settle(connection, file, unsettled(connection, file, own), None)
        settled += own


def settle_left(connection: apsw.Connection, file: CellsFile) -> None:
    """Settle all dead processes in a copy of the rows, within the caller's transaction; frees no slot."""
    dead = [(slot, instance) for slot, instance in file.held_slots() if not file.is_alive(slot)]
    settle(connection, file, unsettled(connection, file, dead), "mending")


def adopt(connection: apsw.Connection, *, all_dead: bool, above: int) -> int:
    """Take over the rows of processes whose cells are gone, within the caller's transaction.

    all_dead: whether none of them can be alive (after a reboot): then the rows are folded. Otherwise they become
        orphans until their processes bring the values themselves.
    above: the greatest number of uses of a slot in the cells that are gone, 0 if nothing is known of it.
    Returns a number of uses above all that any slot has ever had.
    """
    instances = _numbers(connection, "SELECT id FROM instance WHERE died IS NULL")
    for instance in instances:
        (fold if all_dead else orphan)(connection, legacies_in_rows(connection, instance))
    if all_dead:
        deaths.record(connection, instances, "mending")
    end(connection, instances)
    if all_dead:
        fold(connection, legacies_of_orphans(connection))
        connection.execute("DELETE FROM orphan")
    newest = max(_numbers(connection, SELECT_NUMBERS))
    # Seconds since the epoch grow faster than a slot is used, so no number is used twice, whatever was lost.
    seconds = int(time.clock_gettime(time.CLOCK_REALTIME))
    return max([seconds, *(uses + 1 for uses in (newest // layout.SLOTS, above) if uses < 2**31)])


def _numbers(connection: apsw.Connection, sql: str) -> list[int]:
    return [int(str(number)) for (number,) in connection.execute(sql).fetchall()]
