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

from sqlmetrics.demo import checks, run
from sqlmetrics.demo.acts import Acts
from sqlmetrics.demo.crew import Crew
from sqlmetrics.demo.screen import Screen
from sqlmetrics.demo.server import Server

OTHER_PROGRAM = """
import sys
import sqlmetrics
from prometheus_client import Counter
sqlmetrics.install(sys.argv[1])
Counter("demo_requests", "Requests answered", ["path", "status"]).labels("/", "200").inc()
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


def row(output: str, name: str) -> list[int]:
    """The numbers of a line of the table of requests."""
    (line,) = re.findall(rf"^{re.escape(name)} .*?((?:  +[\d,]+)+)(?:  ok)? *$", output, re.MULTILINE)
    return [int(number.replace(",", "")) for number in line.split()]


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
    """Sent, answered and counted agree but for the one request that the kill cut off."""
    done = demo("--requests=300", "--workers=3")

    assert done.returncode == 0, done.stdout + done.stderr
    assert row(done.stdout, "GET /") == [270, 270, 270]
    assert row(done.stdout, "GET /missing") == [30, 30, 30]
    assert row(done.stdout, "GET /slow") == [1, 0, 0]
    sent, answered, counted = row(done.stdout, "total")
    assert sent - 1 == answered == counted > 300
    assert "checks hold" in done.stdout
    assert "WRONG" not in done.stdout
    assert_nothing_is_left(done.stdout)


def test_the_screen_fits_80_columns() -> None:
    """On a terminal that says it is narrower too, and with an encoding that has no line to draw with."""
    done = demo("--requests=20", "--workers=2", COLUMNS="40", PYTHONIOENCODING="ascii")

    assert done.returncode == 0, done.stdout + done.stderr
    assert not [line for line in done.stdout.splitlines() if len(line) > 80 and "/" not in line]


def test_the_store_is_read_without_a_sqlite3_program(tmp_path: Path) -> None:
    """Then it is another Python that reads it."""
    done = demo("--requests=20", "--workers=2", PATH=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Python's sqlite3 in another process" in done.stdout


def test_a_count_that_is_off_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Another program that counts a request of its own in the store is found out, in every place where it shows."""
    look = Acts.look

    def look_after_interference(self: Acts) -> None:
        subprocess.run([sys.executable, "-c", OTHER_PROGRAM, self.server.store], check=True)
        look(self)

    monkeypatch.setattr(Acts, "look", look_after_interference)

    assert run(requests=20, workers=2) == 1
    output = capsys.readouterr().out
    assert "WRONG requests counted for / 200: expected 18, found 19" in output
    assert "WRONG requests counted in all" in output
    assert "WRONG requests in the view metrics" in output
    assert "checks hold" not in output


SCRAPE = """
demo_all{pid="1"} 3.0
demo_all{pid="2"} 90.0
demo_min -90.0
demo_max 90.0
demo_sum 93.0
demo_mostrecent 90.0
demo_liveall{pid="1"} 3.0
demo_livemin -3.0
demo_livemax 3.0
demo_livesum 3.0
demo_livemostrecent 3.0
"""


@pytest.mark.parametrize(
    ("line", "instead", "mode"),
    [
        ("", "", None),
        ('demo_all{pid="2"} 90.0\n', "", "all"),
        ("demo_min -90.0", "demo_min -3.0", "min"),
        ("demo_max 90.0", "demo_max 3.0", "max"),
        ("demo_sum 93.0", "demo_sum 3.0", "sum"),
        ("demo_mostrecent 90.0", "demo_mostrecent 3.0", "mostrecent"),
        ('demo_liveall{pid="1"} 3.0', 'demo_liveall{pid="1"} 3.0\ndemo_liveall{pid="2"} 90.0', "liveall"),
        ("demo_livemin -3.0", "demo_livemin -90.0", "livemin"),
        ("demo_livemax 3.0", "demo_livemax 90.0", "livemax"),
        ("demo_livesum 3.0", "demo_livesum 93.0", "livesum"),
        ("demo_livemostrecent 3.0\n", "", "livemostrecent"),
    ],
)
def test_each_gauge_that_is_off_is_named(line: str, instead: str, mode: str | None) -> None:
    """Worker 1 has set 3 and lives, worker 2 has set 90 later and was killed."""
    crew = Crew()
    crew.has_set("1", 3)
    crew.has_set("2", 90)
    crew.has_ended("2")

    found = checks.gauges(crew, checks.Scrape(SCRAPE.replace(line, instead)), "now")

    assert [check.what for check in found if not check.is_right] == [f"gauge of mode {mode} now"] * (mode is not None)


def test_a_fifth_file_and_a_db_file_are_named(tmp_path: Path) -> None:
    """The promise is four files at most, and none that the peer would read."""
    for name in ("a", "b", "c", "d", "e.db"):
        (tmp_path / name).touch()

    assert [(check.found, check.is_right) for check in checks.files(str(tmp_path))] == [(1, False), (["e.db"], False)]


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


def test_a_demo_that_is_interrupted_in_the_midst_of_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The console keeps what is printed until the line is complete, which it never is."""

    def intro(self: Screen, server: Server) -> None:
        self._console.__enter__()
        raise KeyboardInterrupt

    monkeypatch.setattr(Screen, "intro", intro)

    assert run(requests=20, workers=2) == 130
    assert "The demo stopped: gunicorn and the temporary folder are gone" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--workers=1"], ["--requests=0"]])
def test_too_little_is_refused(arguments: list[str]) -> None:
    """There has to be a worker to ask while another is being killed."""
    done = demo(*arguments)

    assert done.returncode == 2
    assert "2 workers at least" in done.stdout.replace("\n", "")


@pytest.mark.parametrize("name", ["rich", "gunicorn"])
def test_what_is_not_installed_is_named(name: str) -> None:
    """The demo is an extra; without it the command says how to get it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, name], capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert f"the demo needs {name}: pip install 'sqlmetrics[demo]'" in done.stderr


def test_the_app_loads_nothing_of_the_demo() -> None:
    """Whoever copies it needs neither rich nor gunicorn, and it has no SQL in it."""
    program = "import sys; from sqlmetrics.demo import app; sys.exit(bool({'rich', 'gunicorn'} & sys.modules.keys()))"

    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
