"""A store that an earlier version has made: its schema becomes this version's, and every value stays."""

from __future__ import annotations

import contextlib
import re
import subprocess

import pytest
from helpers import Shell, value
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics.rows import schema, undisturbed

pytestmark = pytest.mark.promise(3)

BEFORE = 6
"""The last schema with times in whole nanoseconds, and with 0 for never."""
ROWS = """
INSERT INTO family (id, name, type, mode, help, made, unit, registered) VALUES
    (1, 'requests', 'counter', '', 'Requests', 1700000000123456789, '', 1),
    (2, 'size', 'gauge', 'all', x'6164eda080', 1700000000000000001, 'bytes', 0),
    (3, 'newest', 'gauge', 'mostrecent', 'Newest', 0, '', 0),
    (4, 'state', 'stateset', 'max', 'State', 1700000000500000000, '', 0);
INSERT INTO series (id, family, name, labels, variant, created) VALUES
    (1, 1, 'requests_total', '{"by":"a"}', '', 1700000000.25),
    (2, 2, 'size_bytes', '{}', '', 1700000000.5),
    (3, 3, 'newest', '{"by":"set"}', '', 1700000001.0),
    (4, 3, 'newest', '{"by":"unset"}', '', 1700000002.0),
    (5, 4, 'state', '{}', 'on', 1700000003.0);
INSERT INTO process (id, pid, os_pid, pid_namespace, started, journal, died, flushed, partial) VALUES
    (4096, '11', 11, 77, 1700000000250000000, 5000, NULL, 1700000009125000000, 1),
    (4097, 'unknown-4097', 0, 0, 0, 10, NULL, NULL, 0),
    (4098, '12', 12, 77, 1700000001500000000, 20, 1700000002750000000, NULL, 0);
INSERT INTO slot (slot, settled) VALUES (2, 4098);
INSERT INTO sample (cell, series, process, value, timestamp, gauge) VALUES
    (40000, 1, 4096, 3.0, NULL, 0),
    (40001, 2, 4096, NULL, NULL, 1),
    (40003, 3, 4096, 5.0, 1700000004.5, 1),
    (40005, 4, 4096, 0.0, 0.0, 1),
    (40006, 5, 4097, 1700000005.5, NULL, 1);
INSERT INTO retired (series, value, rest, timestamp, started) VALUES
    (1, 0.3, 1e-17, NULL, 1700000000750000000),
    (3, 7.0, 0.0, 1700000003.5, 1700000000875000000),
    (4, 0.0, 0.0, 0.0, 0);
INSERT INTO kept (process, series, value) VALUES (4098, 2, 9.0);
INSERT INTO orphan (process, series, value, timestamp, started) VALUES
    (8192, 1, 2.0, NULL, 1700000000125000000),
    (8192, 3, 6.0, 1700000004.25, 0);
INSERT INTO removed (cell, process) VALUES (40009, 4096);
INSERT INTO exemplar (series, labels, value, timestamp, changed) VALUES (1, '{"trace":"x"}', 1.0, 1700000006.5, 3);
INSERT INTO brought (store) VALUES ('beef');
UPDATE store SET id = '0123456789abcdef0123456789abcdef', pair = 'fedcba9876543210fedcba9876543210';
UPDATE store SET epoch = 2, plan = 3, ended = 4, exemplars = 5, began = 1700000007500000000;
"""
AFTER = {
    "store": [(1, "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210", 2, 3, 4, 5, 7, 1700000007.5)],
    "family": [
        (1, "requests", "counter", "", "Requests", 1700000000.123456789, "", 1),
        (2, "size", "gauge", "all", b"ad\xed\xa0\x80", 1700000000.000000001, "bytes", 0),
        (3, "newest", "gauge", "mostrecent", "Newest", None, "", 0),
        (4, "state", "stateset", "max", "State", 1700000000.5, "", 0),
    ],
    "series": [
        (1, 1, "requests_total", '{"by":"a"}', "", 1700000000.25),
        (2, 2, "size_bytes", "{}", "", 1700000000.5),
        (3, 3, "newest", '{"by":"set"}', "", 1700000001.0),
        (4, 3, "newest", '{"by":"unset"}', "", 1700000002.0),
        (5, 4, "state", "{}", "on", 1700000003.0),
    ],
    "instance": [
        (4096, "11", 11, 77, 1700000000.25, 5000, None, 1700000009.125, 1),
        (4097, "unknown-4097", 0, 0, None, 10, None, None, 0),
        (4098, "12", 12, 77, 1700000001.5, 20, 1700000002.75, None, 0),
    ],
    "slot": [(2, 4098)],
    "cell_copy": [
        (40000, 1, 4096, 3.0, 0, 0, None),
        (40001, 2, 4096, None, 1, 0, None),
        (40003, 3, 4096, 5.0, 1, 1, 1700000004.5),
        (40005, 4, 4096, 0.0, 1, 1, None),
        (40006, 5, 4097, 1700000005.5, 1, 0, None),
    ],
    "retired": [
        (1, 0.3, 1e-17, None, 1700000000.75),
        (3, 7.0, 0.0, 1700000003.5, 1700000000.875),
        (4, 0.0, 0.0, None, None),
    ],
    "kept": [(4098, 2, 9.0)],
    "orphan": [(8192, 1, 2.0, None, 1700000000.125), (8192, 3, 6.0, 1700000004.25, None)],
    "removed": [(40009, 4096)],
    "exemplar": [(1, '{"trace":"x"}', 1.0, 1700000006.5, 3)],
    "brought": [("beef",)],
    "ended_process": [],
    "ended_count": [],
}
VIEWS = {
    "samples": "metric, labels, pid, mode, value, timestamp",
    "metrics": "family, type, metric, labels, value",
    "totals": "series, pid, value",
    "processes": "pid, os_pid, state, started, died, rows, flushed",
}


