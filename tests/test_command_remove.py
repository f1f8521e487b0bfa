"""`sqlmetrics remove` and `reset`: what goes is shown and confirmed, gone everywhere, and the files are small again."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Shell, child
from looking import Said, as_they_are, command, read_only, values, with_mounts, worker
from outsiders import Operator, as_root, error_of

from sqlmetrics.cells.selection import Selection
from sqlmetrics.commands import changes
from sqlmetrics.outside.place import find
from sqlmetrics.store.store import Store

MARK = "personal-data-of-somebody"


def remove(path: str, *arguments: str, nobody: bool = False) -> Said:
    """The command, confirmed."""
    return command("remove", "--path", path, "--yes", *arguments, nobody=nobody)


def reset(path: str, *arguments: str) -> Said:
    """The command, confirmed."""
    return command("reset", "--path", path, "--yes", *arguments)


def paths(path: str) -> set[str]:
    """The values of the label of `requests`."""
    return {key.split('"')[3] for key in values(path) if key.startswith("requests_total")}


def contents(path: str) -> bytes:
    """All bytes of all files."""
    return b"".join(Path(path + suffix).read_bytes() for suffix in ("", "-wal", "-shm", "-cells"))


def test_a_label_set_is_gone_from_living_and_dead_processes(path: str, shell: Shell) -> None:
    """From rows and cells; a process that goes on counting it begins at 0."""
    with worker(path) as one:
        with worker(path) as two:
            two.do("count", MARK, 4)
            two.do("count", "/", 1)
            two.kill()
        one.do("count", MARK, 3)
        one.do("count", "/", 1)

        done = remove(path, "requests", f"path={MARK}")

        assert done.status == 0, done
        assert f'requests_total{{path="{MARK}"}}' in done.out
        assert "removed 1 label set of requests" in done.out
        assert paths(path) == {"/"}
        assert shell(f"SELECT * FROM metrics WHERE labels LIKE '%{MARK}%'") == []
        one.do("count", MARK, 2)
        assert values(path)[f'requests_total{{"path": "{MARK}"}}'] == 2
        assert values(path)['requests_total{"path": "/"}'] == 2


def test_without_labels_all_label_sets_go(path: str) -> None:
    """As `clear()` does; of histograms by the name of a sample, too."""
    with worker(path) as one:
        one.do("burst", 0, 50)
        one.do("observe", "/a", 0.2)
        one.do("observe", "/b", 0.2)

        assert remove(path, "requests_total").status == 0
        assert remove(path, "latency_seconds_bucket").status == 0
        assert paths(path) == set()
        assert not any(key.startswith("latency") for key in values(path))
        one.do("count", "7", 1)
        assert paths(path) == {"7"}


@pytest.mark.slow
@pytest.mark.promise(11)
@pytest.mark.parametrize("others", ["alive", "dead"])
def test_the_files_are_small_again(path: str, others: str) -> None:
    """`VACUUM`, and a WAL that is cut, also with processes alive; nothing of what was removed is in any of them."""
    with worker(path) as one:
        one.do("burst", 0, 20_000)
        one.do("count", MARK, 1)
        one.do("flush")
        if others == "dead":
            one.kill()
        before = changes.sizes(path)
        assert MARK.encode() in contents(path)

        done = remove(path, "--json", "requests").json()

        after = changes.sizes(path)
        assert (len(done["label_sets"]), done["is_small"]) == (20_001, True)
        assert (done["before"]["database"], done["after"]["database"]) == (before.database, after.database)
        assert after.total < before.total / 10
        assert after.total <= 256 * 1024
        if others == "dead":
            assert MARK.encode() not in contents(path)


def test_nothing_is_removed_without_a_yes(path: str) -> None:
    """Where there is no terminal to ask on, the option is asked for; not a byte is changed."""
    with worker(path, flush_interval=1000) as one:
        one.do("stop")
        one.do("count", "/", 1)
        before = as_they_are(path)
        for arguments in (["remove", "requests", "path=/"], ["reset"]):
            done = command(*arguments, "--path", path)
            assert done.status == 2
            assert "give --yes" in done.err
            assert path in done.err
        assert as_they_are(path) == before


@contextlib.contextmanager
def asked(path: str) -> Iterator[tuple[subprocess.Popen[bytes], int, bytes]]:
    """The command when it has asked on a terminal: the process, the other side of the terminal, and what was shown."""
    parent, terminal = pty.openpty()
    arguments = [sys.executable, "-m", "sqlmetrics", "remove", "--path", path, "requests"]
    with subprocess.Popen(arguments, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        try:
            seen = b""
            while b"[y/N]" not in seen:
                seen += os.read(parent, 4096)
            yield process, parent, seen
        finally:
            process.kill()
            os.close(parent)


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", set()), (b"n\n", {"/"}), (b"\n", {"/"})])
def test_on_a_terminal_it_asks(path: str, answer: bytes, left: set[str]) -> None:
    """And anything but a yes is a no."""
    with worker(path) as one:
        one.do("count", "/", 1)
        with asked(path) as (process, terminal, seen):
            os.write(terminal, answer)
            assert process.wait(timeout=30) == (2 if left else 0)

        assert b'requests_total{path="/"}' in seen
        assert paths(path) == left


@pytest.mark.slow
def test_an_interrupted_question_is_a_no(path: str) -> None:
    """Without a traceback."""
    with worker(path) as one:
        one.do("count", "/", 1)
        with asked(path) as (process, terminal, _):
            for _ in range(10):  # Python does not hear a signal that comes right before its read
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=3)
                    break
            assert process.returncode == 130
            with contextlib.suppress(OSError):  # the other side is closed
                assert b"Traceback" not in os.read(terminal, 65536)

        assert paths(path) == {"/"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nosuch"], 2, "there is no metric 'nosuch'"),
        (["busy"], 2, "busy has no labels"),
        (["requests", "user=me"], 2, "requests has no label user; it has path"),
        (["requests", "path"], 2, "'path' is no LABEL=VALUE"),
        (["requests", "path=never"], 1, "no label set of requests has these labels"),
    ],
)
def test_what_the_library_refuses_is_refused(path: str, arguments: list[str], status: int, said: str) -> None:
    """Before anything is asked."""
    with worker(path) as one:
        one.do("count", "/", 1)
        done = remove(path, *arguments)
        assert paths(path) == {"/"}

    assert done.status == status
    assert said in done.err


def test_a_gauge_of_each_process_is_removed_by_its_own_labels(path: str) -> None:
    """The pid is none of the app's."""
    with worker(path) as one:
        one.do("set", "each", 4)
        done = remove(path, "each", f"pid={one.pid}")

    assert done.status == 2
    assert "each has no labels" in done.err


