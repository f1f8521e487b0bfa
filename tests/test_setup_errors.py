"""Misuse at set-up is a clear error: what was found, what was wanted, what to try."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import value, wait_for
from outsiders import NOBODY, Operator, error_of, unprivileged
from prometheus_client import CollectorRegistry, Counter, Gauge

import sqlmetrics
from sqlmetrics.rows import database, schema

pytestmark = pytest.mark.promise(4)

SQLITE_OF_ANOTHER = "PRAGMA application_id = 252006673"


def _refused(error: type[Exception], *words: str, path: object = None) -> str:
    """The message with which `install` refuses, which must contain all words."""
    with pytest.raises(error) as caught:
        sqlmetrics.install(path)  # type: ignore[arg-type]
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    return message


def test_no_path_anywhere_is_an_error_that_names_the_variables() -> None:
    """The message names every variable that was looked at."""
    message = _refused(sqlmetrics.PathError, "SQLMETRICS_PATH", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")

    assert "give a path" in message


def test_a_path_error_is_a_value_error() -> None:
    """As the peer raises one for a missing directory."""
    with pytest.raises(ValueError, match="no store was named"):
        sqlmetrics.MultiProcessCollector(CollectorRegistry())


def test_a_missing_folder_is_an_error(folder: Path) -> None:
    """A file in a folder that is missing."""
    path = str(folder / "missing" / "metrics.sqlite3")

    _refused(sqlmetrics.PathError, repr(path), repr(str(folder / "missing")), "create it first", path=path)


def test_a_mistyped_directory_does_not_become_a_file(folder: Path) -> None:
    """Without a suffix it is no file's name, and it does not become one."""
    path = str(folder / "metrcs")

    _refused(sqlmetrics.PathError, repr(path), "no suffix", "create the folder", "metrics.sqlite3", path=path)

    assert os.listdir(folder) == []


def test_a_path_that_is_not_utf_8_is_refused(folder: Path) -> None:
    """SQLite takes names in UTF-8 only."""
    path = os.fsdecode(os.fsencode(folder) + b"/\xff.sqlite3")

    _refused(sqlmetrics.PathError, repr(path), "not UTF-8", "name another", path=path)


def test_a_limit_on_open_files_is_named_as_the_cause(store: sqlmetrics.Store) -> None:
    """It is not taken for a matter of rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(next_one := os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
    try:
        with pytest.raises(sqlmetrics.PathError, match="ulimit -n") as caught:
            database.connect(store.path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "may not" not in str(caught.value)


@pytest.mark.promise(7)
def test_a_db_file_among_the_peers_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's collector would read it, and start scripts delete it."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    wanted = ("PROMETHEUS_MULTIPROC_DIR", "*.db", "metrics.sqlite3")

    _refused(sqlmetrics.PathError, *wanted, path=folder / "metrics.db")

    assert os.listdir(folder) == []
    (folder / "elsewhere").mkdir()
    assert sqlmetrics.install(folder / "elsewhere" / "metrics.db").path.endswith("metrics.db")


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
@pytest.mark.parametrize("name", ["missing", "a-file.txt"])
def test_a_directory_variable_that_is_no_folder_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    """Whatever else it is, the peer's variable means a directory."""
    (folder / "a-file.txt").touch()
    monkeypatch.setenv(variable, str(folder / name))

    _refused(sqlmetrics.PathError, variable, repr(str(folder / name)), "not an existing folder", "SQLMETRICS_PATH")


def test_a_folder_without_write_permission_is_refused(folder: Path, path: str) -> None:
    """SQLite creates files beside the store, so the folder's rights are what counts."""
    folder.chmod(0o555)

    kind, message = unprivileged(lambda: error_of(lambda: sqlmetrics.install(path)))

    folder.chmod(0o755)
    assert kind == "PathError"
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    for word in (repr(str(folder)), "dr-xr-xr-x", f"uid {uid}", "change its owner or mode"):
        assert word in message


