"""Files are made anew only for a reason, and nothing is lost on the way, wherever it fails or is killed."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import apsw
import pytest
import vandal
from helpers import FILES, Child, child, delete, in_child, scrape, unflushed, value, wait_for
from interruption import Interruption
from outsiders import Operator
from prometheus_client import Counter, Gauge

import sqlmetrics
from sqlmetrics.cells import arenas, cellsfile, journal, layout, region
from sqlmetrics.rows import database, files, onlooking, renew, undisturbed

pytestmark = pytest.mark.promise(4)

START = """
import sys, sqlmetrics
from prometheus_client import Counter
sys.stdin.readline()
sqlmetrics.install(sys.argv[1])
Counter("requests", "Requests").inc()
print("counted", flush=True)
sys.stdin.readline()
"""
READY = """
import sys, sqlmetrics
print("ready", flush=True)
sys.stdin.readline()
sqlmetrics.install(sys.argv[1])
"""


def identities(path: str) -> list[int]:
    """The inodes of the database and the cells: others mean that they were made anew."""
    return [os.stat(path + suffix).st_ino for suffix in ("", "-cells")]


def dead(count: Callable[[], object]) -> None:
    """A process that counts and is killed."""
    with child(count=lambda: (count(), None)[1]) as one:
        one.do("count")
        one.kill()


def run_until(line: int, action: Callable[[], object], *modules: object) -> bool:
    """Do something in a forked child that is killed at a line of these modules; False if it was done before that."""
    watch = Interruption(line, modules, lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[arg-type]

    def act() -> None:
        with watch.watching():
            action()

    with child(act=act) as one, contextlib.suppress(AssertionError):
        one.do("act")
        return False
    return True


def shows(expected: float, name: str = "requests_total") -> Callable[[], bool]:
    """A condition: a scrape has this value."""

    def is_shown() -> bool:
        try:
            return value(name) == expected
        except sqlmetrics.SQLMetricsError:
            return False

    return is_shown


@pytest.mark.slow
def test_processes_that_start_at_once_leave_the_files_alone(path: str) -> None:
    """Beside one that counts; no counter goes back, and each of them counts."""
    sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc(100)
    before, expected = identities(path), 100
    for _ in range(6):
        command = [sys.executable, "-c", START, path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started = [subprocess.Popen(command, text=True, **pipes) for _ in range(8)]  # type: ignore[call-overload]
        for one in started:
            one.stdin.write("\n")
            one.stdin.flush()
        last = 0.0
        while any(one.poll() is None for one in started):
            found = value("requests_total") or 0.0
            assert found >= last
            last = found
            for one in started:
                if one.stdout.closed or not one.stdout.readline():
                    continue
                one.stdout.close()
                one.stdin.close()
        expected += len(started)
        assert value("requests_total") == expected
    assert identities(path) == before


@pytest.mark.slow
def test_a_claim_that_is_killed_at_any_line_is_no_reason(path: str) -> None:
    """Nothing is made anew, everything is counted once, and the slot is used again."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests, late = Counter("requests", "Requests"), Counter("late", "Late")
    requests.inc(100)
    dead(requests.inc)
    store.flush()
    store.flusher.stop()
    before, expected, line = identities(path), 101.0, 0
    killed = True
    while killed:
        line += 1
        killed = run_until(line, lambda: late.inc(0), cellsfile, region, arenas, journal)
        if line % 5 == 0:
            dead(lambda: (sqlmetrics.uninstall(), sqlmetrics.install(path), requests.inc()))  # looks at the files
            expected += 1
            assert value("requests_total") == expected
    assert line > 60
    assert identities(path) == before
    store.flusher.allow()
    store.flush()
    assert store.file.look().held() == [(arena.slot, arena.instance) for arena in store.part.arenas()]
    used = bytes(store.file.states).rstrip(b"\0")
    assert len(used) <= 3


@pytest.mark.slow
def test_a_making_that_is_killed_at_any_line_loses_nothing(path: str) -> None:
    """What ended processes left is in the database, in its WAL, or in the file in the making; the next one takes it."""
    sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    dead(lambda: (requests.inc(10), sqlmetrics.install(path).flush()))
    sqlmetrics.uninstall()
    expected, line, killed = 10.0, 0, True
    while killed:
        line += 1
        os.unlink(path + "-cells")
        killed = run_until(line, lambda: sqlmetrics.install(path), renew, cellsfile)
        in_child(lambda: (sqlmetrics.install(path), requests.inc(), None)[2])
        expected += 1
        assert scrape(path)[("requests_total", ())] == expected, f"after a SIGKILL at line {line}"
    assert line > 60
    assert sorted(os.listdir(os.path.dirname(path))) == sorted("metrics.sqlite3" + suffix for suffix in FILES)


