"""Every command that looks, in every situation in which an operator looks: it answers, and changes not a byte."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import delete
from looking import as_they_are, command, read_only, with_mounts, worker
from outsiders import as_root

pytestmark = pytest.mark.slow
LOOKS: dict[str, list[str]] = {
    "show": ["show"],
    "show by process": ["show", "--by", "process"],
    "show families": ["show", "--family"],
    "show json": ["show", "--json"],
    "show csv": ["show", "--csv"],
    "show openmetrics": ["show", "--openmetrics"],
    "status": ["status"],
    "status json": ["status", "--json"],
    "check": ["check"],
    "cardinality": ["cardinality"],
    "export": ["export"],
    "top": ["top", "--once", "--interval", "0.1"],
    "top json": ["top", "--json", "--interval", "0.1"],
}
looks = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


@contextlib.contextmanager
def living(path: str) -> Iterator[None]:
    """A process that has counted, and what it has not flushed."""
    with worker(path, flush_interval=1000) as one:
        one.do("stop")
        one.do("count", "/", 3)
        yield


def dead(path: str) -> None:
    """Processes that were killed, of which nobody has noted anything."""
    for _ in range(2):
        with worker(path, flush_interval=1000) as one:
            one.do("stop")
            one.do("count", "/", 3)
            one.kill()


def flushed(path: str) -> None:
    """All is in the database, and SQLite has deleted the rest as its last user closed it."""
    dead(path)
    with worker(path) as one:
        one.do("flush")
    subprocess.run(["sqlite3", path, "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, capture_output=True)
    delete(path, ["-wal", "-shm"])


def damaged(path: str) -> None:
    """A page of the database is overwritten."""
    flushed(path)
    with open(path, "r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * 8192)


def without_cells(path: str) -> None:
    """The cells file is missing."""
    dead(path)
    delete(path, ["-cells"])


def empty(path: str) -> None:
    """A file that nobody has written to."""
    Path(path).touch()


def foreign(path: str) -> None:
    """Another program's file."""
    Path(path).write_text("no database at all, but a text\n" * 100)


def answered(path: str, look: list[str], *, nobody: bool = False) -> tuple[int, str]:
    """The status, and all that was said: the store's name is in it, and no traceback; not a byte is changed."""
    before = as_they_are(path)
    done = command(*look, "--path", path, nobody=nobody)
    said = done.out + done.err
    assert as_they_are(path) == before
    assert path in said or "--csv" in look or "--openmetrics" in look or look == ["export"]
    assert "Traceback" not in said
    return done.status, said


@looks
def test_with_living_processes(path: str, look: list[str]) -> None:
    """All is in order."""
    with living(path):
        assert answered(path, look)[0] == 0


@looks
@pytest.mark.parametrize("leave", [dead, flushed])
def test_with_no_process_alive(path: str, look: list[str], leave: Callable[[str], None]) -> None:
    """The values are there; `status` and `check` say that nobody is alive."""
    leave(path)
    status, said = answered(path, look)

    assert status == (1 if look[0] in ("status", "check") else 0)
    if look[0] in ("show", "export") and "--family" not in look:
        assert "requests" in said


@as_root
@looks
@pytest.mark.parametrize("leave", [dead, flushed])
def test_as_another_user_who_may_only_read(path: str, folder: Path, look: list[str], leave) -> None:
    """In a folder that is not his."""
    leave(path)
    folder.chmod(0o755)

    assert answered(path, look, nobody=True)[0] == (1 if look[0] in ("status", "check") else 0)


@with_mounts
@looks
def test_on_a_read_only_mount(path: str, folder: Path, look: list[str]) -> None:
    """As a container has the volume of another; with a living process on the other side, and with none."""
    with living(path), read_only(folder) as place:
        assert answered(os.path.join(place, "metrics.sqlite3"), look)[0] == 0
    with read_only(folder) as place:
        wanted = 1 if look[0] in ("status", "check") else 0
        assert answered(os.path.join(place, "metrics.sqlite3"), look)[0] == wanted


@looks
@pytest.mark.parametrize("leave", [damaged, without_cells, empty, foreign])
def test_with_files_that_are_not_in_order(path: str, look: list[str], leave: Callable[[str], None]) -> None:
    """Status 2 and a message; rows alone are shown with a remark, where they can be read."""
    leave(path)
    status, said = answered(path, look)

    if leave is without_cells and look[0] in ("show", "cardinality") and not {"--by", "--openmetrics"} & set(look):
        assert (status, "as old as the last flush" in said) == (0, True)
    else:
        assert status == 2


def beheaded(path: str) -> None:
    """The database begins like none, but the cells file beside it is ours."""
    dead(path)
    with open(path, "r+b") as file:
        file.write(b"z" * 4096)


@looks
@pytest.mark.parametrize(("leave", "is_ours"), [(foreign, False), (beheaded, True)])
def test_what_was_never_a_store_is_not_said_to_be_mended(path: str, look: list[str], leave, is_ours: bool) -> None:
    """A process that counts mends a store without asking; it refuses the file of another program."""
    leave(path)
    said = answered(path, look)[1]

    assert ("no SQLite database any more" in said) == is_ours
    assert ("move it away or name another path" in said) != is_ours


def test_without_a_command_the_help_is_shown() -> None:
    """With the status of wrong arguments."""
    done = command()

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("usage: sqlmetrics ")
    assert "show living processes" in done.err


@looks
def test_where_there_is_no_store(path: str, folder: Path, look: list[str]) -> None:
    """None is made, nor anything else."""
    done = command(*look, "--path", path)

    assert (done.status, os.listdir(folder)) == (2, [])
    assert path in done.out + done.err


@looks
def test_where_the_folder_is_missing(folder: Path, look: list[str]) -> None:
    """Nor is that made."""
    done = command(*look, "--path", str(folder / "none" / "metrics.sqlite3"))

    assert (done.status, os.listdir(folder)) == (2, [])
    assert "does not exist" in done.err