def test_a_store_that_another_user_keeps_to_themselves_is_refused(folder: Path, path: str) -> None:
    """Its folder is open to all, its files are not."""
    sqlmetrics.install(path, mode=0o444)
    sqlmetrics.uninstall()
    folder.chmod(0o777)

    kind, message = unprivileged(lambda: error_of(lambda: sqlmetrics.install(path)))

    assert kind in ("PathError", "StoreError")
    assert path in message


def test_a_file_that_is_not_sqlite_is_left_as_it_is(path: str) -> None:
    """It is left as it is."""
    text = "name,value\n" * 500
    Path(path).write_text(text)

    _refused(sqlmetrics.ForeignFileError, path, "not a SQLite database", "another path", path=path)

    assert Path(path).read_text() == text


@pytest.mark.parametrize("made_by", [SQLITE_OF_ANOTHER, "CREATE TABLE songs (title)"])
def test_a_sqlite_file_of_another_program_is_left_as_it_is(path: str, made_by: str, shell) -> None:
    """Told by its application_id, or by tables without one; it is left as it is."""
    with Operator(path, made_by, "CREATE TABLE albums (title)"):
        pass

    _refused(sqlmetrics.ForeignFileError, path, "another program", "application_id", "another path", path=path)

    assert shell.value("PRAGMA journal_mode") == "delete"
    assert not os.path.exists(path + "-cells")


def test_a_store_of_a_newer_version_is_not_read(path: str) -> None:
    """Its min_writer says that this version would damage it."""
    sqlmetrics.install(path)
    sqlmetrics.uninstall()
    with Operator(path, "PRAGMA user_version = 99", "UPDATE store SET min_writer = 98"):
        pass

    with pytest.raises(
        sqlmetrics.SchemaError, match=rf"schema 99, written by 98 .* knows {schema.schema_version()}: upgrade"
    ):
        list(sqlmetrics.MultiProcessCollector(None, path).collect())


def test_a_newer_store_that_older_versions_may_write_to_is_used(path: str) -> None:
    """A rolling upgrade: only min_writer refuses."""
    sqlmetrics.install(path)
    sqlmetrics.uninstall()
    with Operator(path, "PRAGMA user_version = 99"):
        pass

    assert sqlmetrics.install(path).path == path


def test_a_journal_mode_that_cannot_be_changed_is_an_error(path: str) -> None:
    """Somebody made the file in another mode and is in the middle of a transaction."""
    with Operator(path, "PRAGMA journal_mode = delete", "BEGIN IMMEDIATE"):
        _refused(sqlmetrics.JournalModeError, path, "WAL", "delete", "keeps it locked", "local disk", path=path)

    assert sqlmetrics.install(path).path == path


