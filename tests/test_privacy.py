"""Who may read the files, and whose files are used: in a folder open to all, another user may have put them there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from helpers import FILES, in_child, scrape, wait_for
from outsiders import NOBODY, as_root, drop_rights, error_of, unprivileged
from prometheus_client import Counter

import sqlmetrics

pytestmark = pytest.mark.promise(11)


def modes(path: str) -> set[int]:
    """The permission bits of all files of the store."""
    return {stat.S_IMODE(os.stat(path + suffix).st_mode) for suffix in FILES}


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_files_are_ones_own(path: str, umask: int) -> None:
    """0600 whatever the umask, also of the files that are made anew."""
    before = os.umask(umask)
    try:
        sqlmetrics.install(path, flush_interval=0.02)
        Counter("requests", "Requests").inc()
        assert modes(path) == {0o600}
        for suffix in FILES:
            os.unlink(path + suffix)
        wait_for(lambda: all(os.path.exists(path + suffix) for suffix in FILES))
        assert modes(path) == {0o600}
    finally:
        os.umask(before)


def test_the_files_of_a_group_have_the_mode_asked_for(path: str) -> None:
    """With mode= and group=, all four files have them, also those that are made anew."""
    group = NOBODY if os.geteuid() == 0 else os.getegid()
    sqlmetrics.install(path, flush_interval=0.02, mode=0o660, group=group)
    Counter("requests", "Requests").inc()

    for _ in range(2):
        assert modes(path) == {0o660}
        assert {os.stat(path + suffix).st_gid for suffix in FILES} == {group}
        for suffix in FILES:
            os.unlink(path + suffix)
        wait_for(lambda: all(os.path.exists(path + suffix) for suffix in FILES))


@as_root
@pytest.mark.parametrize("planted", FILES)
def test_a_file_of_another_user_is_refused(open_folder: Path, path: str, planted: str) -> None:
    """Any of the four, a whole store included, is refused by name, by who writes and by who reads; and left alone."""
    unprivileged(lambda: sqlmetrics.install(path) and sqlmetrics.uninstall())
    for suffix in FILES:
        if suffix != planted:
            os.chown(path + suffix, 0, 0)
    before = {suffix: os.stat(path + suffix) for suffix in FILES}

    for act in (sqlmetrics.install, scrape, sqlmetrics.reset, lambda path: sqlmetrics.mark_process_dead(1, path)):
        name, message = error_of(lambda act=act: act(path))
        assert name == "ForeignFileError"
        assert f"{path}{planted} belongs to uid {NOBODY} (this is uid 0)" in message
        assert "SQLMETRICS_GROUP" in message

    after = {suffix: os.stat(path + suffix) for suffix in FILES}
    assert [(s.st_ino, s.st_size, s.st_mtime_ns) for s in after.values()] == [
        (s.st_ino, s.st_size, s.st_mtime_ns) for s in before.values()
    ]


@as_root
def test_roots_store_and_ones_own_are_trusted(open_folder: Path, path: str) -> None:
    """Root is trusted, and a user's own store is; in a folder that only its owner writes to, nobody asks."""
    sqlmetrics.install(path, mode=0o666)
    Counter("requests", "Requests").inc()
    sqlmetrics.uninstall()
    assert in_child(lambda: drop_rights() and sum(scrape(path).values())) == 1

    os.chown(path, NOBODY, 0)
    assert error_of(lambda: scrape(path))[0] == "ForeignFileError"
    open_folder.chmod(0o755)
    assert sum(scrape(path).values()) == 1


@as_root
def test_members_of_a_group_use_the_files_of_one_another(
    open_folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that another member made are used by who was told the group."""

    def make() -> None:
        drop_rights()
        sqlmetrics.install(path, mode=0o660, group=NOBODY)
        Counter("requests", "Requests", registry=None).inc()
        sqlmetrics.uninstall()

    in_child(make)

    assert error_of(lambda: sqlmetrics.install(path, mode=0o660))[0] == "ForeignFileError"
    in_child(lambda: sqlmetrics.install(path, mode=0o660, group=NOBODY) and None)
    monkeypatch.setenv("SQLMETRICS_GROUP", str(NOBODY))
    assert in_child(lambda: sum(scrape(path).values())) == 1


@pytest.mark.parametrize("planted", FILES)
@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo"])
def test_a_symlink_that_leads_elsewhere_is_refused(open_folder: Path, path: str, planted: str, kind: str) -> None:
    """Refused before anything is opened, and what it leads to is left alone."""
    (open_folder / "target").write_text("somebody's")
    if planted:
        sqlmetrics.install(path)
        sqlmetrics.uninstall()
        os.unlink(path + planted)
    if kind == "symlink":
        os.symlink(open_folder / "target", path + planted)
    elif kind == "hard link":
        os.link(open_folder / "target", path + planted)
    else:
        os.mkfifo(path + planted)

    name, message = error_of(lambda: sqlmetrics.install(path))

    assert (name, path + planted in message) == ("ForeignFileError", True)
    assert kind in message or "no plain file" in message
    assert (open_folder / "target").read_text() == "somebody's"


@as_root
def test_a_file_that_is_planted_while_the_app_runs_is_not_used(
    open_folder: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody deletes nothing (the folder is sticky) but puts files where there are none: they are not used."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc(5)
    store.flush()
    for suffix in FILES:
        os.unlink(path + suffix)
    unprivileged(lambda: Path(path).touch() or Path(path + "-wal").touch())

    requests.inc(5)
    wait_for(lambda: any("belongs to uid" in text for text in caplog.messages))
    assert error_of(scrape)[0] == "ForeignFileError"
    for suffix in FILES:
        Path(path + suffix).unlink(missing_ok=True)

    wait_for(lambda: error_of(scrape)[0] == "" and sum(scrape().values()) == 10)
