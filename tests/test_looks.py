"""A look from outside: exact for anyone with the right to read, and it leaves every byte of the store as it is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Shell, child, delete, in_child
from looking import as_they_are, command, read_only, values, with_mounts, worker
from outsiders import NOBODY, as_root
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics.cells import layout
from sqlmetrics.cells.cellsfile import open_cells
from sqlmetrics.outside.look import Look
from sqlmetrics.outside.place import find
from sqlmetrics.store.flusher import Outcome

SEEN = {'requests_total{"path": "/"}': 7.0, "busy{}": 3.0, 'latency_seconds{"path": "/"}': 2.0}


def counted(path: str) -> None:
    """Two workers count, and are killed."""
    with worker(path) as one, worker(path) as two:
        one.do("count", "/", 3)
        two.do("count", "/", 4)
        one.do("observe", "/", 0.2, 0.3)
        one.do("flush")
        two.do("flush")
        one.kill()
        two.kill()


def test_values_are_exact_before_any_flush(path: str) -> None:
    """They are read in the memory of the processes: no row has them yet."""
    with worker(path, flush_interval=1000) as one, worker(path, flush_interval=1000) as two:
        one.do("stop")
        two.do("stop")
        one.do("count", "/", 3)
        two.do("count", "/", 4)
        one.do("set", "busy", 3)
        two.do("observe", "/", 0.2, 0.3)

        found = values(path)

        assert {key: found[key] for key in SEEN} == SEEN


@as_root
def test_one_who_may_only_read_sees_the_same(path: str, folder: Path) -> None:
    """With living processes, with dead ones that nobody has settled, and in a folder that is not his."""
    folder.chmod(0o755)
    with worker(path) as one, worker(path) as two:
        one.do("count", "/", 3)
        two.do("count", "/", 4)
        assert values(path, nobody=True)['requests_total{"path": "/"}'] == 7
        two.kill()
        assert values(path, nobody=True)['requests_total{"path": "/"}'] == 7
        one.kill()
        assert values(path, nobody=True)['requests_total{"path": "/"}'] == 7


@pytest.mark.parametrize("others", ["alive", "dead"])
def test_a_look_changes_no_byte(path: str, others: str) -> None:
    """Neither of rows nor of cells, nor of SQLite's own index; the dead stay unsettled."""
    with worker(path, flush_interval=1000) as one:
        one.do("stop")
        one.do("count", "/", 3)
        in_child(lambda: _count_and_die(path))
        if others == "dead":
            one.kill()
        before = as_they_are(path)

        for arguments in (["show"], ["show", "--by", "process"], ["show", "--openmetrics"]):
            assert command(*arguments, "--path", path).status == 0

        assert as_they_are(path) == before


def _count_and_die(path: str) -> None:
    with worker(path) as one:
        one.do("count", "/", 4)
        one.kill()


def test_many_dead_are_read_and_left_to_others(path: str) -> None:
    """More than a scrape leaves unsettled."""
    for _ in range(12):
        _count_and_die(path)
    before = as_they_are(path)

    assert values(path)['requests_total{"path": "/"}'] == 48
    assert as_they_are(path) == before


