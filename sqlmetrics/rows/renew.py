"""Makes a new pair of files from what can be read of the old one.

It reads the database into memory, checks it there, and frees it of its cells, because living processes bring their
values to new ones (see `settle.adopt`). Then it writes a new file, which takes the name of the old one.

All files may be deleted, and the first process that notices may have none of them open: it has just started, or was
just forked. It makes an empty store. A process that comes later and still reads the old database brings what only that
one has (`bring`): the sums of ended processes, and their `all` gauges. Living processes bring their own values.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import apsw

from .. import config
from ..cells import ownership
from ..cells.cellsfile import CellsFile, boot_id, create_cells, open_cells
from ..cells.descriptors import identity_of
from ..cells.records import FamilyRecord
from ..errors import DamagedError, SQLMetricsError
from ..process import waits
from . import checkup, database, exemplars, removal, schema, settle, undisturbed
from .damage import is_damage
from .database import StoreConnection, bump, transaction
from .fold import Legacy, fold
from .ingest import insert_other
from .making import make_file
from .series import read_help
from .yielding import Connection, opening

WAL_FILES = ("-wal", "-shm")
CELLS_SUFFIX = "-cells"
NEW_SUFFIX = "-new"
"""The suffix of a file in the making; if there is one, a crash has left it."""
DAMAGED_SUFFIX = "-damaged"
"""The suffix of a database that was moved aside because nothing could be read of it; only the last one is kept."""

_TRIES = 100


class Pair(NamedTuple):
    """A cells file, the identity of the database that belongs to it, and the store's id."""

    cells: CellsFile
    database: database.Identity | None
    store: str


class Renewed(NamedTuple):
    """The new pair, and whether the old database was moved aside."""

    pair: Pair
    moved_aside: bool


Files = tuple[database.Identity | None, ...]
"""The files at a store's four names, in the order of `ownership.SUFFIXES`; None where there is none."""


class OvertakenError(apsw.BusyError):
    """Somebody puts files in the place of those that were to be made anew. Look again."""


def renew(
    path: str, settings: config.Settings, last: StoreConnection | None, cells: CellsFile | None, seen: Files
) -> Renewed:
    """Make the pair of files at `path` anew. Call it inside `making`.

    last: a connection of this process to the database that is, or was, at the path. cells: its cells file. seen: the
    files that were found not to be in order.
    Raises PathError, SchemaError, OvertakenError, OSError or another apsw.Error; what is readable stays so.
    """
    with contextlib.ExitStack() as locks:
        left = _what_is_left(path, last, cells, locks)
        moved_aside = left is None and _size(path) > 0
        content, uses = left or _freed_of_cells(undisturbed.in_memory(), path, None)
        store, pair = schema.ids(content, path)
        identity = _write(path + NEW_SUFFIX, content, settings)
        if files_at(path)[::3] != seen[::3]:  # the WAL and its index may be made by opening the database
            forget_unfinished(path)
            raise OvertakenError(f"{path}: other files were put in its place meanwhile")
        if moved_aside:
            _keep(path, path + DAMAGED_SUFFIX)
        identity = _take_names(path, identity, content, settings)
    mode, gid = settings.mode, settings.gid()
    try:
        new = create_cells(path + CELLS_SUFFIX, store, pair, uses=uses, mode=mode, gid=gid)
    except FileExistsError as error:
        raise OvertakenError(f"{path}{CELLS_SUFFIX}: another file was put there meanwhile") from error
    if left is not None:  # it may have what is to be erased or swept
        new.note_erasure()
        new.sweeping.ask()
    return Renewed(Pair(new, identity, store), moved_aside)


