"""`sqlmetrics check`: each thing that can be wrong is found, with what to do about it; a store in order has none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import delete
from looking import Said, as_they_are, command, worker
from outsiders import NOBODY, Operator, as_root

from sqlmetrics.outside import check_host, check_store, state
from sqlmetrics.outside.look import Look
from sqlmetrics.outside.place import find

MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:25 / /srv rw - nfs4 server:/srv rw
31 30 0:26 / /srv/my\\040app rw - tmpfs tmpfs rw
32 31 0:27 / /srv/my\\040app rw shared:1 - xfs /dev/sdb rw
"""


def check(path: str, *arguments: str, nobody: bool = False, **environment: str) -> Said:
    """The command."""
    return command("check", "--path", path, *arguments, nobody=nobody, **environment)


def found(path: str, **environment: str) -> dict[str, tuple[str, str, str]]:
    """What is not in order, by what it is about."""
    findings = check(path, "--json", **environment).json()["findings"]
    return {one["about"]: (one["level"], one["text"], one["fix"]) for one in findings if one["level"] != "ok"}


def test_a_store_in_order_has_no_findings(path: str) -> None:
    """All of the list is looked at, the status is 0, and no byte is changed."""
    with worker(path, flush_interval=1000) as one:
        one.do("stop")
        one.do("count", "/", 1)
        before = as_they_are(path)
        done = check(path)
        assert as_they_are(path) == before

    assert done.status == 0, done.out
    assert done.out.startswith(f"store  {path} (from --path)\n")
    of_the_host = ("filesystem", "room", "rights", "folder", "sqlite", "mmap files", "RemoveIPC")
    for about in (*of_the_host, "wal", "write lock", "integrity"):
        assert f"ok        {about}: " in done.out
    assert "0 errors, 0 warnings" in done.out


def test_an_app_that_is_not_running_is_a_warning(path: str) -> None:
    """With status 1."""
    with worker(path):
        pass
    done = check(path)

    assert done.status == 1
    assert "warning   processes: 0 alive" in done.out


def test_a_missing_store_is_an_error(path: str, folder: Path) -> None:
    """And is not made."""
    done = check(path)

    assert done.status == 2
    assert "error     store: there is none" in done.out
    assert os.listdir(folder) == []


