"""A folder of the store's own below one that anybody may write to: made where it is missing, and nobody else's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from disks import Disk, can_mount
from helpers import in_child, scrape
from launching import run
from outsiders import NOBODY, as_root, drop_rights, error_of, unprivileged
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics import launch
from sqlmetrics.store.installed import installed

pytestmark = pytest.mark.promise(11)


@pytest.fixture
def own(open_folder: Path) -> Path:
    """A folder that is not there yet, below one like /dev/shm."""
    return open_folder / "app"


def mode(path: Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_install_makes_the_folder(own: Path, umask: int) -> None:
    """For its user alone, whatever the umask."""
    before = os.umask(umask)
    try:
        sqlmetrics.install(own / "metrics.sqlite3")
    finally:
        os.umask(before)
    Counter("requests", "Requests").inc()

    assert mode(own) == 0o700
    assert sum(scrape(str(own / "metrics.sqlite3")).values()) == 1


def test_the_launcher_makes_the_folder(own: Path) -> None:
    """As `install` does; the command finds the store there."""
    done = run("sh", "-c", "echo started", path=str(own / "metrics.sqlite3"))

    assert (done.stdout, done.returncode) == ("started\n", 0)
    assert mode(own) == 0o700
    assert (own / "metrics.sqlite3").exists()


def test_the_folder_of_a_group_is_open_to_its_members_only(own: Path) -> None:
    """Its members may make files there, and nobody else may enter."""
    group = NOBODY if os.geteuid() == 0 else os.getegid()
    sqlmetrics.install(own / "metrics.sqlite3", mode=0o660, group=group)

    assert (mode(own), own.stat().st_gid) == (0o2770, group)
    assert unprivileged(lambda: sum(scrape(str(own / "metrics.sqlite3")).values())) == 0


@as_root
def test_the_folder_of_a_root_master_is_shared_with_its_workers_group(own: Path) -> None:
    """They are of another user: the folder is shared with their group, as the files are."""
    store = sqlmetrics.install(own / "metrics.sqlite3")
    store.begin_run(uid=NOBODY, gid=NOBODY)
    requests = Counter("requests", "Requests")

    def work() -> list[object]:
        drop_rights()
        requests.inc()
        found = installed()
        assert found
        return [found.flush().name, sum(scrape().values())]

    assert (mode(own), own.stat().st_gid) == (0o2770, NOBODY)
    assert in_child(work) == ["DONE", 1]
    for suffix in ("", "-wal", "-shm", "-cells"):
        os.unlink(own / f"metrics.sqlite3{suffix}")


def test_a_missing_folder_elsewhere_is_an_error(folder: Path, own: Path) -> None:
    """Below a folder that only its owner writes to, or two levels down; or where it is the folder that is named."""
    for path in (own / "further" / "metrics.sqlite3", own):
        assert error_of(lambda path=path: sqlmetrics.install(path))[0] == "PathError"
    folder.chmod(0o755)
    assert error_of(lambda: sqlmetrics.install(own / "metrics.sqlite3"))[0] == "PathError"
    assert not own.exists()


@pytest.mark.skipif(not can_mount(), reason="mounting a tmpfs needs root and CAP_SYS_ADMIN")
def test_a_folder_that_may_not_be_made_is_an_error(folder: Path) -> None:
    """On a disk that is mounted read-only, say: `install` names it, and a program of the launcher's goes on without."""
    disk = Disk(folder, "1m,mode=1777,ro")
    path = str(folder / "app" / "metrics.sqlite3")
    try:
        name, message = error_of(lambda: sqlmetrics.install(path))
        assert name == "PathError"
        assert f"the folder {str(folder)!r} (drwxrwxrwt) cannot be written by uid 0" in message

        variables = os.environ | launch.variables(path)
        command = [sys.executable, "-c", "import prometheus_client; print('started')"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert (done.stdout, done.returncode) == ("started\n", 0)
        assert "counts in its own memory, seen by nobody else: the folder" in done.stderr
    finally:
        disk.unmount()


def test_a_folder_that_the_group_cannot_get_is_not_left_behind(own: Path) -> None:
    """A second attempt would find it as it should not be."""

    def install() -> None:
        sqlmetrics.install(own / "metrics.sqlite3", mode=0o660, group=0)

    name, message = unprivileged(lambda: error_of(install))
    assert name == "PathError"
    assert "mode 2770 and group 0 cannot be set" in message
    assert not own.exists()


@pytest.mark.promise(5)
def test_readers_make_no_folder(own: Path) -> None:
    """They say that there is no store."""
    assert error_of(lambda: scrape(str(own / "metrics.sqlite3")))[0] == "NoStoreError"
    assert not own.exists()


@as_root
@pytest.mark.parametrize("kind", ["open folder", "symlink"])
@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_folder_that_another_user_has_made_first_is_refused(folder: Path, own: Path, kind: str, named: str) -> None:
    """That user could exchange what is in it, or have the store made anywhere: refused, and nothing is made."""
    target = folder / "roots"
    target.mkdir(0o700)

    def plant() -> None:
        os.umask(0)
        if kind == "symlink":
            os.symlink(target, own)
        else:
            os.mkdir(own, 0o777)

    unprivileged(plant)
    path = own / "metrics.sqlite3" if named == "file" else own

    for act in (sqlmetrics.install, scrape):
        name, message = error_of(lambda act=act: act(str(path)))
        assert name == "ForeignFileError"
        assert f"{own} (" in message
        assert f"belongs to uid {NOBODY} (this is uid 0)" in message
    assert list(target.iterdir()) == []


@as_root
def test_ones_own_symlink_and_roots_folder_are_followed(folder: Path, own: Path) -> None:
    """A link of one's own leads where its owner wants; a folder of root's is root's to exchange."""
    (folder / "elsewhere").mkdir(0o700)
    own.symlink_to(folder / "elsewhere")
    sqlmetrics.install(own / "metrics.sqlite3")
    assert (folder / "elsewhere" / "metrics.sqlite3").exists()
    sqlmetrics.uninstall()

    (folder / "roots").mkdir()
    (folder / "roots").chmod(0o1777)
    assert unprivileged(lambda: sqlmetrics.install(folder / "roots" / "metrics.sqlite3").is_open())
