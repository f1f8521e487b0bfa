"""`sqlmetrics export`: a file has all of it or stays as it was."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import in_child
from looking import as_they_are, command, worker
from outsiders import NOBODY, as_root

import sqlmetrics


def test_the_standard_output_gets_what_a_scrape_gets(path: str) -> None:
    """To the byte, in both formats."""
    with worker(path) as one:
        one.do("count", "é", 3.5)
        one.do("observe", "/", 0.2)

        assert command("export", "--path", path).out == sqlmetrics.generate_latest(path).decode()
        wanted = sqlmetrics.generate_latest(path, openmetrics=True).decode()
        assert command("export", "--path", path, "--openmetrics", "-o", "-").out == wanted


def test_self_metrics_are_there_on_request(path: str) -> None:
    """As in `generate_latest`."""
    with worker(path):
        assert "sqlmetrics_processes" not in command("export", "--path", path).out
        assert 'sqlmetrics_processes{state="alive"} 1.0' in command("export", "--path", path, "--self-metrics").out


def test_a_file_is_replaced_and_nothing_lies_beside_it(path: str, tmp_path: Path) -> None:
    """A new one can be read by node_exporter's user; one that is there keeps its mode."""
    file = tmp_path / "app.prom"
    with worker(path) as one:
        for amount, mode in ((3, 0o644), (4, 0o640)):
            one.do("count", "/", amount)
            before = os.umask(0o022)
            done = command("export", "--path", path, "-o", str(file))
            os.umask(before)

            assert (done.status, done.out, done.err) == (0, "", "")
            assert file.read_bytes() == sqlmetrics.generate_latest(path)
            assert os.listdir(tmp_path) == ["app.prom"]
            if mode == 0o644:
                assert stat.S_IMODE(file.stat().st_mode) == mode
                file.chmod(0o640)
            assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-cells", "-journal"])
def test_no_file_of_the_store_is_replaced(path: str, folder: Path, tmp_path: Path, suffix: str) -> None:
    """Nor by way of a link, or of another name of its folder: what the dead have counted would be gone."""
    with worker(path) as one:
        one.do("count", "/", 3)
        one.do("flush")
    (tmp_path / "link.prom").symlink_to(path + suffix)
    (tmp_path / "folder").symlink_to(folder)
    before = as_they_are(path)

    for name in (path + suffix, str(tmp_path / "link.prom"), str(tmp_path / "folder" / f"metrics.sqlite3{suffix}")):
        done = command("export", "--path", path, "-o", name)
        assert done.status == 2
        assert f"{name} is a file of the store" in done.err
    assert as_they_are(path) == before


def test_a_disk_without_room_leaves_the_file_as_it_was(path: str, tmp_path: Path) -> None:
    """Half a file would be a scrape in which half of the counters are gone."""
    file = tmp_path / "app.prom"
    file.write_text("whole\n")
    with worker(path) as one:
        one.do("burst", 0, 3000)

        def export() -> list[object]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
            return list(command("export", "--path", path, "-o", str(file)))

        status, _, err = in_child(export)  # type: ignore[misc]

    assert status == 2
    assert f"{file} cannot be written" in err
    assert file.read_text() == "whole\n"
    assert os.listdir(tmp_path) == ["app.prom"]


def test_a_killed_export_leaves_the_file_as_it_was(path: str, tmp_path: Path) -> None:
    """Whenever that is: the file has its name when it is whole."""
    file = tmp_path / "app.prom"
    file.write_text("whole\n")
    with worker(path) as one:
        one.do("count", "/", 1)
        program = (
            "import os, signal, sys\n"
            "from sqlmetrics import cli\n"
            "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "cli.main(sys.argv[1:])"
        )
        done = subprocess.run([sys.executable, "-c", program, "export", "--path", path, "-o", str(file)], check=False)

    assert done.returncode == -9
    assert file.read_text() == "whole\n"
    assert [name for name in os.listdir(tmp_path) if name.endswith(".prom")] == ["app.prom"]


@pytest.mark.parametrize("output", ["/dev/null", "{folder}", "{folder}/none/app.prom"])
def test_what_cannot_be_the_file_is_told(path: str, tmp_path: Path, output: str) -> None:
    """And nothing is made."""
    with worker(path):
        done = command("export", "--path", path, "-o", output.format(folder=tmp_path))

    assert done.status == 2
    assert "app.prom cannot be written" in done.err or "is no plain file" in done.err
    assert os.listdir(tmp_path) == []


def test_a_link_leads_to_the_file(path: str, tmp_path: Path) -> None:
    """What it points to is replaced, not the link."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "app.prom"
    link.symlink_to(tmp_path / "real" / "app.prom")
    with worker(path):
        assert command("export", "--path", path, "-o", str(link)).status == 0

    assert link.is_symlink()
    assert link.read_bytes().startswith(b"# HELP")


@as_root
def test_after_the_death_of_all_another_user_exports_the_same(path: str, folder: Path) -> None:
    """And leaves the store as it is."""
    folder.chmod(0o755)
    with worker(path) as one:
        one.do("count", "/", 3)
        one.kill()
    before = as_they_are(path)

    assert 'requests_total{path="/"} 3.0' in command("export", "--path", path, nobody=True).out
    assert as_they_are(path) == before


@as_root
@pytest.mark.promise(11)
def test_a_link_of_another_user_is_not_followed(path: str, open_folder: Path, tmp_path: Path) -> None:
    """In /tmp, he could have any file of ours replaced."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = open_folder / "app.prom"
    link.symlink_to(precious)
    os.lchown(link, NOBODY, NOBODY)
    (open_folder / "app").mkdir()
    store = str(open_folder / "app" / "metrics.sqlite3")
    with worker(store):
        done = command("export", "--path", store, "-o", str(link))

    assert done.status == 2
    assert f"is a link of uid {NOBODY}" in done.err
    assert precious.read_text() == "mine"


def test_the_text_is_utf_8_in_any_locale(path: str) -> None:
    """What reads it expects nothing else."""
    with worker(path) as one:
        one.do("count", "é", 3)
        arguments = [sys.executable, "-m", "sqlmetrics", "export", "--path", path]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        out = subprocess.run(arguments, check=True, capture_output=True, env=environment).stdout

    assert 'requests_total{path="é"} 3.0'.encode() in out
