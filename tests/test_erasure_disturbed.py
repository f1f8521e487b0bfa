"""Texts are erased also where somebody is in the way, or is killed in the middle of it."""

from __future__ import annotations

import os
import signal

import pytest
from erased import MARK, READER, WRITER, places, program, wait_until_erased
from helpers import child, scrape, value, wait_for
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics.cells import journal
from sqlmetrics.store import erasure

pytestmark = [pytest.mark.promise(11), pytest.mark.store(flush_interval=0.05)]


@pytest.mark.slow
def test_a_locked_store_is_erased_when_the_lock_is_gone(store: sqlmetrics.Store, path: str) -> None:
    """As soon as the lock is gone."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    store.flush()
    with program(WRITER, path):
        logins.remove(MARK)
        assert places(path)

    wait_until_erased(path)


def test_pages_that_a_reader_keeps_are_erased_when_it_ends(store: sqlmetrics.Store, path: str) -> None:
    """A transaction left open in a shell keeps old pages for itself; when it ends, they go."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    store.flush()
    with program(READER, path):
        logins.remove(MARK)
        store.flush()
        assert "-wal" in places(path)
        assert "-cells" not in places(path)
        logins.labels("other").inc()
        assert value("logins_total", user="other") == 1

    wait_until_erased(path)


def test_a_remover_that_ends_at_once_leaves_clean_files(path: str) -> None:
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
def test_another_process_erases_for_a_remover_that_was_killed(
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


@pytest.mark.promise(5)
@pytest.mark.slow
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
