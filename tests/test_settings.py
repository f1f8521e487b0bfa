"""Settings: every keyword of `install` has a variable, wrong ones are refused, and the files have the mode wanted."""

from __future__ import annotations

import os
import re
import stat
from decimal import Decimal
from pathlib import Path

import prometheus_client.multiprocess
import pytest
from helpers import FILES, flush_all, scrape, value
from outsiders import error_of, unprivileged
from prometheus_client import CollectorRegistry, Counter, Gauge

import sqlmetrics


def worker_number() -> int:
    """A process identifier that a variable can name."""
    return 7


def test_each_keyword_has_a_variable(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is used where its keyword is not given."""
    found = {
        "SQLMETRICS_PATH": path,
        "SQLMETRICS_FLUSH_INTERVAL": "0.25",
        "SQLMETRICS_PROCESS_IDENTIFIER": "test_settings:worker_number",
        "SQLMETRICS_MODE": "640",
        "SQLMETRICS_GROUP": str(os.getegid()),
        "SQLMETRICS_KEEP_DEAD": "5",
        "SQLMETRICS_MAX_SERIES": "12",
    }
    for name, text in found.items():
        monkeypatch.setenv(name, text)

    store = sqlmetrics.install(mode=0o600)

    assert store.path == path
    assert store.settings.flush_interval == 0.25
    assert store.settings.mode == 0o600
    assert store.settings.gid() == os.getegid()
    assert store.settings.keep_dead == 5
    assert store.settings.max_series == 12
    Gauge("busy", "Busy").set(3)
    assert value("busy", pid="7") == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SQLMETRICS_FLUSH_INTERVAL", "often"),
        ("SQLMETRICS_FLUSH_INTERVAL", "0"),
        ("SQLMETRICS_FLUSH_INTERVAL", "-1"),
        ("SQLMETRICS_FLUSH_INTERVAL", "nan"),
        ("SQLMETRICS_FLUSH_INTERVAL", "inf"),
        ("SQLMETRICS_PROCESS_IDENTIFIER", "no_such_module:pid"),
        ("SQLMETRICS_PROCESS_IDENTIFIER", "os:no_such_function"),
        ("SQLMETRICS_PROCESS_IDENTIFIER", "os"),
        ("SQLMETRICS_PROCESS_IDENTIFIER", "os:name"),
        ("SQLMETRICS_PROCESS_IDENTIFIER", ".os:getpid"),
        ("SQLMETRICS_MODE", "rw-rw----"),
        ("SQLMETRICS_MODE", "999"),
        ("SQLMETRICS_GROUP", "no-such-group"),
        ("SQLMETRICS_GROUP", "4294967295"),
        ("SQLMETRICS_KEEP_DEAD", "some"),
        ("SQLMETRICS_KEEP_DEAD", "-1"),
        ("SQLMETRICS_KEEP_DEAD", "9223372036854775808"),
        ("SQLMETRICS_MAX_SERIES", "many"),
        ("SQLMETRICS_MAX_SERIES", "1.5"),
        ("SQLMETRICS_MAX_SERIES", "0"),
        ("SQLMETRICS_MAX_SERIES", "-3"),
    ],
)
@pytest.mark.promise(4)
def test_a_variable_that_cannot_be_used_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """The message names the setting and what was found; no file is made."""
    monkeypatch.setenv(name, text)

    with pytest.raises(ValueError, match="(?i)" + name.removeprefix("SQLMETRICS_")) as caught:
        sqlmetrics.install(path)

    found = str(caught.value)
    assert text in found or str(float(text)) in found
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("flush_interval", "1"),
        ("flush_interval", float("nan")),
        ("flush_interval", Decimal("0.5")),
        ("process_identifier", "os:getpid"),
        ("process_identifier", 7),
        ("mode", "660"),
        ("mode", 660),
        ("mode", 384.0),
        ("group", 2**32 - 1),
        ("group", 1.5),
        ("keep_dead", "5"),
        ("keep_dead", 2.5),
        ("keep_dead", 2**63),
        ("max_series", "3"),
        ("max_series", True),
    ],
)
@pytest.mark.promise(4)
def test_a_keyword_that_cannot_be_used_is_refused(path: str, name: str, found: object) -> None:
    """Also one of the wrong kind, with which flushes would fail later; no file is made."""
    shown = "0o1224" if found == 660 else repr(found)

    with pytest.raises(ValueError, match=f"^{name} (is )?{re.escape(shown)}"):
        sqlmetrics.install(path, **{name: found})  # type: ignore[arg-type]

    assert not os.path.exists(path)


@pytest.mark.promise(4)
def test_an_unknown_mode_in_the_environment_names_its_variable(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable may be set far from the code that scrapes."""
    sqlmetrics.install(path)
    monkeypatch.setenv("SQLMETRICS_MODES", "busy=average")

    with pytest.raises(ValueError, match="SQLMETRICS_MODES: 'average' for 'busy'"):
        sqlmetrics.generate_latest()


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir", "SQLMETRICS_PATH"])
def test_a_folder_in_the_environment_holds_the_store(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The store is a file of the usual name in it, for writers and readers alike."""
    monkeypatch.setenv(name, str(folder))

    store = sqlmetrics.install()
    Counter("events", "Events").inc()
    sqlmetrics.uninstall()

    assert store.path == str(folder / "metrics.sqlite3")
    assert scrape() == {("events_total", ()): 1.0}


def test_the_first_variable_that_is_set_wins(folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own comes before the peer's, an argument before both."""
    (folder / "peer").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder / "peer"))
    monkeypatch.setenv("SQLMETRICS_PATH", str(folder / "ours.sqlite3"))

    assert sqlmetrics.install().path == str(folder / "ours.sqlite3")
    sqlmetrics.uninstall()
    assert sqlmetrics.install(path).path == path


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_who_hands_over_the_peers_folder_gets_the_store_in_use(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Libraries do so, also with a folder that they made and put into the environment themselves (dramatiq)."""
    (folder / "peer").mkdir()
    (folder / "elsewhere").symlink_to(folder / "peer")
    store = sqlmetrics.install(path, flush_interval=1000)
    Gauge("jobs", "Jobs", multiprocess_mode="livesum").set(3)
    monkeypatch.setenv(variable, str(folder / "peer"))

    for given in (folder / "peer", f"{folder}/elsewhere/"):
        registry = CollectorRegistry()
        prometheus_client.multiprocess.MultiProcessCollector(registry, path=given)
        assert registry.get_sample_value("jobs") == 3
    flush_all(store)
    prometheus_client.multiprocess.mark_process_dead(os.getpid(), folder / "peer")
    assert registry.get_sample_value("jobs") is None
    assert list((folder / "peer").iterdir()) == []


def test_the_peers_folder_is_the_store_that_the_environment_names(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a process that only reads, too; an old store in that folder is not mistaken for it."""
    (folder / "peer").mkdir()
    for place, amount in ((str(folder / "peer"), 1), (path, 2)):
        sqlmetrics.install(place)
        Counter("events", "Events", registry=None).inc(amount)
        sqlmetrics.uninstall()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder / "peer"))

    assert scrape(str(folder / "peer")) == {("events_total", ()): 1.0}
    monkeypatch.setenv("SQLMETRICS_PATH", path)
    assert scrape(str(folder / "peer")) == {("events_total", ()): 2.0}