@pytest.mark.parametrize("damage", ["pages", "cells", "cells gone", "texts", "undecodable", "another wal"])
def test_damage_is_an_error_with_what_mends_it(path: str, damage: str) -> None:
    """Of the database, of the cells file, of what is in rows."""
    with worker(path) as one:
        one.do("burst", 0, 500)
        one.do("flush")
    subprocess.run(["sqlite3", path, "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, capture_output=True)
    if damage == "pages":
        with open(path, "r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * 4096)
    elif damage == "cells":
        with open(path + "-cells", "r+b") as file:
            file.write(b"\0" * 8)
    elif damage == "cells gone":
        delete(path, ["-cells"])
    elif damage == "another wal":
        other = path + ".other"
        with worker(other) as one:
            one.do("count", "/", 1)
            one.do("flush")
        for suffix in ("-wal", "-shm"):
            shutil.copy(other + suffix, path + suffix)
    else:
        statement = {
            "texts": "UPDATE series SET labels = '[1]' WHERE id IN (SELECT max(id) FROM series)",
            "undecodable": "UPDATE store SET id = CAST(x'66de' AS TEXT)",
        }[damage]
        subprocess.run(["sqlite3", path, statement], check=True, capture_output=True)

    level, _, fix = found(path)["integrity"]

    assert level == "error"
    assert "makes the files anew" in fix
    assert check(path).status == 2


@pytest.mark.slow
def test_a_reader_that_holds_the_log_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell whose transaction is open; nobody is where it has ended."""
    monkeypatch.setattr(check_store, "WAL_BYTES", 128 * 1024)  # else it takes longer to be too long
    with worker(path, flush_interval=0.02) as one:
        one.do("count", "/", 1)
        one.do("flush")
        with Operator(path, "BEGIN", "SELECT count(*) FROM metrics") as shell:
            first = 0
            while os.path.getsize(path + "-wal") <= 2 * check_store.WAL_BYTES:
                one.do("burst", first, first + 1000)
                one.do("flush")
                first += 1000
            level, text, fix = found(path)["wal"]
            assert level == "error"
            assert f"held by pid {shell._process.pid} (sqlite3)" in text
            assert "end its transaction" in fix
            shell.run("COMMIT")
            assert found(path).get("wal", ("ok",))[0] != "error"


@pytest.mark.slow
def test_a_writer_that_keeps_the_lock_is_named(path: str) -> None:
    """A shell whose transaction writes; a worker that flushes is none, and neither is a shell that has ended it."""
    with worker(path, flush_interval=0.02) as one, Operator(path, "BEGIN IMMEDIATE") as shell:
        one.do("count", "/", 1)
        level, text, fix = found(path)["write lock"]
        assert level == "warning"
        assert f"held by pid {shell._process.pid} (sqlite3)" in text
        assert "end its transaction" in fix
        shell.run("COMMIT")
        assert "write lock" not in found(path)


@as_root
def test_files_of_different_owners_are_an_error(path: str, folder: Path) -> None:
    """A worker of the one user cannot write the file of the other."""
    with worker(path):
        os.chown(path + "-cells", NOBODY, NOBODY)
        level, text, fix = found(path)["rights"]

    assert level == "error"
    assert f"metrics.sqlite3-cells {NOBODY}:{NOBODY}" in text
    assert "chown" in fix


@as_root
def test_a_folder_that_the_owner_may_not_write_to_is_an_error(path: str, folder: Path) -> None:
    """SQLite makes files beside the store."""
    with worker(path):
        for suffix in ("", "-wal", "-shm", "-cells"):
            os.chown(path + suffix, NOBODY, NOBODY)
        folder.chmod(0o755)
        level, _, fix = found(path)["folder"]

    assert (level, fix.startswith(f"chown {NOBODY}:{NOBODY} {folder}")) == ("error", True)


@pytest.mark.parametrize(("mode", "level"), [(0o1777, "warning"), (0o777, "error")])
def test_a_folder_that_all_may_write_to_is_told(path: str, folder: Path, mode: int, level: str) -> None:
    """Less badly where others cannot delete one's files."""
    with worker(path):
        folder.chmod(mode)
        assert found(path)["folder"][0] == level


def test_files_that_all_may_write_are_an_error(path: str) -> None:
    """Anybody could count anything."""
    with worker(path, mode=0o666):
        assert found(path)["rights"][0] == "error"


def test_files_of_the_mmap_mode_are_a_warning(path: str, folder: Path, tmp_path: Path) -> None:
    """Beside the store, and in the folder that prometheus_client's variable names; others are left alone."""
    with worker(path):
        (tmp_path / "mine.db").touch()
        assert "mmap files" not in found(path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
        (tmp_path / "gauge_livesum_12.db").touch()
        level, text, _ = found(path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))["mmap files"]
        assert (level, str(tmp_path / "gauge_livesum_12.db") in text) == ("warning", True)
        (folder / "counter_1.db").touch()
        assert "counter_1.db" in found(path)["mmap files"][1]


def test_two_processes_of_one_name_are_a_warning(path: str) -> None:
    """With the setting that tells them apart."""
    with worker(path, process_identifier=lambda: "same"), worker(path, process_identifier=lambda: "same"):
        level, _, fix = found(path)["names"]

    assert (level, "process_identifier" in fix) == ("warning", True)


def test_a_database_that_was_moved_aside_is_a_warning(path: str) -> None:
    """Of it nothing could be read."""
    with worker(path):
        Path(path + "-damaged").write_text("x")
        assert found(path)["damage"][0] == "warning"


def test_a_store_of_another_schema_is_a_warning(path: str) -> None:
    """The command is not of the app's environment."""
    with worker(path) as one:
        one.do("count", "/", 1)
        one.do("flush")
        one.kill()
    subprocess.run(["sqlite3", path, "PRAGMA user_version = 1"], check=True, capture_output=True)

    assert found(path)["version"][0] == "warning"


@as_root
def test_one_who_may_only_read_gets_the_same(path: str, folder: Path) -> None:
    """Nothing of it needs more."""
    folder.chmod(0o755)
    with worker(path) as one:
        one.do("count", "/", 1)
        assert check(path, nobody=True).status == 0


@pytest.mark.parametrize(
    ("path", "place", "kind"),
    [
        ("/home/x/metrics.sqlite3", "/", "ext4"),
        ("/srv/metrics.sqlite3", "/srv", "nfs4"),
        ("/srvother/metrics.sqlite3", "/", "ext4"),
        ("/srv/my app/metrics.sqlite3", "/srv/my app", "xfs"),
    ],
)
def test_the_file_system_is_that_of_the_last_mount_there(path: str, place: str, kind: str) -> None:
    """Of two at one place the later covers the other; a space is an escape in the kernel's list."""
    assert check_host.mount_of(path, MOUNTS) == (place, kind)


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("tmpfs", "ok"),
        ("ext4", "ok"),
        ("nfs4", "error"),
        ("cifs", "error"),
        ("fuse.sshfs", "error"),
        ("overlay", "warning"),
    ],
)
def test_file_systems_that_share_no_memory_are_errors(
    path: str, kind: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAL and cells are shared memory of one machine."""
    monkeypatch.setattr(check_host, "mount_of", lambda *_: check_host.Mount("/x", kind))
    assert check_host.filesystem(path).level == level


@pytest.mark.parametrize(
    ("free", "nodes", "level"), [(2**20, 9, "error"), (32 * 2**20, 9, "warning"), (2**30, 9, "ok"), (2**30, 0, "error")]
)
def test_a_disk_with_little_room_is_told(
    path: str, free: int, nodes: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one without inodes."""
    disk = os.statvfs_result((4096, 1, 2**31, free, free, 1000, nodes, nodes, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    assert check_host.room(path).level == level


@pytest.mark.parametrize(
    ("said", "uid", "level"),
    [
        ("", 1000, "warning"),
        ("[Login]\nRemoveIPC=no\n", 1000, "ok"),
        ("[Login]\n#RemoveIPC=no\n", 1000, "warning"),
        ("", 999, "ok"),
    ],
)
def test_what_systemd_deletes_at_a_logout_is_told(
    path: str, tmp_path: Path, said: str, uid: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in /dev/shm of a user that is no system user, unless it was switched off."""
    (tmp_path / "logind.conf").write_text(said)
    monkeypatch.setattr(check_host, "_LOGIND", (str(tmp_path / "logind.conf"),))
    monkeypatch.setattr(check_host, "_LOGIND_PARTS", ())
    monkeypatch.setattr(check_host, "_SYSTEMD", str(tmp_path))
    monkeypatch.setattr(check_host, "_SHARED_MEMORY", os.path.dirname(os.path.dirname(path)))
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert check_host.remove_ipc(path).level == level


@pytest.mark.parametrize(("used", "level"), [(1, "ok"), (9000, "warning"), (15000, "error")])
def test_limits_that_are_near_are_told(path: str, used: int, level: str) -> None:
    """From the half on, with what to do."""
    from dataclasses import replace

    with worker(path):
        status = state.status(Look(find(path)))
    near = replace(status, limits={"cell blocks": state.Limit(used, 16_384)})

    (finding,) = check_store.limits(near)
    assert finding.level == level
    assert bool(finding.fix) == (level != "ok")
