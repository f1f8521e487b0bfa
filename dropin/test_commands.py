"""Commands beside a server, which leave counts and nothing else: Django's, and a scheduler that starts processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from deployment import Deployment, Row, inherited
from exact import assert_all_shown, assert_tidy
from helpers import FILES, Shell, scrape, wait_for
from pages import DOCS

pytestmark = pytest.mark.promise(3, 6, 12)

PAGE = "libraries/django-commands.md"
LAUNCHER = "sqlmetrics run --path /dev/shm/app/metrics.sqlite3 --"
COUNTED = (("method", "GET"), ("status", "200"), ("view", "hello"))
HELLO = ("django_http_responses_total_by_status_view_method_total", COUNTED)
MIGRATIONS = "django_migrations_applied_total"


class Way(NamedTuple):
    """What a way to use the store has instead of the page's launcher, and at the top of settings.py."""

    launcher: str
    settings: str = ""


WAYS = {
    "the launcher": Way(LAUNCHER),
    "the launcher, PROMETHEUS_MULTIPROC_DIR is set": Way("PROMETHEUS_MULTIPROC_DIR=/dev/shm/app sqlmetrics run --"),
    "install() in settings.py": Way(
        "PROMETHEUS_MULTIPROC_DIR=/dev/shm/app", "import sqlmetrics\nsqlmetrics.install()\n"
    ),
}


class Project(Deployment):
    """The page's project, with its server."""

    def __init__(self, way: Way, folder: Path):
        row = Row(PAGE, "The server", samples={HELLO: 1.0}, change=(LAUNCHER, way.launcher))
        change = {"ALLOWED_HOSTS": f"{way.settings}ALLOWED_HOSTS"}
        quiet = {"PYTHONWARNINGS": "ignore::RuntimeWarning"}  # Django's, of what django-prometheus does for migrations
        super().__init__(row, folder, change, **chosen_modes(), **quiet)

    def begin(self, heading: str) -> subprocess.Popen[str]:
        """Start the command of another section."""
        command = Row(PAGE, heading, change=self.row.change).command()
        return subprocess.Popen(
            ["bash", "-c", self.here(command)],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def shown(self, name: str) -> float:
        """A sample without labels, which every scrape shows with the same value; 0 if none shows it."""
        (value,) = {values.get((name, ()), 0.0) for values in self.scrapes(4)}
        return value

    def pids_shown(self) -> set[int]:
        """The processes that have a series of their own in a scrape."""
        (values,) = self.scrapes(1)
        return {int(dict(labels)["pid"]) for _, labels in values if "pid" in dict(labels)}


def chosen_modes() -> dict[str, str]:
    """The variable that the page sets for the server."""
    name, modes = re.search(r"^export (\w+)=(\S+)$", (DOCS / "how-to" / PAGE).read_text("utf-8"), re.M).groups()  # type: ignore[union-attr]
    assert MIGRATIONS in modes
    return {name: modes}


@pytest.mark.row("library", "django-commands: beside a server", "django-prometheus", "django", "gunicorn")
@pytest.mark.parametrize("way", WAYS)
def test_django_commands_leave_counts_and_nothing_else(way: str, folder: Path) -> None:
    """A short one, one that is told to end, and one that is killed, beside a server that goes on."""
    server = Project(WAYS[way], folder)
    try:
        server.start()
        server.until(lambda: len(server.counting()) == 2)
        importing = server.begin("A short command")
        assert importing.communicate(timeout=60) == ("", "")
        assert server.shown("orders_total") == 100
        assert server.shown("last_import_timestamp_seconds") > 0
        turns = sum(turns_until(server, number) for number in (signal.SIGTERM, signal.SIGKILL))
        assert server.shown("scheduler_turns_total") - turns in (0, 1, 2)  # killed between the count and the line
        assert server.pids_shown() <= {server.process.pid, *server.counting()}
        kept = server.shell(
            f"SELECT pid FROM samples WHERE metric = '{MIGRATIONS}'"
        )  # of mode `all`, if none is chosen
        assert str(importing.pid) in {str(row["pid"]) for row in kept}
        server.request(20)
        assert_all_shown(server)
        assert "counts in its own memory" not in server.log()
    finally:
        server.stop()
    assert_tidy(server)


def turns_until(server: Project, number: signal.Signals) -> int:
    """Let a scheduler do some turns, end it by a signal, and see that nothing of it is left; how many it has told."""
    scheduler = server.begin("A command that goes on")
    assert scheduler.stdout is not None
    told = [scheduler.stdout.readline() for _ in range(3)]
    assert server.shown("schedulers") == 1
    scheduler.send_signal(number)
    rest, errors = scheduler.communicate(timeout=60)
    assert (scheduler.returncode, errors) == (-number, "")
    assert server.shown("schedulers") == 0
    assert scheduler.pid not in server.pids_shown()
    return len(told) + rest.count("\n")


SCHEDULER = """
import os, subprocess, sys, time
from prometheus_client import Counter, Gauge

TASKS = Counter("tasks", "Tasks done", ["how"])
RUNNING = Gauge("tasks_running", "Tasks at work", multiprocess_mode="livesum")

def work(how, seconds):
    with RUNNING.track_inprogress():
        print("at work", flush=True)
        time.sleep(float(seconds))
    TASKS.labels(how).inc()

def forked(how):
    pid = os.fork()
    if pid == 0:
        work(how, 0)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def started(*arguments):
    return subprocess.Popen([sys.executable, "-m", "cli", "task", "run", *arguments], start_new_session=True)

if sys.argv[1:3] == ["task", "run"]:
    work(*sys.argv[3:])
elif sys.argv[1:] == ["scheduler"]:
    for _ in range(3):
        assert forked("forked") == 0
    assert [task.wait() for task in [started("started", "0") for _ in range(3)]] == [0] * 3
    print(started("killed", "60").pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.row("library", "django-commands: a scheduler that forks and starts its tasks, as Airflow's", "Python")
def test_tasks_that_a_scheduler_starts_leave_counts_and_nothing_else(folder: Path) -> None:
    """Forked ones, commands in sessions of their own, and one that is killed; then the scheduler is killed as well."""
    (folder / "cli.py").write_text(SCHEDULER)
    command = [sys.executable, "-m", "sqlmetrics", "run", "--", sys.executable, "-m", "cli", "scheduler"]
    environment = inherited() | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    path = str(folder / "metrics.sqlite3")
    running, done = ("tasks_running", ()), {("tasks_total", (("how", how),)): 3.0 for how in ("forked", "started")}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as scheduler:
        try:
            assert scheduler.stdout is not None
            lines = iter(scheduler.stdout.readline, "")
            task = next(int(line) for line in lines if line.strip().isdigit())
            wait_for(lambda: scrape(path).get(running) == 1)
            os.kill(task, signal.SIGKILL)
            wait_for(lambda: scrape(path).get(running, 0.0) == 0)
            assert {sample: scrape(path).get(sample) for sample in done} == done
        finally:
            scheduler.kill()
    left = scrape(path)
    assert {sample: value for sample, value in left.items() if sample[0].startswith("tasks")} == done
    assert not [labels for _, labels in left if "pid" in dict(labels)]
    assert {file.name for file in folder.iterdir()} <= {
        "cli.py",
        "__pycache__",
        *(f"metrics.sqlite3{end}" for end in FILES),
    }
    assert Shell(path).value("PRAGMA integrity_check") == "ok"