def _make_earlier(path: str, rows: str) -> None:
    """Make a database as an earlier version did, without a cells file."""
    made = [sql for number, sql in schema.migrations() if number <= BEFORE]
    marks = (
        f"PRAGMA journal_mode = WAL; PRAGMA user_version = {BEFORE}; PRAGMA application_id = {schema.APPLICATION_ID};"
    )
    subprocess.run(["sqlite3", "-bail", path], input="\n".join([*made, rows, marks]), text=True, check=True)


def _views(path: str) -> dict[str, list[str]]:
    return {view: sorted(map(str, Shell(path)(f"SELECT {columns} FROM {view}"))) for view, columns in VIEWS.items()}


def test_every_row_of_an_earlier_store_is_kept_with_its_times_in_seconds(path: str) -> None:
    """Rows of all kinds: 0 becomes NULL where it meant never, and the views show what they showed but for that."""
    _make_earlier(path, ROWS)
    shown = _views(path)
    assert all(shown.values())

    with contextlib.closing(undisturbed.connect(undisturbed.Connection, path)) as connection:
        assert schema.check(connection, path) == BEFORE
        schema.migrate(connection, BEFORE)
        schema.check_texts(connection)
        after = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in AFTER}
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert after == AFTER
    assert {name for (name,) in tables} == AFTER.keys()
    never = "'1970-01-01 00:00:00'"
    shown["processes"] = [row.replace(never, "None") for row in shown["processes"]]
    assert _views(path) == shown


def test_what_ended_processes_left_in_an_earlier_store_is_in_scrapes(path: str, shell: Shell) -> None:
    """A process of this version goes on with it; the cells of the earlier one are gone, as after a reboot."""
    _make_earlier(path, ROWS + "DELETE FROM sample; DELETE FROM process WHERE died IS NULL; DELETE FROM removed;")
    sqlmetrics.install(path)
    Counter("requests", "Requests", ["by"]).labels("a").inc()
    assert value("requests_total", by="a") == 3.3
    assert value("newest", by="set") == 6.0
    assert value("size_bytes", pid="12") == 9.0
    assert shell.value("PRAGMA user_version") == schema.schema_version()


def test_the_table_store_has_one_row_and_no_other(store: sqlmetrics.Store) -> None:
    """A second row is refused."""
    done = subprocess.run(
        ["sqlite3", store.path, "INSERT INTO store (id, pair, min_writer) VALUES ('', '', 1)"],
        capture_output=True,
        text=True,
    )
    assert "CHECK constraint failed: only = 1" in done.stderr


def test_no_table_is_called_almost_as_a_view_is(store: sqlmetrics.Store) -> None:
    """Who queries a table by mistake gets an error, not the numbers of something else."""
    rows = Shell(store.path)("SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view')")
    tables, views = ({str(row["name"]) for row in rows if row["type"] == kind} for kind in ("table", "view"))
    assert len(tables) > 10
    assert views >= {"samples", "metrics", "processes"}
    alike = re.compile("(e?s)?$")
    assert not {alike.sub("", table, count=1) for table in tables} & {alike.sub("", view, count=1) for view in views}