def _what_is_left(
    path: str, last: StoreConnection | None, cells: CellsFile | None, locks: contextlib.ExitStack
) -> tuple[apsw.Connection, int] | None:
    """Return the newest state that can be read, see `_freed_of_cells`; None if there is none.

    Nobody writes to its source until `locks` end. The source is what this process has open, or else what is at the
    path, or else the database there without its WAL.
    """
    for source in _sources(path, last):
        with contextlib.ExitStack() as held:  # until the next source is tried, which may be the same database
            try:
                connection = held.enter_context(source())
                held.enter_context(_quiet(connection))
                found = _freed_of_cells(_copy_of(connection, path), path, cells)
            except Exception as error:  # any: a text may not be decodable
                if not is_damage(error):
                    raise
                continue
            locks.push(held.pop_all())
            return found
    return None


def _sources(
    path: str, last: StoreConnection | None
) -> Iterator[Callable[[], contextlib.AbstractContextManager[apsw.Connection]]]:
    if last is not None and last.holds_database():
        yield lambda: contextlib.nullcontext(last)
    if _size(path + NEW_SUFFIX) and not _size(path + "-wal") and _written(path) <= _written(path + NEW_SUFFIX):
        # A process was killed after it had deleted the WAL, and before it gave this file, which has all of it, the
        # database's name. A WAL that was cut off is empty, too, but then the database is newer than this file.
        yield lambda: _without_wal(path + NEW_SUFFIX)
    if _size(path):
        yield lambda: _with_its_wal(path)
        yield lambda: _without_wal(path)


def _size(name: str) -> int:
    try:
        return os.stat(name, follow_symlinks=False).st_size
    except OSError:
        return 0


