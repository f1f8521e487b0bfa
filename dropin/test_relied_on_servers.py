"""What this package and its pages rely on in the servers, so that a release that changes it says so by itself."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import granian.server
import gunicorn.config
import gunicorn.workers
import pytest
import uvicorn._subprocess
from deployment import Deployment, Row, deployed, free_port
from helpers import wait_for

HOOKS = """
import json, os

def note(what, **facts):
    with open("facts", "a") as facts_file:
        print(json.dumps({"what": what, "here": os.getpid(), **facts}), file=facts_file)

def on_starting(server):
    note("on_starting", uid=server.cfg.uid, gid=server.cfg.gid, workers=len(server.WORKERS))

def child_exit(server, worker):
    note("child_exit", pid=worker.pid, gone=not os.path.exists(f"/proc/{worker.pid}"))

def post_fork(server, worker):
    note("fork", pid=os.getpid())
"""
APP = """
import hooks

hooks.note("import")

def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""


def rely(on: str, that: str, holds: object, here: str) -> None:
    """Fail unless something holds of a distribution, and say what of this package needs it."""
    assert holds, f"{on} {version(on)}: it does not hold any more that {that}; {here} relies on it"


class Facts:
    """What a gunicorn did that ran with hooks of its own, lost a worker, and ended."""

    def __init__(self, folder: Path, *options: str):
        (folder / "hooks.py").write_text(HOOKS)
        (folder / "site_app.py").write_text(APP)
        self._file = folder / "facts"
        command = ["-m", "gunicorn", "-c", "python:hooks", "-b", f"127.0.0.1:{free_port()}", *options, "site_app:app"]
        environment = os.environ | {"PYTHONPATH": str(folder), "HOME": str(folder)}
        log = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log
        ) as server:
            try:
                wait_for(lambda: self.of("fork"))
                self.killed = self.of("fork")[0]["pid"]
                os.kill(self.killed, signal.SIGKILL)
                wait_for(lambda: len(self.of("fork")) >= 2)
            finally:
                server.send_signal(signal.SIGTERM)
                server.communicate(timeout=20)
        self.master = server.pid

    def all(self) -> list[dict[str, object]]:
        """All that was noted, in order."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [json.loads(line) for line in lines]

    def of(self, what: str) -> list[dict[str, object]]:
        """What was noted of one kind."""
        return [fact for fact in self.all() if fact["what"] == what]


def test_gunicorn_calls_its_hooks_when_and_where_we_expect(folder: Path) -> None:
    """Those of `sqlmetrics.gunicorn`: when, where and with what they are called."""
    facts = Facts(folder)
    (starting,) = facts.of("on_starting")
    first_exit = facts.of("child_exit")[0]

    here = "sqlmetrics.gunicorn.on_starting"
    rely("gunicorn", "on_starting(server) is called once, in the master", starting["here"] == facts.master, here)
    rely("gunicorn", "on_starting comes before any worker", facts.all()[0] == starting, here)
    rely("gunicorn", "server.cfg.uid is the user's number", starting["uid"] == os.geteuid(), here)
    rely("gunicorn", "server.cfg.gid is the group's number", starting["gid"] == os.getegid(), here)
    here = "sqlmetrics.gunicorn.child_exit"
    rely("gunicorn", "child_exit(server, worker) is called in the master", first_exit["here"] == facts.master, here)
    rely("gunicorn", "worker.pid is the pid of the worker that has ended", first_exit["pid"] == facts.killed, here)
    rely("gunicorn", "child_exit comes after the worker was waited for", first_exit["gone"], here)


def test_gunicorns_preload_comes_before_its_hooks(folder: Path) -> None:
    """So the store has to be there when the configuration is read."""
    order = [fact["what"] for fact in Facts(folder, "--preload").all()][:2]

    that = "--preload imports the app before on_starting"
    rely("gunicorn", that, order == ["import", "on_starting"], "that importing sqlmetrics.gunicorn installs the store")


def test_gunicorns_hooks_are_given_by_name() -> None:
    """Every name of `sqlmetrics.gunicorn` is taken for a setting, if it is one."""
    settings = gunicorn.config.make_settings()
    for name, number in {"on_starting": 1, "child_exit": 2}.items():
        found = settings.get(name)
        that = f"{name} is a hook with {number} argument(s)"
        rely(
            "gunicorn", that, found and len(inspect.signature(found.get()).parameters) == number, "sqlmetrics.gunicorn"
        )


@pytest.mark.parametrize(
    ("name", "is_there"), [("asgi", True), ("gthread", True), ("gevent", True), ("eventlet", False)]
)
def test_gunicorn_has_the_kinds_of_workers_that_the_page_names(name: str, is_there: bool) -> None:
    """The page names those that there are, and one that is gone."""
    that = f"there are {'' if is_there else 'no '}{name} workers"
    rely("gunicorn", that, (name in gunicorn.workers.SUPPORTED_WORKERS) is is_there, "docs/how-to/servers/gunicorn.md")


def test_uvicorn_spawns_its_workers() -> None:
    """So that a worker imports everything anew, with the launcher's environment."""
    method = uvicorn._subprocess.spawn.get_start_method()

    rely("uvicorn", "its workers are spawned", method == "spawn", "docs/how-to/servers/uvicorn.md")