def test_a_folder_that_is_not_the_peers_is_that_folder(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the peer's own has that meaning."""
    for name in ("peer", "other"):
        (folder / name).mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder / "peer"))
    sqlmetrics.install(path)

    with pytest.raises(sqlmetrics.NoStoreError, match="other"):
        prometheus_client.multiprocess.MultiProcessCollector(None, folder / "other")


@pytest.mark.parametrize(("given", "wanted"), [(None, 0o600), (0o640, 0o640), (0o666, 0o666)])
@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.promise(7, 11)
def test_all_four_files_have_the_mode_asked_for(path: str, given: int | None, wanted: int, umask: int) -> None:
    """Private by default, and whatever is asked for in spite of the umask."""
    before = os.umask(umask)
    try:
        store = sqlmetrics.install(path, mode=given)
        Counter("events", "Events").inc()
        store.flush()
    finally:
        os.umask(before)

    modes = {suffix: stat.S_IMODE(os.stat(path + suffix).st_mode) for suffix in FILES}
    assert modes == dict.fromkeys(FILES, wanted)


@pytest.mark.promise(3)
def test_another_user_counts_in_a_shared_store(folder: Path, path: str) -> None:
    """With a mode that lets it, an unprivileged worker writes what a privileged master made."""
    folder.chmod(0o777)
    store = sqlmetrics.install(path, mode=0o666)
    requests = Counter("requests", "Requests", ["by"])
    requests.labels("master").inc()
    store.flush()

    def work() -> object:
        requests.labels("worker").inc(2)
        store.flush()
        return scrape()[("requests_total", (("by", "master"),))]

    assert unprivileged(work) == 1
    assert value("requests_total", by="worker") == 2
    assert dict(store.trouble.counts) == {}


def test_a_group_that_the_process_may_not_give_is_refused(folder: Path, path: str) -> None:
    """Not everybody may give files to any group: the error names the group, and leaves no half-made store."""
    folder.chmod(0o777)

    kind, message = unprivileged(lambda: error_of(lambda: sqlmetrics.install(path, group=0)))

    assert kind == "PathError"
    assert "group" in message
    assert os.listdir(folder) == []


def test_a_reset_before_install_does_not_decide_the_settings(path: str) -> None:
    """A reset, or a death notice, before `install` does not decide how the store is kept."""
    sqlmetrics.install(path)
    sqlmetrics.uninstall()
    sqlmetrics.reset(path)
    sqlmetrics.mark_process_dead(1234, path)

    store = sqlmetrics.install(path, flush_interval=0.02, keep_dead=3)

    assert (store.settings.flush_interval, store.settings.keep_dead) == (0.02, 3)
    assert sqlmetrics.install(path, flush_interval=0.02, keep_dead=3) is store
    Counter("events", "Events").inc()
