"""Under gevent and eventlet, whenever they patch: greenlets count, fork and scrape; the flusher is a real thread."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Shell, scrape, sparing_restarts, wait_for

import sqlmetrics
from sqlmetrics.rows.making import LOCK_SUFFIX

pytestmark = [
    pytest.mark.promise(12),
    *(pytest.mark.row("greenlets", f"{name}: monkey patching at any time", name) for name in ("gevent", "eventlet")),
]

APP = Path(__file__).with_name("green_app.py")


class Program:
    """A process of `green_app.py`."""

    def __init__(self, library: str, when: str, path: str):
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        command = [sys.executable, *sparing_restarts(), APP, library, when, path, str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        theirs.close()
        self._socket, self._lines = ours, ours.makefile("r")

    def tell(self, name: str, *arguments: object) -> None:
        """Have a step done, see `green_app.STEPS`."""
        self._socket.sendall(json.dumps([name, arguments]).encode() + b"\n")

    def answer(self) -> object:
        """What the step has returned."""
        line = self._lines.readline()
        assert line, f"it has ended: {self.process.communicate()[1]}"
        return json.loads(line)

    def do(self, name: str, *arguments: object) -> object:
        """Have a step done, and return what it has returned."""
        self.tell(name, *arguments)
        return self.answer()

    def end(self) -> tuple[int, str]:
        """Let it end; its status, and what it wrote to stderr."""
        self.close()
        errors = self.process.communicate(timeout=30)[1]
        return self.process.returncode, errors

    def close(self) -> None:
        """Close the socket: the program ends then."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(params=["gevent", "eventlet"])
def library(request: pytest.FixtureRequest) -> str:
    """Who patches."""
    return request.param


@pytest.fixture(params=["first", "imported", "counting", "forked"])
def when(request: pytest.FixtureRequest) -> str:
    """When it patches."""
    return request.param


@pytest.fixture
def program(library: str, when: str, path: str) -> Iterator[Program]:
    """A program that is gone at the end."""
    with Program(library, when, path) as one:
        yield one


def counted(path: str, label: str) -> float:
    """What a scrape shows of a path."""
    return scrape(path).get(("requests_total", (("path", label),)), 0)


def test_counts_are_exact(program: Program, path: str) -> None:
    """With children made in many greenlets, in a process that ends and in one that forked while greenlets counted."""
    assert program.do("count", "/", 50, 40) == 2000
    assert counted(path, "/") == 2000
    assert sum(value for (name, _), value in scrape(path).items() if name == "requests_total") >= 4000

    status, of_child, both = program.do("fork", "/forked")  # type: ignore[misc]

    assert (status, of_child >= 100, both > of_child) == (7, True, True)
    assert counted(path, "/forked") == both
    observed = scrape(path)["seconds_count", ()]
    assert program.end() == (0, "")
    assert observed == 2000 + both == scrape(path)["seconds_count", ()]
    assert not list(Path(path).parent.glob("*.db"))


def test_a_kill_loses_nothing(program: Program, path: str) -> None:
    """Of a child that is killed while twenty greenlets count in it; another one goes on."""
    first = program.do("kill", "/")
    assert counted(path, "/") - first in (0, 1)

    second = program.do("kill", "/")

    assert counted(path, "/") - first - second in (0, 1, 2)
    assert program.end() == (0, "")


def test_rows_come_while_all_greenlets_wait(program: Program, path: str, shell: Shell) -> None:
    """And the flusher does not end for want of one that rings it."""
    for label in ("a", "b"):
        program.do("count", label, 1, 1)
        shell.wait_for_row(f"SELECT 1 FROM samples WHERE labels LIKE '%\"{label}\"%' AND value = 1")
    assert program.end() == (0, "")


def test_rows_come_while_a_greenlet_computes(program: Program, path: str, folder: Path, shell: Shell) -> None:
    """A flusher that is a greenlet would never have its turn."""
    program.tell("compute", "hot", str(folder / "seen"))
    shell.wait_for_row("SELECT 1 FROM samples WHERE labels LIKE '%\"hot\"%' AND value = 1")
    (folder / "seen").touch()
    program.answer()
    assert program.end() == (0, "")


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        return str(link.readlink())
    return ""


def test_greenlets_go_on_while_the_flusher_waits(program: Program, path: str, folder: Path) -> None:
    """It waits for the lock under which deleted files are made anew; a greenlet that waits so would stop all others."""
    program.do("count", "/", 5, 5)
    files = os.listdir(folder)
    lock = os.open(path + LOCK_SUFFIX, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for name in files:
        os.unlink(folder / name)
    opened = Path(f"/proc/{program.do('pid')}/fd")
    wait_for(lambda: path + LOCK_SUFFIX in map(_target, opened.iterdir()))

    assert program.do("count", "/", 5, 5) == 25

    os.unlink(path + LOCK_SUFFIX)
    os.close(lock)

    def is_mended() -> bool:
        with contextlib.suppress(sqlmetrics.SQLMetricsError):
            return counted(path, "/") == 50
        return False

    wait_for(is_mended)
    assert program.end() == (0, "")


def test_functions_and_log_handlers_are_called_by_greenlets(program: Program, path: str, folder: Path) -> None:
    """Their locks are made for greenlets: of a thread that waits for one, nobody would know."""
    pid = program.do("pid")
    program.do("ask_where")
    program.do("count", "/", 1, 1)
    wait_for(lambda: scrape(path).get(("where", ())) == pid)
    for name in os.listdir(folder):
        os.unlink(folder / name)
    wait_for(lambda: program.do("threads_of_handler"))
    assert program.do("threads_of_handler") == [pid]
    assert program.end() == (0, "")


@pytest.mark.promise(5)
def test_scrapes_in_many_greenlets_at_once_are_right(program: Program) -> None:
    """In greenlets, while a function in one of them lets the others go on."""
    assert program.do("scrape_at_once", 8) == [7] * 24
    assert program.end() == (0, "")


def test_a_server_of_greenlets_answers_scrapes(program: Program) -> None:
    """A server of greenlets answers while others count."""
    answers_while_it_counts(program, program.do("serve"))


def test_start_http_server_answers_by_greenlets(library: str, path: str) -> None:
    """Its threads are greenlets, too, where the standard library's server was patched before it was imported."""
    with Program(library, "first", path) as program:
        answers_while_it_counts(program, program.do("serve_in_thread"))


def answers_while_it_counts(program: Program, port: object) -> None:
    """Scrape over HTTP: the counter never goes back, and is exact in the end."""
    program.tell("count", "/", 20, 200)
    texts = [urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60).read().decode() for _ in range(20)]
    assert program.answer() == 4000
    texts.append(urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60).read().decode())

    counts = [float(line.split()[1]) for text in texts for line in text.splitlines() if '{path="/"}' in line]
    assert counts == sorted(counts)
    assert counts[-1] == 4000
    assert program.end() == (0, "")


def test_waiting_for_all_greenlets_does_not_wait_for_the_flusher(program: Program) -> None:
    """The greenlet of the flusher never ends."""
    program.do("wait_for_all")
    assert program.end() == (0, "")
