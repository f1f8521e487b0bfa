"""Death: what a process leaves behind is folded into one row per series, once, in one transaction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import apsw

from . import layout
from .cells import CellsFile
from .database import transaction
from .ingest import copy_images, ingest, is_settled
from .journal import JournalGoneError
from .shape import LIVE_MODES
from .writer import pid_namespace

Slot = tuple[int, int]
"""(slot, instance)"""

_FOLD = """
INSERT INTO retired (series, value, timestamp, started)
SELECT sample.series, sample.value, sample.timestamp, process.started
  FROM sample
  JOIN process ON process.id = sample.process
  JOIN series ON series.id = sample.series
  JOIN family ON family.id = series.family
 WHERE sample.process = :process AND family.mode {modes}
ON CONFLICT (series) DO UPDATE SET
"""
# A value that is NULL is NaN. SQLite's +, min() and max() of two values give NULL if either is: NaN stays NaN.
FOLDS = (
    _FOLD.format(modes="IN ('', 'sum')") + "value = value + excluded.value",
    _FOLD.format(modes="= 'min'") + "value = min(value, excluded.value)",
    _FOLD.format(modes="= 'max'") + "value = max(value, excluded.value)",
    _FOLD.format(modes="= 'mostrecent'")
    + "value = excluded.value, timestamp = excluded.timestamp, started = excluded.started"
    + " WHERE (excluded.timestamp, excluded.started) >= (ifnull(retired.timestamp, 0.0), retired.started)",
)
KEEP_ALL = """
INSERT INTO kept (process, series, value)
SELECT sample.process, sample.series, sample.value
  FROM sample
  JOIN series ON series.id = sample.series
  JOIN family ON family.id = series.family
 WHERE sample.process = :process AND family.mode = 'all'
ON CONFLICT (process, series) DO UPDATE SET value = excluded.value
"""
DELETE_SAMPLES = "DELETE FROM sample WHERE process = :process"
DELETE_LIVE = """
DELETE FROM sample
 WHERE process = :process
   AND series IN (SELECT series.id FROM series JOIN family ON family.id = series.family
                   WHERE family.mode IN ('liveall', 'livemin', 'livemax', 'livesum', 'livemostrecent'))
"""
# A process that has no `all` gauge leaves nothing of its own.
BURY = """
DELETE FROM process
 WHERE id = :process AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.process = process.id)
"""
FORGET_OLDEST = """
DELETE FROM process
 WHERE died IS NOT NULL
   AND id NOT IN (SELECT id FROM process WHERE died IS NOT NULL ORDER BY died DESC, id DESC LIMIT :keep_dead)
"""
RECORD_SETTLED = """
INSERT INTO slot (slot, settled) VALUES (:slot, :process)
ON CONFLICT (slot) DO UPDATE SET settled = max(settled, excluded.settled)
"""
assert all(mode in DELETE_LIVE for mode in LIVE_MODES)


@contextlib.contextmanager
def settling(connection: apsw.Connection, file: CellsFile) -> Iterator[list[Slot]]:
    """A transaction in which processes are settled; those put into the list are retired after the COMMIT."""
    settled: list[Slot] = []
    try:
        with transaction(connection):
            yield settled
    except BaseException:
        for slot, _ in settled:
            file.release(slot)
        raise
    for slot, instance in settled:
        file.retire_slot(slot, instance)


def settle_dead(connection: apsw.Connection, file: CellsFile, settled: list[Slot]) -> None:
    """Settle every process that is dead by the kernel's word, within `settling`.

    Judged once, here, with the write lock held: so two settlers never fold the same process twice.
    """
    for slot, instance in file.live_slots():
        if file.seize(slot):
            settled.append((slot, instance))
            settle(connection, file, slot, instance)


def settle(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> None:
    """Fold a process whose slot is seized, if nobody has: first the rest of its journal, then its cells."""
    if is_settled(connection, slot, instance):
        return
    with contextlib.suppress(JournalGoneError):  # a damaged journal: what has rows is folded all the same
        ingest(connection, file, slot, instance)
    copy_images(connection, instance, {block: file.image(block) for block in file.blocks.owned_by(slot)})
    fold(connection, instance)
    connection.execute(RECORD_SETTLED, {"slot": slot, "process": instance})


def fold(connection: apsw.Connection, instance: int) -> None:
    """Fold the rows of an instance into those that outlive it, within the caller's transaction."""
    process = {"process": instance}
    for statement in (*FOLDS, KEEP_ALL, DELETE_SAMPLES):
        connection.execute(statement, process)
    died = time.clock_gettime_ns(time.CLOCK_REALTIME)
    connection.execute("UPDATE process SET died = ? WHERE id = ?", (died, instance))
    connection.execute(BURY, process)
    connection.execute("UPDATE store SET plan = plan + 1")


