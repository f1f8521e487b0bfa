"""Death: what a process leaves behind is folded into one row per series, once, in one transaction."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import apsw

from . import layout
from .arenas import pid_namespace
from .cells import CellsFile
from .database import CutOffError, transaction
from .errors import DamagedError
from .ingest import copy_images, ingest, is_settled
from .journal import JournalGoneError
from .schema import ids, refuse_newer
from .shape import LIVE_MODES

Slot = tuple[int, int]
"""(slot, instance)"""
LAST_WORDS_SECONDS = 0.02
"""How long a process that has lost its lock, and lives, is given to end the operation that it is in the midst of: ones
that begin later see the notice. An operation takes 0.0001 ms, but the machine may be busy with others meanwhile."""

_ROWS = """
SELECT sample.series, sample.value, sample.timestamp, process.started
  FROM sample
  JOIN process ON process.id = sample.process
  JOIN series ON series.id = sample.series
  JOIN family ON family.id = series.family
 WHERE sample.process = :process AND family.mode {modes}
"""
_ORPHANS = """
SELECT orphan.series, orphan.value, orphan.timestamp, orphan.started
  FROM orphan
  JOIN series ON series.id = orphan.series
  JOIN family ON family.id = series.family
 WHERE orphan.process = :process AND family.mode {modes}
"""
_RETIRE = "INSERT INTO retired (series, value, timestamp, started) {rows} ON CONFLICT (series) DO UPDATE SET "
# A value that is NULL is NaN. SQLite's +, min() and max() of two values give NULL if either is: NaN stays NaN.
# What `value + excluded.value` loses by rounding (Knuth's TwoSum; NULL for Inf and NaN). Without it a sum could be one
# unit in the last place smaller once a process is folded, and Prometheus takes that for a counter's reset.
_ROUNDED_OFF = (
    "(value - ((value + excluded.value) - ((value + excluded.value) - value)))"
    " + (excluded.value - ((value + excluded.value) - value))"
)
_KEEPS = {
    "IN ('', 'sum')": f"value = value + excluded.value, rest = rest + ifnull({_ROUNDED_OFF}, 0.0)",
    "= 'min'": "value = min(value, excluded.value)",
    "= 'max'": "value = max(value, excluded.value)",
    "= 'mostrecent'": "value = excluded.value, timestamp = excluded.timestamp, started = excluded.started"
    " WHERE (excluded.timestamp, excluded.started) >= (ifnull(retired.timestamp, 0.0), retired.started)",
}


def _folds(rows: str) -> tuple[str, ...]:
    return tuple(_RETIRE.format(rows=rows.format(modes=modes)) + update for modes, update in _KEEPS.items())


FOLDS = _folds(_ROWS)
FOLD_ORPHANS = _folds(_ORPHANS)
_ORPHAN = "INSERT INTO orphan (process, series, value, timestamp, started) SELECT :process, * FROM ({rows})"
ORPHAN = _ORPHAN.format(rows=_ROWS.format(modes="IN ('', 'sum', 'min', 'max', 'mostrecent')"))
KEEP_ALL = """
INSERT INTO kept (process, series, value)
SELECT sample.process, sample.series, sample.value
  FROM sample
  JOIN series ON series.id = sample.series
  JOIN family ON family.id = series.family
 WHERE sample.process = :process AND family.mode = 'all'
ON CONFLICT (process, series) DO UPDATE SET value = excluded.value
"""
# Its pid may have been given to another process before it was settled.
DROP_SUCCEEDED = """
DELETE FROM kept
 WHERE process = :process
   AND EXISTS (SELECT 1 FROM process AS this JOIN process AS later
                   ON later.pid = this.pid AND later.pid_namespace = this.pid_namespace AND later.started > this.started
                WHERE this.id = :process)
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
GAUGES = "SELECT series.id FROM series JOIN family ON family.id = series.family WHERE family.type = 'gauge'"
RECORD_SETTLED = """
INSERT INTO slot (slot, settled) VALUES (:slot, :process)
ON CONFLICT (slot) DO UPDATE SET settled = max(settled, excluded.settled)
"""
assert all(mode in DELETE_LIVE for mode in LIVE_MODES)


@contextlib.contextmanager
def settling(connection: apsw.Connection, file: CellsFile) -> Iterator[list[Slot]]:
    """A transaction in which processes are settled; those put into the list are retired after the COMMIT.

    Raises CutOffError if the database is another pair's.
    """
    settled: list[Slot] = []
    try:
        with transaction(connection):
            refuse_newer(connection)
            _refuse_others(connection, file)
            yield settled
    except BaseException:
        for slot, _ in settled:
            file.release(slot)
        raise
    for slot, instance in settled:
        file.retire_slot(slot, instance)


def _refuse_others(connection: apsw.Connection, file: CellsFile) -> None:
    """Raise CutOffError unless rows and cells are of one pair: the files may have been replaced a moment ago."""
    header = file.header()
    if header is None or header[:2] != ids(connection, connection.filename):
        raise CutOffError(f"{connection.filename}: the rows are not those of the cells")


def settle_dead(connection: apsw.Connection, file: CellsFile, settled: list[Slot]) -> None:
    """Settle every process that is dead by the kernel's word, within `settling`.

    Judged once, here, with the write lock held: so two settlers never fold the same process twice.
    """
    _settle_those_dead(connection, file, file.live_slots(), settled)