def test_an_idle_process_brings_its_counts_to_the_scrape_that_asks_it(path: str) -> None:
    """The files were deleted while it was idle, and made anew by a process that has ended since."""
    store = sqlmetrics.install(path, flush_interval=1000)
    restarts, work = Counter("restarts", "Restarts"), Counter("work", "Work")
    restarts.inc(10)
    store.flush()

    def wipe() -> None:
        work.inc(5)
        sqlmetrics.install(path).flush()
        delete(path)
        wait_for(lambda: (sqlmetrics.install(path).flush(), os.path.exists(path + "-cells"))[1])
        work.inc()

    with child(wipe=wipe) as worker:
        worker.do("wipe")
        worker.end()
    restarts.inc(300)

    assert (value("restarts_total"), value("work_total")) == (310, 6)
    store.flush()
    assert (value("restarts_total"), value("work_total")) == (310, 6)
    restarts.inc()
    assert in_child(lambda: value("restarts_total")) == 311


def test_a_living_process_is_not_taken_for_a_later_one_that_was_settled(path: str) -> None:
    """Others have used its slot's number in the new files, and were settled there, before it comes."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    requests.inc(100)
    store.flush()
    store.flusher.stop()

    def count() -> None:
        requests.inc()
        wait_for(lambda: (sqlmetrics.install(path).flush(), os.path.exists(path + "-cells"))[1])

    os.unlink(path + "-cells")
    for _ in range(3):  # each settles the one before it, whose slot is the first of the new files
        in_child(count)
    in_child(lambda: (sqlmetrics.install(path).flush(), None)[1])
    store.flusher.allow()
    requests.inc()
    wait_for(lambda: (store.flush(), shows(104)())[1])


@pytest.mark.parametrize("forks", [False, True])
@pytest.mark.parametrize("failure", ["no folder", "no descriptor", "not now"])
def test_what_ended_processes_left_survives_a_failed_attempt(
    path: str, monkeypatch: pytest.MonkeyPatch, failure: str, forks: bool
) -> None:
    """A process has the old database open; it cannot make files at first, and may fork in the meantime."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    dead(lambda: requests.labels("dead").inc(1000))
    requests.labels("here").inc(10)
    store.flush()
    store.flusher.stop()

    delete(path)
    folder = os.path.dirname(path)
    with monkeypatch.context() as patch:
        if failure == "no folder":
            os.rmdir(folder)
        elif failure == "no descriptor":
            patch.setattr(renew, "make_file", _fail)
        else:
            patch.setattr(files, "renew", _Failing())
        for _ in range(4):
            store.flush()
        if forks:
            in_child(lambda: requests.labels("child").inc(0))
        for _ in range(4):
            store.flush()
    if failure == "no folder":
        os.mkdir(folder)
    store.flusher.allow()

    wait_for(lambda: (store.flush(), os.path.exists(path + "-cells"))[1])
    found = scrape()
    assert found[("requests_total", (("by", "dead"),))] == 1000
    assert found[("requests_total", (("by", "here"),))] == 10


def _fail(*_: object) -> int:
    raise OSError(24, "Too many open files")


