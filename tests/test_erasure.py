"""What was removed or reset cannot be read in any of the store's files, whoever had it and wherever it lay."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import child, in_child, scrape, value, wait_for
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily

import sqlmetrics
from sqlmetrics.cells import journal
from sqlmetrics.rows import erasure

MARK = "erase-me-7f3a"
_SEARCH = """
import glob, os, sys
store, mark = sys.argv[1], bytes.fromhex(sys.argv[2])
def content(fd):
    at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        yield os.pread(fd, end - at, at)
        at = end
for name in glob.glob(glob.escape(store) + "*"):
    fd = os.open(name, os.O_RDONLY)
    found = sum(piece.count(mark) for piece in content(fd))
    if found:
        print(name[len(store):] or "database", found)
"""
_READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM series").fetchall()
print("reads", flush=True)
sys.stdin.readline()
"""
_WRITER = _READER.replace('"BEGIN"', '"BEGIN IMMEDIATE"')
_CARELESS = f"""
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA secure_delete = OFF")
connection.execute("INSERT INTO family (name, type, mode, help, made) VALUES ('a', 'gauge', '', '{MARK * 20}', 0)")
connection.execute("DELETE FROM family WHERE name = 'a'")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
print("reads", flush=True)
sys.stdin.readline()
"""