def _written(name: str) -> int:
    try:
        return os.stat(name, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def forget_unfinished(path: str) -> None:
    """Delete the new file of a process that was killed, as the old ones turn out to be in order. Raises OSError."""
    _unlink(path + NEW_SUFFIX)


def content_of(last: StoreConnection, path: str, cells: CellsFile) -> apsw.Connection:
    """Return what ended processes have left in a database that was deleted and is still open, as rows in memory.

    Processes that have died since are folded. Raises apsw.Error or SQLMetricsError.
    """
    return _freed_of_cells(_copy_of(last, path), path, cells)[0]


def _without_wal(path: str, *, looking: bool = False) -> contextlib.closing[apsw.Connection]:
    ownership.check(path, looking=looking)
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW
    with opening():
        connection = undisturbed.connect(Connection, f"file:{quote(path)}?immutable=1", flags)
        connection.is_of_file = True
    return contextlib.closing(connection)


@contextlib.contextmanager
def _with_its_wal(path: str) -> Iterator[StoreConnection]:
    with contextlib.closing(database.connect(path)) as connection:
        check_wal(connection, path)
        yield connection


def check_wal(connection: apsw.Connection, path: str) -> None:
    """Raise DamagedError if the WAL is another database's: somebody has moved or copied only some of the files.

    SQLite does not notice (https://www.sqlite.org/howtocorrupt.html, 1.4). But new files have the pair's id in the
    database itself, and it never changes: if the WAL has another one, it is not theirs.
    """
    _, pair = schema.ids(connection, path)
    try:
        with _without_wal(path, looking=True) as alone:
            _, own = schema.ids(alone, path)
    except (apsw.Error, SQLMetricsError, ValueError):
        return  # it is being written to, or an older version made it, whose first rows were in the WAL
    if own != pair and own:
        raise DamagedError(f"{path}: {path}-wal belongs to another database, with the id {pair} and not {own}")


@contextlib.contextmanager
def _quiet(connection: apsw.Connection) -> Iterator[None]:
    """Keep other processes from writing, if that is possible."""
    database.wait_for_others(connection, waits.CALL)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except apsw.ReadOnlyError:
        connection.execute("BEGIN")
    try:
        yield
    finally:
        with contextlib.suppress(apsw.Error):
            database.roll_back(connection)


def _copy_of(source: apsw.Connection, path: str) -> apsw.Connection:
    copy = undisturbed.in_memory()
    database.copy_into(copy, source)
    database.leave_zeros(copy)
    if schema.check(copy, path):
        exemplars.drop_nonsense(copy)
        checkup.drop_unreferenced(copy)
        checkup.check_rows(copy)
        schema.ids(copy, path)
    return copy


def _freed_of_cells(content: apsw.Connection, path: str, cells: CellsFile | None) -> tuple[apsw.Connection, int]:
    """Prepare rows for a new cells file, and return them with the number at which its slots' uses begin."""
    pair = os.urandom(16).hex()
    version = schema.check(content, path)
    schema.migrate(content, version)
    with database.transaction(content):
        if version == 0:
            content.execute(UPDATE_BEGAN, (time.clock_gettime(time.CLOCK_REALTIME),))
        content.execute("UPDATE store SET id = ? WHERE id = ''", (os.urandom(16).hex(),))
        old = _cells_of(content, path, cells)
        header = old.header() if old else None
        rebooted = header is not None and header.boot != boot_id()
        if old is not None and not rebooted:
            removal.mark_noted(content, old)
            settle.settle_left(content, old)
        content.execute("DELETE FROM removed")
        uses = settle.adopt(content, all_dead=rebooted, above=_most_uses(path, cells))
        content.execute("UPDATE store SET pair = ?, plan = plan + 1", (pair,))
    return content, uses


def _most_uses(path: str, cells: CellsFile | None) -> int:
    """Return the greatest number of uses of a slot, 0 if there is no cells file; some instances may have no rows."""
    files = (cells, open_cells(path + CELLS_SUFFIX, writable=True))
    return max((max(file.uses) for file in files if file), default=0)


def _cells_of(content: apsw.Connection, path: str, cells: CellsFile | None) -> CellsFile | None:
    """Return the cells file of these rows: `cells`, or the one at the path; None if it is neither."""
    ids = schema.ids(content, path)
    for file in (cells, open_cells(path + CELLS_SUFFIX, writable=True)):
        header = file.header() if file else None
        if header is not None and header[:2] == ids:
            return file
    return None


def _keep(path: str, name: str) -> None:
    """Give the database a second name; it has the first one until a new one takes it, so that there always is one."""
    ownership.check_file(name)
    _unlink(name)
    try:
        os.link(path, name)
    except OSError:  # a file system without links
        os.replace(path, name)


def files_at(path: str) -> Files:
    """Return which files are at the names. Raises OSError."""
    return tuple(database.file_identity(path + suffix) for suffix in ownership.SUFFIXES)


def _take_names(
    path: str, new: database.Identity | None, content: apsw.Connection, settings: config.Settings
) -> database.Identity | None:
    """Give the new database the name, and an empty WAL; return the identity of the one that has it then.

    Somebody may be moving the old files back just now. The old WAL must not stay beside the new database: SQLite would
    take them for one, and what is in both would be counted twice. So if it is there afterwards, all is made once more.
    """
    for _ in range(_TRIES):
        # WAL and index are made here and not by SQLite, which would follow a symlink.
        mine = {path: new, **{path + suffix: _make_anew(path + suffix, settings) for suffix in WAL_FILES}}
        _unlink(path + CELLS_SUFFIX)
        os.replace(path + NEW_SUFFIX, path)
        if all(database.file_identity(name) in (identity, None) for name, identity in mine.items()):
            return new
        new = _write(path + NEW_SUFFIX, content, settings)
    forget_unfinished(path)
    raise OvertakenError(f"{path}: other files are put in its place again and again")


def _make_anew(name: str, settings: config.Settings) -> database.Identity:
    """Replace a file by an empty one; try again if a shell that opens the old database makes it at the same moment.

    To give up would leave the old database without its WAL, and so without its newest rows.
    """
    for tries in itertools.count(1):
        _unlink(name)
        try:
            fd = make_file(name, settings.mode, settings)
        except FileExistsError:
            if tries == _TRIES:
                raise
        else:
            break
    identity = identity_of(os.fstat(fd))
    os.close(fd)
    return identity


def _unlink(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


def _write(name: str, content: apsw.Connection, settings: config.Settings) -> database.Identity | None:
    """Write a database in memory to a new file in WAL mode, which no other process knows yet."""
    ownership.check_file(name)
    for suffix in ("", *WAL_FILES):
        _unlink(name + suffix)
    os.close(make_file(name, settings.mode, settings))
    try:
        with contextlib.closing(database.connect(name)) as new:
            database.use_wal(new, name)
            with new.backup("main", content, "main") as copying:
                copying.step()
            new.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            return new.opened[0]
    except (apsw.Error, OSError):
        _unlink(name)
        raise
    finally:
        for suffix in WAL_FILES:
            _unlink(name + suffix)


UPDATE_BEGAN = "UPDATE store SET began = ?"
SELECT_IS_MISSING = "SELECT began > ? AND NOT EXISTS (SELECT 1 FROM brought WHERE brought.store = ?) FROM store"
INSERT_BROUGHT = "INSERT INTO brought (store) VALUES (?) ON CONFLICT (store) DO NOTHING"
SELECT_FAMILIES = "SELECT name, type, mode, help, made, unit, registered FROM family"
SELECT_LEFT = """
SELECT family.name, family.type, series.labels, series.name, series.variant, series.created,
       part.process, part.value, part.timestamp, part.started
  FROM (SELECT series, 0 AS process, value, timestamp, started FROM retired
        UNION ALL SELECT series, 0, rest, timestamp, started FROM retired WHERE rest <> 0.0
        UNION ALL SELECT series, process, value, NULL, NULL FROM kept) AS part
  JOIN series ON series.id = part.series JOIN family ON family.id = series.family
"""
SELECT_REMEMBERED = "SELECT id, pid, os_pid, pid_namespace, started, journal, died FROM instance WHERE died IS NOT NULL"
INSERT_REMEMBERED = """
INSERT INTO instance (id, pid, os_pid, pid_namespace, started, journal, died) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING
"""
UPSERT_SERIES = """
INSERT INTO series (family, labels, name, variant, created)
SELECT id, ?3, ?4, ?5, ?6 FROM family WHERE name = ?1 AND type = ?2
ON CONFLICT (family, labels, name, variant) DO UPDATE SET created = min(created, excluded.created)
RETURNING id, (SELECT mode FROM family WHERE name = ?1 AND type = ?2)
"""


def is_missing(connection: apsw.Connection, store: str, moment: float) -> bool:
    """Whether a store was made empty after a moment (seconds since the epoch), and lacks what `store` had.

    If it was made before that moment, it is another store, which was moved to the path.
    """
    return bool(connection.execute(SELECT_IS_MISSING, (moment, store)).get)


def bring(connection: apsw.Connection, old: apsw.Connection, store: str) -> None:
    """Add what ended processes have left in `old`, the store of that id, unless that was added before.

    Raises apsw.Error.
    """
    with transaction(connection):
        connection.execute(INSERT_BROUGHT, (store,))
        if connection.changes():
            for name, typ, mode, text, made, unit, registered in _rows(old, SELECT_FAMILIES):
                insert_other(
                    connection, 0, FamilyRecord(name, typ, mode, read_help(text), made, unit, bool(registered))
                )
            connection.executemany(INSERT_REMEMBERED, _rows(old, SELECT_REMEMBERED))
            fold(connection, list(_legacies(connection, old)))
            bump(connection, "plan")


def _legacies(connection: apsw.Connection, old: apsw.Connection) -> Iterable[Legacy]:
    for *series, process, value, timestamp, started in _rows(old, SELECT_LEFT):
        ((number, mode),) = _rows(connection, UPSERT_SERIES, series)
        yield Legacy.of_one(process, number, mode, value, timestamp, started)


def _rows(connection: apsw.Connection, sql: str, bindings: Any = ()) -> list[Any]:
    return connection.execute(sql, bindings).fetchall()