class _Failing:
    """In the place of the module `renew`."""

    forget_unfinished = staticmethod(renew.forget_unfinished)

    def renew(self, *_: object) -> None:
        _fail()


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("others", [1, 3])
@pytest.mark.slow
def test_the_first_who_notices_has_nothing_of_the_old_files(path: str, emptied: bool, others: int) -> None:
    """It makes a store of nothing; what ended processes left is brought, once, by those that have it open still."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    last = Gauge("last", "Last", ["by"], multiprocess_mode="max")
    each = Gauge("each", "Each")

    def leave() -> None:
        requests.labels("dead").inc(0.1)
        requests.labels("dead").inc(0.2)
        last.labels("dead").set(7)
        each.set(5)

    with contextlib.ExitStack() as stack:
        dead(leave)
        dead(leave)
        steps = {
            "count": lambda: (requests.labels("living").inc(), store.flush())[0],
            "flush": lambda: store.flush().name,
        }
        living = [stack.enter_context(child(**steps)) for _ in range(others)]  # type: ignore[arg-type]
        for one in living:
            one.do("count")
        before = scrape()
        delete(path)
        for suffix in FILES if emptied else ():
            open(path + suffix, "w").close()
        in_child(lambda: (subprocess.run([sys.executable, "-c", START, path], input="\n\n", text=True), None)[1])

        for one in living:
            one.do("flush")
            wait_for(lambda one=one: one.do("flush") != "BUSY")
        found = scrape()

    for key, expected in before.items():
        assert found.get(key) == expected, key
    assert found[("requests_total", ())] == 1


UNDECODABLE = {
    "a table's name": """PRAGMA writable_schema = ON; UPDATE sqlite_schema
        SET name = CAST(x'66de' AS TEXT), tbl_name = CAST(x'66de' AS TEXT) WHERE name = 'family'""",
    "the store's id": "UPDATE store SET id = CAST(x'66de' AS TEXT)",
    "a family's help": "UPDATE family SET help = CAST(x'66de' AS TEXT)",
    "a sample's name": "UPDATE series SET name = CAST(x'66de' AS TEXT)",
}


@pytest.mark.parametrize("statement", UNDECODABLE.values(), ids=UNDECODABLE)
def test_a_deleted_store_that_cannot_be_read_keeps_nobody_from_the_new_one(path: str, statement: str) -> None:
    """What ended processes had left in it is lost, and what a living one has counted is not."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    requests.inc(3)
    store.flush()
    with Operator(path) as operator:
        operator.run(statement)
    delete(path)
    in_child(lambda: (subprocess.run([sys.executable, "-c", START, path], input="\n\n", text=True), None)[1])

    wait_for(lambda: (store.flush(), value("requests_total") == 4)[1])


