"""Times in the store: seconds since the epoch in all tables, and NULL alone where something never happened."""

from __future__ import annotations

import time

import pytest
from helpers import Child, Shell, child, scrape, value
from outsiders import Operator
from prometheus_client import Gauge

import sqlmetrics
from sqlmetrics.cells import records, sense

pytestmark = pytest.mark.promise(3, 7)

MOMENT = 1_700_000_000_250_000_000
"""In nanoseconds since the epoch."""


def test_every_time_is_seconds_and_null_alone_is_never(store: sqlmetrics.Store) -> None:
    """What the columns with times are declared as; none has a default that would be a time."""
    times = {"created", "made", "started", "died", "flushed", "timestamp", "began"}
    found = Shell(store.path)(
        "SELECT m.name AS of, c.name AS name, c.type AS type, c.dflt_value AS otherwise"
        " FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table'"
    )
    columns = [column for column in found if column["name"] in times]
    assert {column["name"] for column in columns} == times
    assert {(column["type"], column["otherwise"]) for column in columns} == {("REAL", None)}


def test_a_gauge_that_nobody_has_set_has_no_time(path: str, shell: Shell) -> None:
    """Neither in rows of a process, nor in those that it leaves; once it is set, it has its time."""
    store = sqlmetrics.install(path, flush_interval=1000)
    newest = Gauge("newest", "Newest", ["by"], multiprocess_mode="mostrecent")
    with child(make=lambda: (newest.labels("unset"), newest.labels("set").set(3), store.flush())[:0]) as one:
        one.do("make")
        times = "SELECT labels ->> 'by' AS by, timestamp > 1e9 AS is_time FROM samples ORDER BY by"
        expected = [{"by": "set", "is_time": 1}, {"by": "unset", "is_time": None}]
        assert shell(times) == expected
        one.kill()
    assert scrape() == {("newest", (("by", "set"),)): 3}
    assert shell.value("SELECT count(*) FROM samples WHERE pid IS NULL") == 2
    assert shell(times) == expected


@pytest.mark.parametrize("mode", ["all", "liveall", "mostrecent"])
def test_of_two_processes_that_started_in_one_moment_the_later_id_wins(
    path: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have one name, and their clock stands still: whose value is shown does not change."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    store = sqlmetrics.install(path, flush_interval=1000, process_identifier=lambda: "web")
    busy = Gauge("busy", "Busy", ["of"], multiprocess_mode=mode)  # type: ignore[arg-type]

    def work(number: int) -> int:
        busy.labels("both").set(number)
        store.flush()
        return store.part.arenas()[0].instance

    with child(work=work) as one, child(work=work) as two:
        of = {_instance(one, 1): 1, _instance(two, 2): 2}
        with Operator(path, "UPDATE instance SET started = 1700000000.0"):
            pid = {} if mode == "mostrecent" else {"pid": "web"}
            assert [value("busy", of="both", **pid) for _ in range(5)] == [of[max(of)]] * 5


def _instance(one: Child, number: int) -> int:
    return int(str(one.do("work", number)))


def test_a_journal_tells_times_in_nanoseconds_as_it_always_has() -> None:
    """So processes of two versions read each other's."""
    process = b'["process", "web", 11, 77, %d, "beef", [1, 2]]' % MOMENT
    family = b'["family", "requests", "counter", "", "Requests", %d, "", null]' % MOMENT
    for text in (process, family):
        record = sense.decode(text)
        assert 1_700_000_000.25 in record
        write = records.process_record if isinstance(record, records.ProcessRecord) else records.family_record
        assert write(record).encode() == text  # type: ignore[arg-type]
        nothing = sense.decode(text.replace(b"%d" % MOMENT, b"0"))
        assert None in nothing
        assert write(nothing).encode() == text.replace(b"%d" % MOMENT, b"0")  # type: ignore[arg-type]


def test_times_of_a_journal_stay_in_their_order() -> None:
    """What is closer together than a double can tell becomes the same, and never the other way round."""
    found = [records.from_nanoseconds(MOMENT + step) for step in range(0, 3000, 7)]
    assert found == sorted(found)  # type: ignore[type-var]
    assert len(set(found)) > 10
    assert [records.nanoseconds(one) for one in found] == sorted(records.nanoseconds(one) for one in found)