def forget_oldest(connection: apsw.Connection, keep_dead: int) -> None:
    """Drop the `all` gauges of the processes that ended longest ago, beyond `keep_dead` of them."""
    connection.execute(FORGET_OLDEST, {"keep_dead": keep_dead})


def mark_dead(connection: apsw.Connection, file: CellsFile, pid: str, settled: list[Slot]) -> list[int]:
    """Act on a death notice, within `settling`: `live*` rows go, the rest is kept.

    Returns the slots to notify after the COMMIT: of processes that live in spite of the notice. These are left
    alone when a dead one explains it (its pid was given again).
    """
    namesakes = [slot for slot in file.live_slots() if _is_named(connection, file, slot, pid)]
    dead = [one for one in namesakes if file.seize(one[0])]
    settled += dead
    for slot, instance in dead:
        settle(connection, file, slot, instance)
    if dead:
        return []
    for _, instance in namesakes:
        connection.execute(DELETE_LIVE, {"process": instance})
        connection.execute("UPDATE store SET plan = plan + 1")
    return [slot for slot, _ in namesakes]


def _is_named(connection: apsw.Connection, file: CellsFile, slot: Slot, pid: str) -> bool:
    if is_settled(connection, *slot):
        return False
    try:
        ingest(connection, file, *slot)
    except JournalGoneError:
        return False
    found = connection.execute("SELECT pid, pid_namespace FROM process WHERE id = ?", (slot[1],)).fetchall()
    return found == [(pid, pid_namespace())]


def empty(connection: apsw.Connection, file: CellsFile, spared: set[int], settled: list[Slot]) -> None:
    """Delete every row but those of the spared instances, within `settling`."""
    for slot, instance in file.live_slots():
        if instance in spared:
            ingest(connection, file, slot, instance)
        else:
            connection.execute(RECORD_SETTLED, {"slot": slot, "process": instance})
            settled.append((slot, instance))
    marks = ", ".join("?" * len(spared))
    ids = tuple(spared)
    connection.execute("DELETE FROM retired")
    connection.execute("DELETE FROM kept")
    connection.execute(f"DELETE FROM sample WHERE process NOT IN ({marks})", ids)  # noqa: S608
    connection.execute(f"DELETE FROM process WHERE id NOT IN ({marks})", ids)  # noqa: S608
    connection.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM sample)")
    connection.execute("DELETE FROM family WHERE id NOT IN (SELECT family FROM series)")
    connection.execute("UPDATE store SET plan = plan + 1")


def adopt(connection: apsw.Connection) -> int:
    """Fold every process of a store whose cells are gone (a reboot, a deleted file): its rows are what is left.

    Returns a number of uses above all that were ever given to a slot.
    """
    for (instance,) in connection.execute("SELECT id FROM process WHERE died IS NULL").fetchall():
        fold(connection, int(str(instance)))
    newest = connection.execute(
        "SELECT max(ifnull((SELECT max(id) FROM process), 0), ifnull(max(settled), 0)) FROM slot"
    ).get
    return int(str(newest)) // layout.SLOTS + 1
