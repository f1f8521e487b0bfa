"""The schema: its numbered migrations, the check that a database is a store, and the ids in it."""

from __future__ import annotations

import contextlib
import functools
import os

import apsw

from ..errors import DamagedError, ForeignFileError, SchemaError, StoreError
from . import undisturbed
from .database import not_a_database, transaction
from .yielding import YieldedError

APPLICATION_ID = 0x736D6574  # "smet"
OUR_TABLES = ("store", "series", "cell_copy", "sample")
"""Every store has three of these: `cell_copy` was called `sample` up to schema 6."""
SELECT_OUR_TABLES = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN (?, ?, ?, ?)"


@functools.cache
def migrations() -> list[tuple[int, str]]:
    """Return the numbered migrations in order: (number, SQL). They are in the package, or in a checkout at the top.

    They are read once, at the import of this module: a worker that has given up its rights may not read them any more.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = [os.path.join(place, "migrations") for place in (package, os.path.dirname(package))]
    folder = folders[0] if os.path.isdir(folders[0]) else folders[1]
    there = os.listdir(folder) if os.path.isdir(folder) else []
    files = sorted(name for name in there if name[:4].isdigit() and name.endswith(".sql"))
    return [(int(name[:4]), _read(os.path.join(folder, name))) for name in files]


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


migrations()


def schema_version() -> int:
    """Return the number of the newest migration."""
    return migrations()[-1][0]


def check(connection: apsw.Connection, path: str) -> int:
    """Return the schema version of the database at `path`, 0 if it is empty; refuse one that is not ours.

    Raises ForeignFileError or SchemaError; writes nothing.
    """
    try:
        application = connection.pragma("application_id")
        version = connection.pragma("user_version")
        empty = not connection.execute("SELECT count(*) FROM sqlite_schema").get
    except apsw.NotADBError:
        raise not_a_database(path) from None
    except YieldedError:
        raise
    except apsw.BusyError as error:
        raise StoreError(f"{path}: another program keeps the file locked for itself ({error}); stop it") from error
    if application == 0 and version == 0 and empty:
        return 0
    if application != APPLICATION_ID:
        if connection.execute(SELECT_OUR_TABLES, OUR_TABLES).get == 3:
            raise DamagedError(f"{path}: its application_id is {application:#x}, a store has {APPLICATION_ID:#x}")
        raise ForeignFileError(
            f"{path}: this SQLite file belongs to another program (application_id {application:#x},"
            f" a store has {APPLICATION_ID:#x}); name another path"
        )
    if version > schema_version():
        refuse_newer(connection)
    return int(version)


def refuse_newer(connection: apsw.Connection) -> None:
    """Raise SchemaError if the store was made by a version whose rows this one would damage."""
    lowest = connection.execute("SELECT min_writer FROM store").get
    if isinstance(lowest, int) and lowest > schema_version():
        raise SchemaError(
            f"{connection.filename}: the store has schema {connection.pragma('user_version')}, written by {lowest} or"
            f" newer; this sqlmetrics knows {schema_version()}: upgrade it in this process, or give it its own store"
        )


def migrate(connection: apsw.Connection, version: int) -> None:
    """Apply the migrations above `version`, each with its number in one transaction."""
    for number, sql in migrations():
        if number > version:
            with transaction(connection):
                connection.execute(sql)
                connection.pragma("user_version", number)
                connection.pragma("application_id", APPLICATION_ID)


SELECT_TEXTS = "SELECT type, name, tbl_name, sql FROM sqlite_schema"


@functools.cache
def _texts() -> frozenset[tuple[object, ...]]:
    with contextlib.closing(undisturbed.in_memory()) as connection:
        migrate(connection, 0)
        return frozenset(connection.execute(SELECT_TEXTS).fetchall())


def check_texts(connection: apsw.Connection) -> None:
    """Raise DamagedError if a table, index or view of this version has changed; SQLite does not check that."""
    if connection.pragma("user_version") == schema_version():
        changed = _texts().difference(connection.execute(SELECT_TEXTS).fetchall())
        if changed:
            raise DamagedError(f"not in the schema as it was made: {', '.join(sorted(str(row[1]) for row in changed))}")


def ids(connection: apsw.Connection, path: str) -> tuple[str, str]:
    """Return the ids of the store and of its pair of files. Raises DamagedError if it has none."""
    found = connection.execute("SELECT id, pair FROM store").fetchall()
    if len(found) != 1:
        raise DamagedError(f"{path}: the table store has {len(found)} rows, wanted is one")
    return str(found[0][0]), str(found[0][1])