def test_an_app_counts_while_another_program_locks_the_file(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """An exclusive lock allows not even a look. That is no reason to stop the app: it counts, and shows it later."""
    with Operator(path, "PRAGMA locking_mode = exclusive", "BEGIN EXCLUSIVE"):
        store = sqlmetrics.install(path, flush_interval=0.05)
        requests = Counter("requests", "Requests")
        requests.inc(7)

        assert [path in text and "lock" in text and "in memory" in text for text in caplog.messages] == [True]

    wait_for(store.is_open)
    wait_for(lambda: value("requests_total") == 7)


def test_installing_another_path_is_an_error(store: sqlmetrics.Store, folder: Path) -> None:
    """A process has one store, and the first stays installed."""
    other = str(folder / "other.sqlite3")

    _refused(sqlmetrics.InstallError, store.path, other, "uninstall()", path=other)

    assert sqlmetrics.install() is store
    assert not os.path.exists(other)


def test_installing_with_other_settings_is_an_error(store: sqlmetrics.Store) -> None:
    """Both the settings in force and those that were wanted are named."""
    with pytest.raises(sqlmetrics.InstallError, match=r"keep_dead=1000.*keep_dead=5.*uninstall\(\)"):
        sqlmetrics.install(store.path, keep_dead=5)

    assert store.settings.keep_dead == 1000


def test_an_unknown_gauge_mode_is_refused(store: sqlmetrics.Store) -> None:
    """The peer's own check comes first; a value made directly has ours."""
    with pytest.raises(ValueError, match="multiprocess mode"):
        Gauge("temperature", "Temperature", multiprocess_mode="average")
    from prometheus_client import values

    with pytest.raises(ValueError, match=r"'average'.*'livesum'"):
        values.ValueClass("gauge", "temperature", "temperature", [], [], "Temperature", "average")


@pytest.mark.parametrize("target", ["real.sqlite3", "missing.sqlite3"])
@pytest.mark.promise(11)
def test_a_symlink_at_the_stores_path_is_refused(folder: Path, path: str, target: str) -> None:
    """Refused: who may write to the folder could lead root to another file."""
    (folder / "real.sqlite3").touch()
    os.symlink(folder / target, path)
    before = sorted(os.listdir(folder))

    _refused(sqlmetrics.PathError, path, "symlink", "another path", path=path)

    assert sorted(os.listdir(folder)) == before


def _socket(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(name)


@pytest.mark.parametrize("make", [os.mkfifo, _socket], ids=["fifo", "socket"])
@pytest.mark.promise(11)
def test_what_is_no_plain_file_is_refused_and_stays(folder: Path, path: str, make: Callable[[str], object]) -> None:
    """By whoever would make a store there, and by those who look."""
    make(path)
    before = os.lstat(path)

    _refused(sqlmetrics.PathError, path, "no plain file", "another path", path=path)
    with pytest.raises(sqlmetrics.PathError, match="no plain file"):
        sqlmetrics.generate_latest(path)

    assert (os.listdir(folder), os.lstat(path)) == ([os.path.basename(path)], before)


READERS: dict[str, Callable[[object], object]] = {
    "collector": lambda path: sqlmetrics.MultiProcessCollector(None, path),  # type: ignore[arg-type]
    "mark_process_dead": lambda path: sqlmetrics.mark_process_dead(1234, path),  # type: ignore[arg-type]
    "reset": lambda path: sqlmetrics.reset(path),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("named_by", ["path", "folder", "variable"])
@pytest.mark.promise(5)
def test_a_reader_where_no_store_is_creates_nothing(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch, reader: str, named_by: str
) -> None:
    """It says so, names the file, and creates nothing."""
    (folder / "unrelated.txt").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    where = {"path": path, "folder": str(folder), "variable": None}[named_by]

    with pytest.raises(sqlmetrics.NoStoreError, match=r"no store at .*is the app") as caught:
        READERS[reader](where)

    assert path in str(caught.value)
    assert os.listdir(folder) == ["unrelated.txt"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.promise(5)
def test_a_reader_leaves_an_empty_file_empty(folder: Path, path: str, reader: str) -> None:
    """An empty file is no store either, and stays empty."""
    Path(path).touch()

    with pytest.raises(sqlmetrics.NoStoreError, match="is empty"):
        list(READERS[reader](path).collect())  # type: ignore[attr-defined]

    assert os.path.getsize(path) == 0
    assert os.listdir(folder) == ["metrics.sqlite3"]


def test_a_folder_that_may_not_be_entered_is_a_clear_error_for_readers(folder: Path) -> None:
    """Also where nobody can say whether there is a store."""
    folder.chmod(0)

    def read() -> list[str]:
        said = []
        path = str(folder / "metrics.sqlite3")
        for ask in (sqlmetrics.generate_latest, lambda path: sqlmetrics.MultiProcessCollector(None, path)):
            with pytest.raises(sqlmetrics.PathError) as raised:
                ask(path)
            said.append(str(raised.value))
        return said

    said = unprivileged(read)

    folder.chmod(0o755)
    assert all("may not enter the folder" in text for text in said)  # type: ignore[attr-defined]


def test_a_python_without_its_interpreter_lock_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else makes an increment exact among threads; the message says how to have the lock."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(sqlmetrics.InstallError, match="PYTHON_GIL=1"):
        sqlmetrics.install(path)
    assert not os.path.exists(path)