@pytest.mark.slow
def test_a_removal_waits_for_a_writer(path: str) -> None:
    """For half a minute: an operator's own transaction, say."""
    with worker(path) as one:
        one.do("count", "/", 1)
        one.do("flush")
        with Operator(path, "BEGIN IMMEDIATE") as shell:
            arguments = [sys.executable, "-m", "sqlmetrics", "remove", "--path", path, "--yes", "requests"]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(timeout=2.5)
                shell.run("COMMIT")
                assert process.wait(timeout=30) == 0
        assert paths(path) == set()


@pytest.mark.slow
def test_what_cannot_be_done_in_time_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is 2, and the series stay."""
    monkeypatch.setattr(changes, "SECONDS", 0.1)
    with worker(path) as one:
        one.do("count", "/", 1)
        one.do("flush")
        with Operator(path, "BEGIN IMMEDIATE"):
            done = remove(path, "requests")
        assert paths(path) == {"/"}

    assert done.status == 2
    assert f"the store is {path} (from --path)" in done.err


@pytest.mark.slow
def test_what_was_refused_is_not_done_later(path: str) -> None:
    """When the lock is free: somebody may have thought better of it."""
    stores: list[Store] = []

    def fail() -> tuple[str, str]:
        stores.append(changes.opened(find(path)))
        selection = Selection("requests", "counter", {}, whole=False)
        return error_of(lambda: stores[0].rounds.remover.remove_now(selection))

    with worker(path) as one, child(fail=fail, flush=lambda: bool(stores[0].flush())) as other:
        one.do("count", "/", 1)
        one.do("flush")
        with Operator(path, "BEGIN IMMEDIATE"):
            assert other.do("fail")[0] == "BusyError"  # type: ignore[index]
        other.do("flush")
        assert paths(path) == {"/"}


def test_a_reader_that_stays_keeps_only_the_size(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrapes do not show the series any more; that the files are not small yet is told."""
    monkeypatch.setattr(changes, "SECONDS", 1.0)
    with worker(path) as one:
        one.do("count", "/", 1)
        one.do("flush")
        with Operator(path, "BEGIN", "SELECT count(*) FROM metrics"):
            done = remove(path, "requests")
            assert paths(path) == set()

    assert done.status == 0
    assert "the files become small later" in done.err


