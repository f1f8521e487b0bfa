"""Commands with whatever texts a store has, and with whatever streams and locales they are started."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers import child
from looking import command
from prometheus_client import Counter

import sqlmetrics

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-m", "sqlmetrics"]
ODD = "\x1b]0;\x07\x9b31m\u202e\r\nit's a \\ é"
"""What acts on a terminal, and what is odd in other ways."""


@contextlib.contextmanager
def odd(path: str) -> Iterator[None]:
    """A process whose names, help and labels are odd; of one label there are many values."""

    def begin() -> None:
        sqlmetrics.install(path, process_identifier=lambda: "one\x1b[2J")
        counter = Counter("odd\x1b[1mname", f"help {ODD} \ud800", ["label\x1b[1m"])
        for number in range(150):
            counter.labels(f"{ODD} {number}").inc()
        counter.labels("\ud800").inc()

    with child(begin=begin) as one:
        one.do("begin")
        yield


TEXTS = {
    "show": ["show"],
    "a pattern": ["show", "odd*"],
    "by process": ["show", "--by", "process"],
    "families": ["show", "--family"],
    "status": ["status"],
    "check": ["check"],
    "cardinality": ["cardinality"],
    "top": ["top", "--once", "--interval", "0.1"],
    "remove": ["remove", "--yes", "odd\x1b[1mname"],
    "nothing": ["show", "none\x1b[1m"],
    "reset": ["reset", "--yes", "--force"],
}


@pytest.mark.parametrize("given", TEXTS.values(), ids=TEXTS)
def test_no_text_of_a_store_acts_on_the_terminal(path: str, given: list[str]) -> None:
    """Names, help, labels, processes and arguments: each line has printable characters only."""
    with odd(path):
        said = command(*given, "--path", path)

    lines = f"{said.out}{said.err}".split("\n")
    assert len(lines) > 1
    assert [line for line in lines if not line.isprintable()] == []


def test_a_path_does_not_act_on_the_terminal(folder) -> None:
    """Nor what is wrong with it."""
    for name in ("env", "show", "reset"):
        said = command(name, "--path", str(folder / "none\x1b[1m" / "metrics.sqlite3"))
        assert said.status != 0
        assert said.err.replace("\n", "").isprintable()


@pytest.mark.parametrize("form", [["show", "odd*", "--openmetrics"], ["show", "--csv"], ["show", "--json"], ["export"]])
def test_odd_texts_are_printed_for_programs(path: str, form: list[str]) -> None:
    """Lone surrogates, of which UTF-8 has none, are escaped."""
    with odd(path):
        said = command(*form, "--path", path)
    assert (said.status, said.err) == (0, "")
    assert said.out.encode()
    assert "d800" in said.out


def test_what_cardinality_says_can_be_pasted(path: str) -> None:
    """Also where the name has control characters: bash gets the words, and `remove` takes them."""
    with odd(path):
        lines = command("cardinality", "--path", path).out.splitlines()
        of_label, of_family = (line for line in lines if line.startswith("  sqlmetrics remove"))
        assert (_pasted(path, of_label), _pasted(path, of_family)) == (1, 150)


def _pasted(path: str, line: str) -> int:
    """How many label sets it removes."""
    code = f'sqlmetrics() {{ {sys.executable} -m sqlmetrics "$@" --yes --json --path "$STORE"; }}; {line}'
    done = subprocess.run(["bash", "-c", code], check=True, capture_output=True, env={**os.environ, "STORE": path})
    return len(json.loads(done.stdout)["label_sets"])


STREAMS = {
    "show": ["show", "--path"],
    "show openmetrics": ["show", "--openmetrics", "--path"],
    "status": ["status", "--path"],
    "top": ["top", "--once", "--interval", "0.1", "--path"],
    "env": ["env", "--path"],
    "remove": ["remove", "odd\x1b[1mname", "--path"],
}


@pytest.mark.parametrize("given", STREAMS.values(), ids=STREAMS)
def test_a_command_without_standard_streams_does_what_it_does(path: str, given: list[str]) -> None:
    """As a supervisor may start it: closed streams are as /dev/null, and no file of the store is in their place."""
    with odd(path):
        wanted = _ended(*given, path, redirected="</dev/null >/dev/null")
        for closed in ("<&- >&-", "<&- >&- 2>&-"):
            found = _ended(*given, path, redirected=f"</dev/null >/dev/null {closed}")
            assert (found.returncode, b"Traceback" in found.stderr) == (wanted.returncode, False)
        assert command("show", "odd*", "--path", path).status == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("given", STREAMS.values(), ids=STREAMS)
def test_an_output_without_room_is_told(path: str, given: list[str], unbuffered: str) -> None:
    """In one line or two, and not as a traceback; also if Python keeps what was not written for its end."""
    with odd(path):
        done = _ended(*given, path, redirected="</dev/null >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == (1 if "env" in given else 2)
    assert b"Traceback" not in done.stderr
    assert b"No space left" in done.stderr or "remove" in given


@pytest.mark.parametrize("given", STREAMS.values(), ids=STREAMS)
def test_any_locale_will_do(path: str, given: list[str]) -> None:
    """What it cannot write is replaced."""
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    with odd(path):
        wanted = _ended(*given, path, redirected="</dev/null")
        found = _ended(*given, path, redirected="</dev/null", **environment)
    assert (found.returncode, b"codec" in found.stderr) == (wanted.returncode, False)


def _ended(*given: str, redirected: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    run = ["sh", "-c", f'exec "$@" {redirected}', "sh", *PROGRAM, *given]
    return subprocess.run(run, capture_output=True, env={**os.environ, **environment}, timeout=60)


def test_an_interrupt_while_it_is_loaded_is_no_traceback() -> None:
    """The status is that of an interrupted command."""
    code = (
        "import os, signal, sys\n"
        "import sqlmetrics.__main__ as command\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'sqlmetrics.store':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv[1:] = ['env', '--path', '/dev/shm']\n"
        "sys.exit(command.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