def places(path: str, mark: bytes = MARK.encode()) -> str:
    """Where bytes are in a store's files, and how often. Another process looks: here, SQLite's locks would be lost."""
    command = [sys.executable, "-S", "-c", _SEARCH, path, mark.hex()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def wait_until_erased(path: str) -> None:
    """Wait until the text is in none of the files."""
    wait_for(lambda: not places(path))


@contextlib.contextmanager
def program(text: str, path: str) -> Iterator[None]:
    """Another program that has the database open, by another SQLite, until the end."""
    one = subprocess.Popen([sys.executable, "-c", text, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert one.stdout
        assert one.stdout.readline() == "reads\n"
        yield
    finally:
        one.communicate("\n", timeout=30)


@pytest.fixture
def store(path: str) -> sqlmetrics.Store:
    """An installed store that is flushed often."""
    return sqlmetrics.install(path, flush_interval=0.05)


REMOVALS: dict[str, Callable[[Counter], object]] = {
    "remove": lambda metric: metric.remove(MARK),
    "remove_by_labels": lambda metric: metric.remove_by_labels({"user": MARK}),
    "clear": lambda metric: metric.clear(),
}


@pytest.fixture(params=REMOVALS)
def remove(request: pytest.FixtureRequest) -> Callable[[Counter], object]:
    """One of the ways to remove a child."""
    return REMOVALS[request.param]


def test_a_child_that_only_its_remover_had(store: sqlmetrics.Store, path: str, remove) -> None:
    """Its journal, its rows and the WAL had it."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    store.flush()
    assert "-cells" in places(path)
    assert "-wal" in places(path)

    remove(logins)

    assert "-cells" not in places(path)
    wait_until_erased(path)


def test_a_child_that_others_have_too(store: sqlmetrics.Store, path: str, remove) -> None:
    """One that counts other things meanwhile, one that does nothing at all, and the one that forked them."""
    logins = Counter("logins", "Logins", ["user"])

    def count(user: str) -> None:
        logins.labels(user).inc()

    count(MARK)
    with (
        child(count=count) as busy,
        child(count=count) as idle,
        child(remove=lambda: remove(logins) and None) as remover,
    ):
        for one in (busy, idle):
            one.do("count", MARK)
        wait_for(lambda: "-wal" in places(path))
        found = dict(line.split() for line in places(path).splitlines())
        assert int(found["-cells"]) >= 3
        remover.do("remove")
        assert "-cells" not in places(path)
        busy.do("count", "other")
        wait_until_erased(path)
        busy.do("count", "another")
        wait_until_erased(path)
        assert MARK not in str(scrape())


def test_a_child_of_processes_that_ended(store: sqlmetrics.Store, path: str, remove) -> None:
    """One was killed, one ended in order; one of them nobody has settled."""
    logins = Counter("logins", "Logins", ["user"])
    with child(count=lambda: logins.labels(MARK).inc()) as one:
        one.do("count")
        one.kill()
    in_child(lambda: logins.labels(MARK).inc())
    assert value("logins_total", user=MARK) == 2

    with child(count=lambda: logins.labels(MARK).inc()) as last:
        last.do("count")
        last.kill()
    assert places(path)
    remove(logins)

    wait_until_erased(path)


def test_children_that_come_and_go_all_the_time(store: sqlmetrics.Store, path: str) -> None:
    """Pages are split and joined, and extents and cells given out again; what stays is right."""
    logins = Counter("logins", "Logins", ["user"])
    latency = Histogram("latency", "Latency", ["user"])
    texts = [f"{'x' * (number * 7 % 90)}-{MARK}-{number}" for number in range(600)]
    for number, text in enumerate(texts):
        logins.labels(text).inc()
        latency.labels(f"keep-{number}-{'y' * (number * 11 % 90)}").observe(1)
        if number >= 50:
            logins.remove(texts[number - 50])
    store.flush()
    assert places(path)
    for text in texts[-50:]:
        logins.remove(text)

    wait_until_erased(path)
    assert sum(amount for (name, _), amount in scrape().items() if name == "latency_count") == 600


def test_pages_are_overwritten_where_they_are(store: sqlmetrics.Store, path: str) -> None:
    """Also in a store that is too large to be written anew: only the WAL has to be cut off."""
    logins = Counter("logins", "Logins", ["user"])
    for number in range(200):
        logins.labels(f"{MARK} {number}").inc()
    store.flush()
    store.file.rebuilding.rest(1000)
    assert places(path)
    for number in range(200):
        logins.remove(f"{MARK} {number}")

    wait_until_erased(path)
    assert not store.file.rebuilding.is_done()


def test_copies_that_no_row_leads_to(store: sqlmetrics.Store, path: str) -> None:
    """SQLite leaves some where it splits pages, and so does who deletes rows in a shell: all pages are written anew."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels("a").inc()
    with program(_CARELESS, path):
        store.flush()
    assert "database" in places(path)

    logins.remove("a")

    wait_until_erased(path)


def test_exemplars_of_a_removed_series(store: sqlmetrics.Store, path: str) -> None:
    """Of one process that goes on, and of one that has one waiting in its memory."""
    logins = Counter("logins", "Logins", ["user"])

    def count(trace: str) -> None:
        logins.labels("a").inc(exemplar={"trace": trace})

    count("first")
    with child(count=count) as one:
        for trace in (f"{MARK}-1", f"{MARK}-2", f"{MARK}-3"):
            one.do("count", trace)
            count(trace)
        assert places(path)
        logins.remove("a")
        wait_until_erased(path)
        logins.labels("b").inc()
        store.flush()
        wait_until_erased(path)


def test_exemplars_of_a_counter_that_is_reset(store: sqlmetrics.Store, path: str) -> None:
    """Counter.reset() begins the child anew: its labels stay, what was observed does not."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels("a").inc(exemplar={"trace": MARK})
    store.flush()
    assert places(path)

    logins.labels("a").reset()

    wait_until_erased(path)
    assert value("logins_total", user="a") == 0


def test_exemplars_that_newer_ones_replaced(store: sqlmetrics.Store, path: str) -> None:
    """They go when those that are too old go, once a minute."""
    logins = Counter("logins", "Logins")
    logins.inc(exemplar={"trace": MARK})
    store.flush()
    logins.inc(exemplar={"trace": "newer"})
    store.flush()
    assert places(path)

    store.file.sweeping.rest(0)

    wait_until_erased(path)


def test_old_words_of_an_info(store: sqlmetrics.Store, path: str) -> None:
    """What an Info said before goes when it says something else."""
    info = Info("build", "Build", ["host"])
    info.labels("a").info({"owner": MARK})
    store.flush()
    assert places(path)

    info.labels("a").info({"owner": "somebody"})

    wait_until_erased(path)
    assert value("build_info", host="a", owner="somebody") == 1


def test_gauges_that_a_published_collector_drops(store: sqlmetrics.Store, path: str) -> None:
    """They leave with the flush that asks it."""

    class Sessions:
        users = (MARK, "other")

        def collect(self) -> Iterator[GaugeMetricFamily]:
            family = GaugeMetricFamily("sessions", "Sessions", labels=["user"])
            for user in self.users:
                family.add_metric([user], 1)
            yield family

    sessions = Sessions()
    sqlmetrics.publish(sessions)
    Counter("logins", "Logins").inc()
    wait_for(lambda: places(path))

    sessions.users = ("other",)

    wait_until_erased(path)


def test_a_removal_in_a_store_that_is_locked(store: sqlmetrics.Store, path: str) -> None:
    """As soon as the lock is gone."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    store.flush()
    with program(_WRITER, path):
        logins.remove(MARK)
        assert places(path)

    wait_until_erased(path)


def test_a_reader_that_keeps_the_wal(store: sqlmetrics.Store, path: str) -> None:
    """A transaction left open in a shell keeps old pages for itself; when it ends, they go."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    store.flush()
    with program(_READER, path):
        logins.remove(MARK)
        store.flush()
        assert "-wal" in places(path)
        assert "-cells" not in places(path)
        logins.labels("other").inc()
        assert value("logins_total", user="other") == 1

    wait_until_erased(path)


def test_a_remover_that_ends_at_once(path: str) -> None:
    """A short program leaves files that are clean, though no flush came in between."""
    sqlmetrics.install(path, flush_interval=1000)
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    assert places(path)
    logins.remove(MARK)
    sqlmetrics.uninstall()

    assert places(path) == ""


def _killed_in(where: object, name: str) -> None:
    """Have this process die at the call of a function."""
    setattr(where, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.parametrize(
    ("where", "name"), [(erasure, "wipe"), (erasure, "_committed"), (journal, "_wipe"), (erasure, "none")]
)
def test_a_remover_that_is_killed_before_the_files_are_clean(
    store: sqlmetrics.Store, path: str, where: object, name: str
) -> None:
    """Another process, which has done nothing since, does it in its place."""
    logins = Counter("logins", "Logins", ["user"])

    def die() -> None:
        logins.labels(MARK).inc(3)
        _killed_in(where, name)
        logins.remove(MARK)
        os.kill(os.getpid(), signal.SIGKILL)

    with child(die=die) as remover:
        logins.labels(MARK).inc(5)
        wait_for(lambda: value("logins_total", user=MARK) == 5)
        with pytest.raises(AssertionError, match="failed in die"):
            remover.do("die")
        os.waitpid(remover.pid, 0)

    assert value("logins_total", user=MARK) is None
    wait_until_erased(path)


def test_a_journal_that_is_half_wiped_is_no_damage(store: sqlmetrics.Store) -> None:
    """Who was killed in the middle leaves half a record; a reader that is behind reads the rows instead."""
    Counter("logins", "Logins", ["user"]).labels(MARK).inc()
    store.flush()
    (arena,) = store.part.arenas()
    first = arena.file.bytes.obj.find(MARK.encode())
    arena.file.wiping.ask()
    arena.file.bytes[first : first + 4] = bytes(4)

    with pytest.raises(journal.JournalGoneError):
        journal.read(arena.file, arena.slot, arena.instance, 0)
    assert scrape()["logins_total", (("user", MARK),)] == 1
    wait_for(arena.file.wiping.is_done)
    with pytest.raises(journal.JournalGoneError):
        journal.read(arena.file, arena.slot, arena.instance, 0)
    assert journal.read(arena.file, arena.slot, arena.instance, arena.ingested)[0] == []
    assert scrape()["logins_total", (("user", MARK),)] == 1


def test_scrapes_go_on_while_journals_are_wiped(store: sqlmetrics.Store, path: str) -> None:
    """What stays is in every scrape, with values that never go back; children are made and removed meanwhile."""
    logins, jobs = Counter("logins", "Logins", ["user"]), Counter("jobs", "Jobs", ["kind"])

    def work() -> None:
        for number in range(400):
            jobs.labels(f"kind {number % 40}").inc()
            logins.labels(f"{MARK} {number}").inc(exemplar={"trace": MARK})
            logins.remove(f"{MARK} {number}")

    jobs.labels("kind 0").inc()  # so there is a flusher here, too
    with child(work=work) as one, child(work=work) as two:
        for worker in (one, two):
            worker._out.write('["work", []]\n')
            worker._out.flush()
        last: dict[object, float] = {}
        while sum(last.values()) < 801:
            now = {key: amount for key, amount in scrape().items() if key[0] == "jobs_total"}
            assert all(now.get(key, 0) >= amount for key, amount in last.items())
            last = now
        for worker in (one, two):
            assert worker._in.readline() == "null\n"
    wait_until_erased(path)


def test_a_reset(store: sqlmetrics.Store, path: str) -> None:
    """Rows, cells, journals, the WAL and what earlier mending left."""
    logins = Counter("logins", "Logins", ["user"])
    in_child(lambda: logins.labels(MARK).inc(exemplar={"trace": MARK}))
    for suffix in ("-damaged", "-new"):  # put aside, and left by a process that was killed
        Path(path + suffix).write_text(MARK)
    assert places(path)
    sqlmetrics.uninstall()

    sqlmetrics.reset(path)

    assert places(path) == ""
    assert scrape(path) == {}


def test_a_reset_leaves_no_numbers(store: sqlmetrics.Store, path: str) -> None:
    """Cells of processes that ended are zero again, whenever that was."""
    amount = 1234567.890625
    counted = Gauge("counted", "Counted", ["user"], multiprocess_mode="sum")
    for _ in range(2):
        in_child(lambda: counted.labels("a").set(amount))
        store.flush()
    in_child(lambda: counted.labels("a").set(amount))
    assert "-cells" in places(path, struct.pack("=d", amount))
    sqlmetrics.uninstall()

    sqlmetrics.reset(path)

    assert places(path, struct.pack("=d", amount)) == ""


def test_a_removal_leaves_no_numbers(store: sqlmetrics.Store, path: str) -> None:
    """The cells of a child are zero in each process that had it, though they are not given out again yet."""
    amount = 1234567.890625
    counted = Gauge("counted", "Counted", ["user"], multiprocess_mode="sum")
    counted.labels("a").set(amount)

    def count() -> None:
        counted.labels("a").set(amount)

    with child(count=count) as idle:
        idle.do("count")
        counted.labels("b").set(1)  # so there is a flusher here, too
        assert "-cells" in places(path, struct.pack("=d", amount))
        counted.remove("a")
        wait_for(lambda: not places(path, struct.pack("=d", amount)))
        idle.do("count")
        assert value("counted", user="a") == amount
        assert value("counted", user="b") == 1


def test_a_forced_reset_among_the_living(store: sqlmetrics.Store, path: str) -> None:
    """One counts on, from zero, and one does nothing; neither has the text in its journal any more."""
    logins = Counter("logins", "Logins", ["user"])

    def count(user: str) -> None:
        logins.labels(user).inc()

    with child(count=count) as busy, child(count=count) as idle:
        for one in (busy, idle):
            one.do("count", MARK)
        assert places(path)
        in_child(lambda: sqlmetrics.reset(path, force=True))
        wait_until_erased(path)
        busy.do("count", "other")
        wait_until_erased(path)
        assert scrape(path) == {("logins_total", (("user", "other"),)): 1}


_COUNT = f"""
import os, sys
import sqlmetrics
from prometheus_client import Counter
sqlmetrics.install(sys.argv[1])
Counter("logins", "Logins", ["user"]).labels("{MARK}").inc()
os._exit(0)
"""
_ON_STARTING = f"""
from types import SimpleNamespace
import sqlmetrics.gunicorn
sqlmetrics.gunicorn.on_starting(SimpleNamespace(cfg=SimpleNamespace(uid={os.geteuid()}, gid={os.getegid()})))
"""


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "sqlmetrics", "run", "--path", "{path}", "--", "true"],
        ["-c", _ON_STARTING],
    ],
    ids=["run", "gunicorn"],
)
def test_a_start_that_empties_the_store(path: str, start: list[str]) -> None:
    """`sqlmetrics run` and gunicorn's on_starting drop what the last run has left."""
    subprocess.run([sys.executable, "-c", _COUNT, path], check=True, timeout=60)
    assert places(path)

    command = [sys.executable, *(word.format(path=path) for word in start)]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"SQLMETRICS_PATH": path})

    assert places(path) == ""


def test_what_is_made_again_is_there_again(store: sqlmetrics.Store, path: str) -> None:
    """Nothing that is written later is taken for what was removed."""
    logins = Counter("logins", "Logins", ["user"], registry=CollectorRegistry())
    for amount in range(1, 6):
        logins.labels(MARK).inc(amount)
        in_child(lambda: logins.labels("other").inc())
        assert value("logins_total", user=MARK) == amount
        logins.remove(MARK)
        wait_until_erased(path)
    logins.labels(MARK).inc(9)
    store.flush()
    assert value("logins_total", user=MARK) == 9
    assert value("logins_total", user="other") == 5