@pytest.mark.parametrize("gone", [["-wal", "-shm"], ["-wal"], ["-shm"]])
def test_without_an_index_nothing_is_made(path: str, shell: Shell, gone: list[str]) -> None:
    """The `sqlite3` shell deletes WAL and index at its end, if it was the last; a look does not make them anew."""
    counted(path)
    subprocess.run(["sqlite3", path, "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, capture_output=True)
    for suffix in ("-wal", "-shm"):
        Path(path + suffix).touch()
    delete(path, gone)
    before = as_they_are(path)

    assert values(path)['requests_total{"path": "/"}'] == 7
    assert as_they_are(path) == before


def test_rows_that_only_the_log_has_are_not_passed_over(path: str) -> None:
    """Where the index is missing and cannot be made without a change, that is told: half of the rows would be wrong."""
    counted(path)
    delete(path, ["-shm"])
    assert os.path.getsize(path + "-wal") > 0
    before = as_they_are(path)

    done = command("show", "--path", path)

    assert (done.status, done.out) == (2, "")
    assert "-wal holds rows" in done.err
    assert as_they_are(path) == before


@with_mounts
def test_a_read_only_mount_is_enough(path: str, folder: Path) -> None:
    """With living processes on the other side, and without any."""
    with worker(path) as one:
        one.do("count", "/", 3)
        with read_only(folder) as place:
            one.do("count", "/", 4)
            assert values(place)['requests_total{"path": "/"}'] == 7
            one.kill()
            assert values(place)['requests_total{"path": "/"}'] == 7


@pytest.mark.promise(5)
def test_a_missing_store_is_not_made(folder: Path, path: str) -> None:
    """And the message says which, how it was found, and what to try."""
    done = command("show", SQLMETRICS_PATH=path)

    assert done.status == 2
    assert f"no store at {path!r}" in done.err
    assert f"the store is {path} (from SQLMETRICS_PATH)" in done.err
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("environment", "named_by"),
    [
        ({"SQLMETRICS_PATH": "{path}"}, "SQLMETRICS_PATH"),
        ({"PROMETHEUS_MULTIPROC_DIR": "{folder}"}, "PROMETHEUS_MULTIPROC_DIR"),
        ({"SQLMETRICS_PATH": "{path}", "PROMETHEUS_MULTIPROC_DIR": "/nowhere"}, "SQLMETRICS_PATH"),
    ],
)
def test_the_store_is_named_with_how_it_was_found(
    folder: Path, path: str, environment: dict[str, str], named_by: str
) -> None:
    """By the order of `install()`."""
    with worker(path):
        given = {name: text.format(path=path, folder=folder) for name, text in environment.items()}
        assert f"{path} (from {named_by})\n" in command("show", **given).out
        assert f"{path} (from --path)\n" in command("show", "--path", path, **given).out


def test_no_store_named_at_all_is_told() -> None:
    """With what to give."""
    done = command("show")

    assert done.status == 2
    assert "no store was named" in done.err
    assert "--path" in done.err


@as_root
@pytest.mark.promise(11)
def test_in_a_folder_open_to_all_a_member_of_the_group_may_look(open_folder: Path, path: str) -> None:
    """Without a setting, for the files say who may; anybody else is told the ways in, and nobody to delete them."""
    with child(**other_users_app(path, gid=NOBODY)) as one:
        one.do("begin")
        assert values(path, nobody=True)["requests_total{}"] == 3
        os.chown(path, -1, 4343)
        done = command("show", "--path", path, nobody=True)

    assert done.status == 2
    assert "belongs to uid 4242" in done.err
    assert "be in that group (mode 0640 is enough)" in done.err
    assert "sudo -u '#4242'" in done.err
    assert "read-only" in done.err
    assert "delete" not in done.err


def other_users_app(path: str, gid: int) -> dict[str, Callable[..., object]]:
    """An app of another user, whose store a group may read."""

    def begin() -> None:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(4242)
        store = sqlmetrics.install(path, mode=0o640, group=gid)
        Counter("requests", "Requests").inc(3)
        assert store.flush() in (Outcome.DONE, Outcome.NOTHING_CHANGED)  # its flusher may have been faster

    return {"begin": begin}


@as_root
def test_one_who_may_not_read_is_told_the_ways_in(path: str, folder: Path) -> None:
    """Whose file it is, with which mode, and how to look as that user."""
    folder.chmod(0o755)
    with worker(path, mode=0o600):
        done = command("show", "--path", path, nobody=True)

    assert done.status == 2
    assert f"belongs to uid 0, gid 0, and uid {NOBODY} may not read it" in done.err
    assert "sudo -u '#0'" in done.err


def test_a_damaged_store_is_told(path: str) -> None:
    """With status 2, no traceback, and left alone."""
    counted(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    delete(path, ["-wal", "-shm"])
    before = as_they_are(path)

    done = command("show", "--path", path)

    assert done.status == 2
    assert "cannot be read" in done.err
    assert as_they_are(path) == before


def test_rows_are_shown_where_the_cells_are_of_another_boot(path: str) -> None:
    """With a remark: a machine that was restarted has no values but those of the last flush."""
    counted(path)
    with open(path + "-cells", "r+b") as file:
        file.seek(0)
        file.write(b"\0" * layout.HEADER.size)

    done = command("show", "--path", path, "--json")

    assert done.status == 0
    assert "as old as the last flush" in done.err
    assert '"value": 7.0' in done.out


def test_a_store_of_an_older_schema_is_not_brought_up_to_date(path: str) -> None:
    """The app's own version reads it."""
    counted(path)
    subprocess.run(["sqlite3", path, "PRAGMA user_version = 1"], check=True, capture_output=True)

    done = command("show", "--path", path)

    assert done.status == 2
    assert "look with the version that the app uses" in done.err


def test_a_look_follows_a_store_that_begins_to_change(path: str) -> None:
    """One that reads files that nobody has open, as a `--watch` may, sees what is counted later."""
    counted(path)
    subprocess.run(["sqlite3", path, "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, capture_output=True)
    delete(path, ["-wal", "-shm"])
    looks: list[Look] = []

    def total() -> float:
        looks[:] = looks or [Look(find(path))]  # the same one each time
        found = looks[0].families(["requests_total"])
        assert found.remark == ""
        return found.families[0].samples[0].value

    with child(total=total) as watcher:
        assert watcher.do("total") == 7
        with worker(path) as one:
            one.do("count", "/", 5)
            one.kill()
        with worker(path) as two:  # which settles it: what it had is in the database alone
            two.do("set", "busy", 1)
            two.do("flush")
            assert watcher.do("total") == 12


def test_a_look_lets_go_of_the_files_of_stores_that_were_made_anew(path: str) -> None:
    """An exporter beside an app that starts anew for ever, each time in an empty folder, runs out of nothing."""
    looks: list[Look] = []

    def total() -> float:
        looks[:] = looks or [Look(find(path))]
        return looks[0].families(["requests_total"]).families[0].samples[0].value

    def cells_files() -> tuple[int, int]:
        names = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        maps = Path("/proc/self/maps").read_text().splitlines()
        # Of this store only: a forked child has the files of the tests before it, too.
        mine = f"{path}-cells"
        return sum(mine in name for name in names), sum(mine in line for line in maps)

    with child(total=total, cells_files=cells_files) as watcher:
        for number in range(1, 6):
            delete(path)
            with worker(path) as one:
                one.do("count", "/", number)
                assert watcher.do("total") == number
            assert watcher.do("cells_files") == [2, 1]  # `mmap` has a descriptor of its own


def test_the_files_of_a_store_may_come_back(path: str) -> None:
    """A look follows them away and back, though somebody still reads what was there in between."""
    looks: list[Look] = []
    held: list[object] = []

    def total() -> float:
        looks[:] = looks or [Look(find(path))]
        held[:] = [open_cells(path + "-cells", writable=False)]
        return looks[0].families(["requests_total"]).families[0].samples[0].value

    def put(old: str, new: str) -> None:
        for suffix in ("", "-wal", "-shm", "-cells"):
            os.rename(old + suffix, new + suffix)

    counted(path)
    with child(total=total) as watcher:
        assert watcher.do("total") == 7
        put(path, path + "-away")
        _count_and_die(path)
        assert watcher.do("total") == 4
        put(path, path + "-other")
        put(path + "-away", path)
        assert watcher.do("total") == 7


def test_the_apps_own_settings_are_no_hindrance(path: str) -> None:
    """Its environment may name a function of the app, which is not to be imported for a look, or for a removal."""
    with worker(path) as one:
        one.do("count", "/", 1)
        named = {"SQLMETRICS_PROCESS_IDENTIFIER": "no_such_app.names:worker"}
        for arguments in (["show"], ["status"], ["check"], ["remove", "--yes", "requests"]):
            assert command(*arguments, "--path", path, **named).status == 0