def test_what_one_process_has_brought_no_other_reads_again(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes long where much was left, and many processes go over at the same time."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    readings, content_of = mmap.mmap(-1, 1), renew.content_of

    def content_of_and_count(*arguments: object) -> object:
        readings[0] += 1
        return content_of(*arguments)  # type: ignore[arg-type]

    def count(amount: int) -> str:
        requests.labels(str(os.getpid())).inc(amount)
        return store.flush().name

    def is_back(one: Child) -> bool:
        one.do("count", 0)
        return value("requests_total", by="dead") == 100 and value("requests_total", by=str(one.pid)) == 2

    monkeypatch.setattr(renew, "content_of", content_of_and_count)
    dead(lambda: requests.labels("dead").inc(100))
    with child(count=count) as first, child(count=count) as second:
        for one in (first, second):
            one.do("count", 2)
        other = subprocess.Popen([sys.executable, "-c", READY, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        delete(path)
        other.communicate(b"\n")
        for one in (first, second):
            wait_for(lambda one=one: is_back(one))
    assert readings[0] <= 1  # none where a flusher of theirs was faster than the third, and has made the files itself


def test_a_process_that_starts_leaves_the_making_to_one_that_has_the_deleted_wal_open(path: str) -> None:
    """What ended processes left since the last checkpoint is in it only; an idle process is not waited for for ever."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    dead(lambda: requests.labels("dead").inc(110))
    requests.labels("living").inc()
    store.flush()
    command = [sys.executable, "-c", START, path]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        os.unlink(path + "-wal")
        starter.stdin.write("\n")
        starter.stdin.flush()
        wait_for(lambda: (store.flush(), os.path.exists(path + "-wal"))[1])
        assert starter.stdout.readline() == "counted\n"
        assert (value("requests_total", by="dead"), value("requests_total", by="living")) == (110, 1)

        store.flusher.stop()
        os.unlink(path + "-wal")
        in_child(lambda: (sqlmetrics.uninstall(), sqlmetrics.install(path), None)[2])
        assert os.path.exists(path + "-wal")
        starter.communicate("\n")


def test_another_store_that_was_moved_to_the_path_gets_nothing_of_it(folder, path: str) -> None:
    """What ended processes of one store left is not added to a store that was there before."""
    other = str(folder / "other.sqlite3")
    in_child(lambda: (sqlmetrics.install(other), Counter("others", "Others").inc(7), None)[2])
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    dead(lambda: requests.labels("dead").inc(1000))
    requests.labels("here").inc()
    store.flush()

    for suffix in FILES:
        os.replace(other + suffix, path + suffix)

    wait_for(lambda: (store.flush(), shows(1)())[1] or value("requests_total", by="here") == 1)
    assert value("others_total") == 7
    assert value("requests_total", by="dead") is None


@pytest.mark.parametrize("table", ["cell_copy", "retired", "kept", "orphan", "exemplar"])
def test_one_row_without_its_series_costs_no_other(path: str, table: str) -> None:
    """It is dropped when the files are mended."""
    sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    dead(lambda: (requests.inc(10), sqlmetrics.install(path).flush()))
    sqlmetrics.uninstall()
    columns = {
        "cell_copy": "(cell, series, process, gauge, stamped) VALUES (70000, 999, 999, 0, 0)",
        "retired": "(series, value, started) VALUES (999, 1, 1)",
        "kept": "(process, series, value) VALUES (999, 999, 1)",
        "orphan": "(process, series, value, started) VALUES (999, 999, 1, 1)",
        "exemplar": "(series, labels, value, timestamp, changed) VALUES (999, '{}', 1, 1, 1)",
    }
    subprocess.run(["sqlite3", path, f"PRAGMA foreign_keys = OFF; INSERT INTO {table} {columns[table]}"], check=True)

    sqlmetrics.install(path)

    assert value("requests_total") == 10
    assert not os.path.exists(path + "-damaged")


GARBLED = {
    "uses": (layout.USES_AT, 4),
    "states": (layout.STATE_AT, 1),
    "stale bytes": (layout.STALE_AT, 1),
    "first extents": (layout.FIRST_AT, 4),
    "published": (layout.PUBLISHED_AT, 8),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("array", GARBLED)
@pytest.mark.slow
def test_slots_of_which_four_bytes_are_garbled_can_be_used_after_mending(path: str, array: str, seed: int) -> None:
    """Slots that are free at the time: those that others use next, also after the files were checked."""
    random_number = random.Random(seed)
    start, size = GARBLED[array]
    extreme = [b"\0\0\0\0", b"\xff\xff\xff\xff"]
    value_ = extreme[seed] if seed < 2 else random_number.randbytes(4)
    sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests")
    for _ in range(2):  # they leave slots that were used
        dead(requests.inc)
    in_child(lambda: (sqlmetrics.install(path).flush(), None)[1])
    requests.inc()

    in_child(lambda: _write(path + "-cells", start + size * random_number.choice([1, 2]), value_))
    for _ in range(3):
        in_child(lambda: (sqlmetrics.uninstall(), sqlmetrics.install(path), requests.inc(), None)[3])
        in_child(lambda: (sqlmetrics.uninstall(), sqlmetrics.install(path).flush(), None)[2])

    sqlmetrics.install(path).flush()
    wait_for(lambda: (sqlmetrics.install(path).flush(), shows(6)())[1])
    assert not os.path.exists(path + "-damaged")


def _write(name: str, at: int, data: bytes) -> None:
    with open(name, "r+b") as file:
        file.seek(at)
        file.write(struct.pack("4s", data))


@pytest.mark.slow
def test_the_path_always_has_a_database_while_a_damaged_one_is_replaced(path: str) -> None:
    """Or a scrape at that moment would find none: the old one has both names until the new one takes the first."""
    store = unflushed(path)
    Counter("requests", "Requests").inc(5)
    store.flush()
    before, seen = identities(path), []
    for suffix in ("", "-wal"):
        vandal.have(vandal.flip, path + suffix, 1, 1_000_000)
    watch = Interruption(range(100_000), [renew], lambda: seen.append(os.path.exists(path)))

    with watch.watching():
        wait_for(lambda: (store.flush(), identities(path)[0] != before[0])[1])

    assert len(seen) > 50
    assert all(seen)
    assert os.stat(path + "-damaged").st_ino == before[0]
    wait_for(lambda: (store.flush(), value("requests_total") == 5)[1])


@pytest.mark.parametrize("open_", [database.connect, onlooking.connect])
def test_a_database_that_is_replaced_while_it_is_opened_is_no_matter_of_rights(
    path: str, monkeypatch: pytest.MonkeyPatch, open_: Callable[[str], apsw.Connection]
) -> None:
    """It is an error after which one tries again."""
    sqlmetrics.install(path, flush_interval=1000).flush()
    connect = undisturbed.connect

    def connect_too_late(*arguments: Any) -> apsw.Connection:
        os.rename(path, path + ".away")
        try:
            return connect(*arguments)
        finally:
            open(path, "w").close()

    monkeypatch.setattr(undisturbed, "connect", connect_too_late)
    with pytest.raises(database.CutOffError):
        open_(path)