@pytest.mark.parametrize(("name", "heading"), [("uvicorn", "Workers"), ("hypercorn", "asyncio workers")])
def test_the_process_that_starts_the_workers_counts_nothing(name: str, heading: str, folder: Path) -> None:
    """It does not import the app."""
    page = f"servers/{name}.md"
    with deployed(Row(page, heading), folder) as server:
        server.until(lambda: len(server.counting()) >= 2)
        found = server.shell(f"SELECT pid FROM processes WHERE os_pid = {server.process.pid}")

    rely(name, "the process that starts its workers does not import the app", found == [], f"docs/how-to/{page}")


def test_hypercorn_ends_with_a_worker_that_is_killed(folder: Path) -> None:
    """And does not replace it, in which case the page had less to say."""
    with deployed(Row("servers/hypercorn.md", "asyncio workers"), folder) as server:
        before = kill_one(server)
        server.until(lambda: server.process.poll() is not None or server.counting() - before)
        has_ended = server.process.poll() is not None

    rely("hypercorn", "it ends when a worker is killed", has_ended, "docs/how-to/servers/hypercorn.md")


def test_hypercorn_replaces_a_worker_that_ends(folder: Path) -> None:
    """As with `--max-requests`."""
    row = Row("servers/hypercorn.md", "asyncio workers", change=(" -w 2", " -w 2 --max-requests 20"))
    with deployed(row, folder) as server:
        server.until(lambda: len(server.counting()) >= 2)
        before = server.counting()
        server.until(lambda: server.counting() - before or server.process.poll() is not None)
        ended = server.process.poll() is not None

    that = "it replaces a worker that has had its --max-requests"
    rely("hypercorn", that, not ended, "docs/how-to/servers/hypercorn.md")


def test_granian_ends_with_a_worker_that_is_killed(folder: Path) -> None:
    """Unless it was told otherwise."""
    row = Row("servers/granian.md", "WSGI", change=(" --respawn-failed-workers", ""))
    with deployed(row, folder) as server:
        kill_one(server)
        status = server.process.wait(20)

    that = "it fails when a worker is killed, without --respawn-failed-workers"
    rely("granian", that, status != 0, "docs/how-to/servers/granian.md")


def test_granian_ends_with_a_worker_that_is_killed_again_at_once(folder: Path) -> None:
    """Which it takes for a loop of crashes."""
    with deployed(Row("servers/granian.md", "WSGI"), folder) as server:
        before = kill_one(server)
        server.until(lambda: server.counting() - before)
        (successor,) = server.counting() - before
        server.kill(successor)
        status = server.process.wait(20)

    rely("granian", "it fails when a worker is killed twice at once", status != 0, "docs/how-to/servers/granian.md")


def test_granians_workers_are_processes_where_there_is_an_interpreter_lock() -> None:
    """And threads elsewhere."""
    has_lock = not sysconfig.get_config_var("Py_GIL_DISABLED")
    server = granian.server.MPServer if has_lock else granian.server.MTServer
    that = "its workers are processes, or threads on a Python without the interpreter lock"

    rely("granian", that, granian.server.Server is server, "docs/how-to/servers/granian.md")


def kill_one(server: Deployment) -> set[int]:
    """Have two workers count, and kill one; returns them."""
    server.until(lambda: len(server.counting()) >= 2)
    before = server.counting()
    server.kill(min(before))
    return before
