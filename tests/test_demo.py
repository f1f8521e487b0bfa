"""`sqlmetrics demo` as a user runs it, and that it does not say "right" when something is wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_for

from sqlmetrics.demo.story import Demo

pytestmark = pytest.mark.slow

OTHER_PROGRAM = """
import sys
import sqlmetrics
from prometheus_client import Counter
sqlmetrics.install(sys.argv[1])
Counter("demo_requests", "Requests answered", ["path", "status"]).labels("/", "200").inc()
"""
INTERFERENCE = """
import subprocess, sys
from sqlmetrics.demo.story import Demo, run

judge = Demo.judge

def judge_what_another_changed(self):
    subprocess.run([sys.executable, "-c", sys.argv[1], self.store], check=True)
    judge(self)

Demo.judge = judge_what_another_changed
sys.exit(run(requests=20, workers=2))
"""
NO_GUNICORN = """
import sys

if "gunicorn" in sys.orig_argv:
    sys.exit("no gunicorn today")
"""
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Absent())
from sqlmetrics.cli import main
sys.exit(main(["demo"]))
"""


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with its output in pipes as in a CI job."""
    command = [sys.executable, "-m", "sqlmetrics", "demo", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)


def is_refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def assert_nothing_is_left(output: str) -> None:
    """No process listens any more, and the folder is gone."""
    port, folder = (
        re.findall(r"on port (\d+)", output),
        re.findall(r"^\$ export SQLMETRICS_PATH=(.*)/store", output, re.M),
    )
    wait_for(lambda: is_refused(int(port[0])))  # a worker that was killed takes a moment to be gone
    assert not Path(folder[0]).exists()


def test_the_demo_counts_every_request() -> None:
    """All that were answered, and not the one request that the kill cut off."""
    done = demo("--requests=300", "--workers=3")

    assert done.returncode == 0, done.stdout + done.stderr
    (counted,) = re.findall(r"ok requests counted: (.*)", done.stdout)
    numbers = dict(part.rsplit(" ", 1) for part in counted.split(", "))
    assert int(numbers.pop("/gauges 200")) >= 3 + 1  # each worker, and the successor of the killed one
    assert numbers == {"/ 200": "270", "other 404": "30"}
    assert "ok complete answers of the killed worker: 0" in done.stdout
    assert "All 32 checks hold" in done.stdout
    assert "WRONG" not in done.stdout
    assert_nothing_is_left(done.stdout)


def test_the_lines_that_the_demo_ends_with_work_as_typed(tmp_path: Path) -> None:
    """In another folder, with the port of this test's."""
    said = demo("--requests=20", "--workers=2").stdout.partition("try it yourself")[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    typed = "\n".join(re.findall(r"^\$ (.*)$", said, flags=re.M)).replace(":8000", f":{port}")
    store = re.search(r"SQLMETRICS_PATH=(\S+)", typed)
    assert store is not None
    typed = typed.replace(store[1], str(tmp_path / "metrics.sqlite3"))

    done = subprocess.run(
        ["bash", "-m", "-c", f"{typed}\nwait"],
        cwd=tmp_path,
        env=os.environ | {"GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert re.search(r'path="/",status="200"\}\s+1$', done.stdout, flags=re.M), done.stdout + done.stderr
    assert is_refused(port)


def test_the_screen_fits_80_columns() -> None:
    """Also with an encoding that knows ASCII only."""
    done = demo("--requests=20", "--workers=2", PYTHONIOENCODING="ascii")

    assert done.returncode == 0, done.stdout + done.stderr
    assert not [line for line in done.stdout.splitlines() if len(line) > 80 and "/" not in line]


def test_the_store_is_read_without_a_sqlite3_program(tmp_path: Path) -> None:
    """It is another Python that reads it."""
    done = demo("--requests=20", "--workers=2", PATH=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_count_that_is_off_is_a_failure() -> None:
    """Another program that counts a request of its own in the store is found out."""
    command = [sys.executable, "-c", INTERFERENCE, OTHER_PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1, done.stdout + done.stderr
    (wrong,) = re.findall(r"WRONG requests counted: expected (.*?), found (.*?) ok", " ".join(done.stdout.split()))
    assert "/ 200 18" in wrong[0]
    assert "/ 200 19" in wrong[1]
    assert "1 of 32 checks failed" in done.stdout
    assert "checks hold" not in done.stdout


def test_a_view_that_shows_something_else_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After some seconds, in which it might come to show it."""
    monkeypatch.setattr("sqlmetrics.demo.story.ROWS_SECONDS", 0)
    monkeypatch.setattr("sqlmetrics.demo.story.read", lambda *_: {("1",): "live"})

    Demo(0, "", 2).check_rows("SELECT pid, state FROM processes", {("1",): "dead"})

    assert capsys.readouterr().out == "WRONG SELECT pid, state FROM processes: expected 1 dead, found 1 live\n"


def test_a_gunicorn_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    """A Ctrl-C is not needed to get out of it, and nothing is left behind."""
    (tmp_path / "sitecustomize.py").write_text(NO_GUNICORN)

    done = demo("--workers=2", PYTHONPATH=str(tmp_path))

    assert done.returncode == 1
    assert re.search(r"^The demo stopped: .*; the end of gunicorn's log:$", done.stdout, re.M)
    assert "no gunicorn today" in done.stdout
    assert_nothing_is_left(done.stdout)


SHOWN = {
    "all": {("1",): 3.0, ("2",): 90.0},
    "min": {(): -90.0},
    "max": {(): 90.0},
    "sum": {(): 93.0},
    "mostrecent": {(): 90.0},
    "liveall": {("1",): 3.0},
    "livemin": {(): -3.0},
    "livemax": {(): 3.0},
    "livesum": {(): 3.0},
    "livemostrecent": {(): 3.0},
}
"""What gauges show if worker 1 has set 3 and lives, and worker 2 has set 90 later and was killed."""


@pytest.mark.parametrize(
    ("mode", "instead"),
    [
        ("all", {("1",): 3.0}),
        ("min", {(): -3.0}),
        ("max", {(): 3.0}),
        ("sum", {(): 3.0}),
        ("mostrecent", {(): 3.0}),
        ("liveall", {("1",): 3.0, ("2",): 90.0}),
        ("livemin", {(): -90.0}),
        ("livemax", {(): 90.0}),
        ("livesum", {(): 93.0}),
        ("livemostrecent", {}),
    ],
)
def test_each_gauge_that_is_off_is_named(
    mode: str, instead: dict[tuple[str, ...], float], capsys: pytest.CaptureFixture[str]
) -> None:
    """And no other."""
    demo = Demo(0, "", 2)
    demo.settings = [("1", 3), ("2", 90)]
    shown = {f"demo_{name}": values for name, values in (SHOWN | {mode: instead}).items()}

    demo.check_gauges(shown | {"demo_in_progress": {(): 0}}, [("1", 3)], 0, "now")

    assert re.findall("WRONG (.*):", capsys.readouterr().out) == [f"gauge of mode {mode} now"]
    assert (demo.results.count(False), len(demo.results)) == (1, 11)


@pytest.mark.promise(7)
def test_a_fifth_file_and_a_db_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The promise is four files at most, and none that the peer would read."""
    for name in ("a", "b", "c", "d", "e.db"):
        (tmp_path / name).touch()

    Demo(0, str(tmp_path), 2).check_files()

    assert capsys.readouterr().out.splitlines() == [
        "WRONG files beyond four in the store's folder: expected 0, found 1",
        "WRONG files that end in .db: expected [], found ['e.db']",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals) -> None:
    """A Ctrl-C, a `kill`, and a terminal that is closed."""
    command = [sys.executable, "-m", "sqlmetrics", "demo", "--requests=100000", "--workers=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        begin = "".join(process.stdout.readline() for _ in range(3))
        process.send_signal(number)
        output = begin + process.stdout.read()

    assert process.returncode == 130
    assert "The demo stopped" in output
    assert_nothing_is_left(output)


@pytest.mark.parametrize("arguments", [["--workers=1"], ["--requests=0"]])
def test_too_little_is_refused(arguments: list[str]) -> None:
    """There has to be a worker to ask while another is being killed."""
    done = demo(*arguments)

    assert done.returncode == 2
    assert "2 workers at least" in done.stdout.replace("\n", "")


def test_a_gunicorn_that_is_not_installed_is_named() -> None:
    """The demo is an extra; without it the command says how to get it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, "gunicorn"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "the demo needs gunicorn: pip install 'sqlmetrics[demo]'" in done.stderr


def test_the_app_loads_nothing_of_the_demo() -> None:
    """Whoever copies it needs no gunicorn, and it has no SQL in it."""
    program = "import sys; from sqlmetrics.demo import app; sys.exit('gunicorn' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
