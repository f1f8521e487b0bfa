"""Files that another user puts beside a store, in a folder that anybody may write to: not believed, not waited for."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from helpers import child, in_child, scrape, wait_for
from outsiders import NOBODY, as_root, drop_rights, error_of, python, unprivileged
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics.rows.undisturbed import unbelieved

pytestmark = pytest.mark.promise(11)

PAGE = 4096
SCRAPE = """
import sys, sqlmetrics
print(sqlmetrics.generate_latest(sys.argv[1]).decode())
"""
COUNT = """
import sys, prometheus_client, sqlmetrics
sqlmetrics.install(sys.argv[1])
prometheus_client.Counter("requests", "Requests").inc()
print(sqlmetrics.generate_latest().decode())
"""


def hot_journal(pages: dict[int, bytes], super_journal: bytes = b"") -> bytes:
    """What a crash in rollback mode leaves: pages to be written back, and a file to be deleted when that is done."""
    magic, nonce, sector = bytes.fromhex("d9d505f920a163d7"), 99, 512
    content = magic + struct.pack(">IIIII", len(pages), nonce, 30, sector, PAGE)
    content = content.ljust(sector, b"\0")
    for number, page in pages.items():
        checksum = nonce + sum(page[at] for at in range(PAGE - 200, 0, -200))
        content += struct.pack(">I", number) + page + struct.pack(">I", checksum & 0xFFFFFFFF)
    if super_journal:
        content += struct.pack(">I", 0x40000000 // PAGE + 1) + super_journal
        content += struct.pack(">II", len(super_journal), sum(super_journal)) + magic
    return content


def kinds(target: Path) -> dict[str, Callable[[str], object]]:
    """What can be put at a name."""

    def file(content: bytes) -> Callable[[str], object]:
        return lambda name: Path(name).write_bytes(content)

    return {
        "empty file": file(b""),
        "garbage": file(b"x" * 512),
        "pages": file(hot_journal({1: bytes(PAGE), 2: b"A" * PAGE})),
        "super-journal": file(hot_journal({}, os.fsencode(target))),
        "fifo": os.mkfifo,
        "symlink": lambda name: os.symlink(target, name),
        "folder": os.mkdir,
    }


KINDS = tuple(kinds(Path()))


def plant(kind: str, name: str, target: Path) -> None:
    """Put something at a name, as another user."""

    def act() -> None:
        os.umask(0)
        kinds(target)[kind](name)

    unprivileged(act)


@as_root
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_journal_of_another_user_is_not_believed(open_folder: Path, path: str, kind: str) -> None:
    """By a running app, a new process of it, a fork, or a scrape: they go on, and what it is about stays as it is."""
    precious = open_folder / "precious"
    precious.write_bytes(hot_journal({1: bytes(PAGE)}))
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc(5)
    store.flush()
    plant(kind, path + "-journal", precious)

    begun = time.monotonic()
    with child(use=requests.inc, flush=lambda: store.flush().name) as one:
        one.do("use")
        assert one.do("flush") in ("DONE", "NOTHING_CHANGED")
    assert in_child(lambda: store.flush().name) in ("DONE", "NOTHING_CHANGED")
    assert "requests_total 6.0" in python(SCRAPE, path)
    sqlmetrics.uninstall()
    assert "requests_total 6.0" in python(SCRAPE, path)
    assert "requests_total 7.0" in python(COUNT, path)
    assert time.monotonic() - begun < 100
    assert precious.read_bytes() == hot_journal({1: bytes(PAGE)})
    assert os.path.lexists(path + "-journal")


@as_root
def test_the_log_tells_of_a_journal_of_another_user(
    open_folder: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with its name and owner; and when it is gone."""
    caplog.set_level("INFO", "sqlmetrics")
    sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc()
    plant("garbage", path + "-journal", open_folder)
    requests.inc()  # there is no flusher after the fork

    def told(*words: str) -> list[str]:
        return [text for text in caplog.messages if all(word in text for word in words)]

    wait_for(lambda: told(f"{path}-journal", f"uid {NOBODY}", "ignores it"))
    for _ in range(3):
        requests.inc()
        assert sqlmetrics.install(path).flush().name in ("DONE", "NOTHING_CHANGED")
    os.unlink(path + "-journal")
    wait_for(lambda: told(f"{path}-journal is gone"))
    assert len(told("ignores it")) == 1


@as_root
def test_a_journal_that_comes_while_the_store_is_opened_is_not_believed(open_folder: Path, path: str) -> None:
    """Between the look at its name and the moment in which SQLite looks for it."""
    sqlmetrics.install(path)
    Counter("requests", "Requests").inc()
    sqlmetrics.uninstall()

    with unbelieved(path):
        plant("pages", path + "-journal", open_folder)
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
        assert connection.execute("SELECT count(*) FROM store").get == 1
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()
    assert sum(scrape(path).values()) == 1