@as_root
def test_one_who_may_only_read_removes_nothing(path: str, folder: Path) -> None:
    """And is told whom to ask."""
    folder.chmod(0o755)
    with worker(path) as one:
        one.do("count", "/", 1)
        done = remove(path, "requests", nobody=True)
        assert paths(path) == {"/"}

    assert done.status == 2
    assert "may not write it" in done.err


@with_mounts
@pytest.mark.parametrize("arguments", [["reset"], ["remove", "requests"]])
def test_a_read_only_mount_is_told_as_such(path: str, folder: Path, arguments: list[str]) -> None:
    """And not as a want of rights, which the owner of the files has."""
    with worker(path) as one:
        one.do("count", "/", 1)
    with read_only(folder) as place:
        done = command(*arguments, "--path", os.path.join(place, "metrics.sqlite3"), "--yes")
    assert paths(path) == {"/"}

    assert done.status == 2
    assert "mounted read-only here" in done.err
    assert "sudo" not in done.err


def test_a_reset_is_refused_while_a_process_uses_the_store(path: str) -> None:
    """As `reset()` is, unless forced; then what it counts begins at 0."""
    with worker(path) as one:
        one.do("count", "/", 3)
        done = reset(path)
        assert done.status == 2
        assert "1 living process(es) hold a part of it" in done.err
        assert paths(path) == {"/"}

        assert reset(path, "--force").status == 0
        assert paths(path) == set()
        one.do("count", "/", 2)
        assert values(path)['requests_total{"path": "/"}'] == 2


@pytest.mark.slow
@pytest.mark.promise(11)
def test_a_reset_leaves_nothing_and_small_files(path: str) -> None:
    """Of processes that have ended."""
    with worker(path) as one:
        one.do("burst", 0, 20_000)
        one.do("count", MARK, 1)
        one.do("flush")
        before = changes.sizes(path)

    done = reset(path)

    assert done.status == 0
    assert f"store  {path} (from --path)" in done.out
    assert "20,00" in done.out
    assert values(path) == {}
    assert changes.sizes(path).total < before.total / 5
    assert MARK.encode() not in contents(path)


def test_only_the_name_is_said_to_be_required() -> None:
    """Without labels, all label sets go."""
    done = command("remove")

    assert done.status == 2
    assert done.err.endswith("the following arguments are required: NAME\n")


@pytest.mark.parametrize("arguments", [["reset"], ["remove", "requests"]])
def test_no_store_is_made(path: str, folder: Path, arguments: list[str]) -> None:
    """To be emptied."""
    done = command(*arguments, "--path", path, "--yes")

    assert done.status == 2
    assert "no store at" in done.err
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "arguments",
    [["reset", "--yes"], ["remove", "requests", "--yes"], ["status"], ["env"], ["serve"], ["run", "true"]],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_path_does_not_mean_the_store_of_the_environment(path: str, arguments: list[str]) -> None:
    """A script may have it from a variable that is not set."""
    with worker(path) as one:
        one.do("count", "/", 1)

        done = command(arguments[0], "--path", "", *arguments[1:], SQLMETRICS_PATH=path)

        assert done.status == 2
        assert "argument --path: it is empty; is a variable not set?" in done.err
        assert paths(path) == {"/"}


def test_a_label_value_is_taken_as_it_is(path: str) -> None:
    """No pattern, neither in what goes nor in what is shown before."""
    with worker(path) as one:
        for value in ("a*", "ab", "a=b"):
            one.do("count", value, 1)
        done = remove(path, "requests", "path=a*")
        assert 'path="ab"' not in done.out
        assert paths(path) == {"ab", "a=b"}
        assert remove(path, "requests", "path=a=b").status == 0
        assert paths(path) == {"ab"}