def _settle_those_dead(
    connection: apsw.Connection, file: CellsFile, slots: list[Slot], settled: list[Slot]
) -> list[Slot]:
    seized = []
    for one in slots:
        if file.seize(one[0]):
            settled.append(one)
            seized.append(one)
    if any(_may_live(connection, file, *one) for one in seized):
        time.sleep(LAST_WORDS_SECONDS)
    for one in seized:
        settle(connection, file, *one)
    return seized


def _may_live(connection: apsw.Connection, file: CellsFile, slot: int, instance: int) -> bool:
    """Whether a process that is to be settled might be there, without its lock; in another pid namespace, it might."""
    if is_settled(connection, slot, instance):
        return False
    with contextlib.suppress(JournalGoneError, DamagedError):
        ingest(connection, file, slot, instance)
    found = connection.execute("SELECT os_pid, pid_namespace FROM process WHERE id = ?", (instance,)).fetchall()
    return any(namespace != pid_namespace() or _exists(int(str(pid))) for pid, namespace in found)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def settle(
    connection: apsw.Connection, file: CellsFile, slot: int, instance: int, statements: tuple[str, ...] = FOLDS
) -> None:
    """Fold a process whose slot is seized, if nobody has: first the rest of its journal, then its cells.

    statements: see `fold`.
    """
    if is_settled(connection, slot, instance):
        return
    with contextlib.suppress(JournalGoneError, DamagedError):  # a damaged journal: what has rows is folded all the same
        ingest(connection, file, slot, instance)
    copy_images(connection, instance, {block: file.image(block) for block in file.blocks.owned_by(slot)})
    fold(connection, instance, statements)
    connection.execute(RECORD_SETTLED, {"slot": slot, "process": instance})


def fold(connection: apsw.Connection, instance: int, statements: tuple[str, ...] = FOLDS) -> None:
    """Fold the rows of an instance into those that outlive it, within the caller's transaction.

    statements: into which of them; `FOLDS`, or `ORPHAN` where the process may live.
    """
    process = {"process": instance}
    for statement in (*statements, KEEP_ALL, DROP_SUCCEEDED, DELETE_SAMPLES):
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
    if _settle_those_dead(connection, file, namesakes, settled):
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
    except (JournalGoneError, DamagedError):
        return False
    found = connection.execute("SELECT pid, pid_namespace FROM process WHERE id = ?", (slot[1],)).fetchall()
    return found == [(pid, pid_namespace())]


def drop_gauges(connection: apsw.Connection) -> None:
    """Forget the gauges of all processes that ended, and nothing else, within the caller's transaction."""
    connection.execute("DELETE FROM kept")
    for table in ("retired", "orphan"):
        connection.execute(f"DELETE FROM {table} WHERE series IN ({GAUGES})")  # noqa: S608
    connection.execute("DELETE FROM process WHERE died IS NOT NULL")
    connection.execute("UPDATE store SET plan = plan + 1")


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
    connection.execute("DELETE FROM orphan")
    connection.execute("DELETE FROM kept")
    connection.execute(f"DELETE FROM sample WHERE process NOT IN ({marks})", ids)  # noqa: S608
    connection.execute(f"DELETE FROM process WHERE id NOT IN ({marks})", ids)  # noqa: S608
    connection.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM sample)")
    connection.execute("DELETE FROM family WHERE id NOT IN (SELECT family FROM series)")
    connection.execute("UPDATE store SET plan = plan + 1")


def return_to(connection: apsw.Connection, file: CellsFile) -> None:
    """Make orphans of what this process was in files that it had left, and that are back at their names.

    It brings the values itself, in other cells; until then these rows show them. It keeps the locks of the old cells:
    should this be lost with the next damage, these must not be taken for a dead process's. Raises apsw.Error.
    """
    with settling(connection, file) as settled:
        for slot, instance in file.live_slots():
            if slot in file.own_slots:
                settle(connection, file, slot, instance, (ORPHAN,))
                settled.append((slot, instance))


def settle_left(connection: apsw.Connection, file: CellsFile) -> None:
    """Settle every process that is dead into a copy of the rows, within the caller's transaction; no slot is freed."""
    for slot, instance in file.live_slots():
        if not file.is_alive(slot):
            settle(connection, file, slot, instance)


def adopt(connection: apsw.Connection, *, all_dead: bool, above: int) -> int:
    """Take over the rows of processes whose cells are gone, within the caller's transaction.

    all_dead: whether none of them can live (a reboot): then the rows are folded, else they become orphans, for
        their processes to bring the values themselves.
    above: the greatest number of uses of a slot in the cells that are gone, 0 if nothing is known of it.
    Returns a number of uses above all that were ever given to a slot.
    """
    for instance in _numbers(connection, "SELECT id FROM process WHERE died IS NULL"):
        fold(connection, instance, FOLDS if all_dead else (ORPHAN,))
    if all_dead:
        for instance in _numbers(connection, "SELECT DISTINCT process FROM orphan"):
            for statement in FOLD_ORPHANS:
                connection.execute(statement, {"process": instance})
        connection.execute("DELETE FROM orphan")
    newest = max(_numbers(connection, "SELECT id FROM process UNION SELECT settled FROM slot UNION SELECT 0"))
    # Seconds since the epoch grow faster than a slot is used: so no number is given twice, whatever was lost.
    seconds = int(time.clock_gettime(time.CLOCK_REALTIME))
    return max([seconds, *(uses + 1 for uses in (newest // layout.SLOTS, above) if uses < 2**31)])


def _numbers(connection: apsw.Connection, sql: str) -> list[int]:
    return [int(str(number)) for (number,) in connection.execute(sql).fetchall()]