def test_many_can_open_the_store_at_once_beside_a_planted_journal(path: str) -> None:
    """They take turns for the moment that it takes; one's own fifo is none of the store's files either."""
    sqlmetrics.install(path)
    sqlmetrics.uninstall()
    os.mkfifo(path + "-journal")
    pids = []
    for _ in range(8):
        if not (pid := os.fork()):
            requests = Counter("requests", "Requests")
            sqlmetrics.install(path)
            requests.inc()
            os._exit(0)
        pids.append(pid)

    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)
    assert sum(scrape(path).values()) == 8


def test_what_a_crash_of_ones_own_shell_left_is_rolled_back(path: str) -> None:
    """Somebody switched the database to another mode and was killed in the midst of a transaction."""
    sqlmetrics.install(path)
    Counter("requests", "Requests").inc(5)
    sqlmetrics.uninstall()
    script = """
    import os, signal, sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    assert connection.execute("PRAGMA journal_mode = delete").fetchone() == ("delete",)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE large AS SELECT randomblob(4000) AS x FROM (VALUES (1), (2), (3), (4), (5), (6))")
    connection.execute("DELETE FROM cell_copy")
    os.kill(os.getpid(), signal.SIGKILL)
    """
    lines = "\n".join(line.strip() for line in script.splitlines())
    done = subprocess.run([sys.executable, "-c", lines, path], capture_output=True, text=True, timeout=30)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert os.path.getsize(path + "-journal") > 512

    assert "requests_total 6.0" in python(COUNT, path)
    assert not os.path.exists(path + "-journal")


@as_root
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-cells", "-new", "-lock"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_another_user_has_taken_is_refused(open_folder: Path, path: str, suffix: str, kind: str) -> None:
    """Before there is a store: refused at once, by name, by those who write and by those who read; and left alone."""
    if kind == "folder" and not suffix:
        kind = "fifo"  # a folder is where a store is put
    target = open_folder / "target"
    target.write_text("root's")
    plant(kind, path + suffix, target)
    before = os.lstat(path + suffix)

    begun = time.monotonic()
    name, message = error_of(lambda: sqlmetrics.install(path))

    assert time.monotonic() - begun < 1
    assert (name, path + suffix in message) == ("ForeignFileError", True)
    after = os.lstat(path + suffix)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert target.read_text() == "root's"
    assert error_of(lambda: scrape(path))[0] in ("ForeignFileError", "NoStoreError")
    assert time.monotonic() - begun < 1


@as_root
def test_a_damaged_database_that_cannot_be_moved_aside_keeps_its_place(open_folder: Path, path: str) -> None:
    """What is damaged beyond reading keeps its place where another user has taken the name that it would get."""
    sqlmetrics.install(path)
    sqlmetrics.uninstall()
    garbage = b"SQLite format 3\0" + b"x" * 8000
    Path(path).write_bytes(garbage)
    plant("garbage", path + "-damaged", open_folder)

    name, message = error_of(lambda: sqlmetrics.install(path))

    assert (name, f"{path}-damaged belongs to uid {NOBODY}" in message) == ("ForeignFileError", True)
    assert Path(path).read_bytes() == garbage


@as_root
def test_cells_that_another_user_puts_there_are_not_mapped(open_folder: Path, path: str) -> None:
    """Whoever has mapped them would be killed when their owner shortens them."""
    sqlmetrics.install(path)
    Counter("requests", "Requests").inc(5)
    sqlmetrics.uninstall()
    size = os.path.getsize(path + "-cells")
    os.unlink(path + "-cells")

    def put() -> None:
        with open(path + "-cells", "wb") as file:
            os.fchmod(file.fileno(), 0o666)
            file.truncate(size)

    unprivileged(put)

    for act in (sqlmetrics.install, scrape):
        assert error_of(lambda act=act: act(path))[0] == "ForeignFileError"
    assert f" {os.stat(path + '-cells').st_ino} " not in Path("/proc/self/maps").read_text()


@as_root
def test_the_owner_of_a_file_is_looked_at_by_unprivileged_users_too(open_folder: Path, path: str) -> None:
    """The victim is no root: it can use its own store beside another user's journal."""

    def use() -> float:
        os.setgroups([])
        os.setgid(1)
        os.setuid(1)
        sqlmetrics.install(path)
        Counter("requests", "Requests").inc()
        sqlmetrics.uninstall()
        return sum(scrape(path).values())

    assert in_child(use) == 1
    plant("pages", path + "-journal", open_folder)
    assert in_child(use) == 2
    assert in_child(lambda: drop_rights() and error_of(lambda: scrape(path))[0]) == "ForeignFileError"
