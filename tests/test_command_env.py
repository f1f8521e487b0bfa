"""`sqlmetrics env`: each form is read back by what it is for, odd paths included."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from looking import Said, command

ODD = 'my app\'s "100%" $HOME\\x'


def env(path: str, form: str) -> Said:
    """The command."""
    return command("env", "--path", path, "--format", form)


@pytest.fixture
def odd(folder: Path) -> str:
    """A path that every quoting must get right."""
    (folder / ODD).mkdir()
    return str(folder / ODD / "metrics.sqlite3")


def test_a_shell_gets_the_path_as_it_is(odd: str) -> None:
    """The default form."""
    done = command("env", "--path", odd)
    assert done == env(odd, "shell")
    said = subprocess.run(
        ["sh", "-c", f'{done.out}\nprintf %s "$SQLMETRICS_PATH"'], check=True, capture_output=True, text=True
    )

    assert said.stdout == odd


def test_json_is_an_object_of_strings(odd: str) -> None:
    """For other programs."""
    assert env(odd, "json").json()["SQLMETRICS_PATH"] == odd


def test_a_unit_of_systemd_gets_the_path_as_it_is(odd: str) -> None:
    """In double quotes, with backslashes and percent signs doubled (systemd.exec(5))."""
    lines = env(odd, "systemd").out.splitlines()

    assert all(line.startswith('Environment="') and line.endswith('"') for line in lines)
    (text,) = [line for line in lines if "SQLMETRICS_PATH" in line]
    (assignment,) = shlex.split(text.removeprefix("Environment="))
    assert assignment.replace("%%", "%") == f"SQLMETRICS_PATH={odd}"
    assert "%" not in text.replace("%%", "")


def test_an_env_file_of_docker_has_the_path_as_it_is(odd: str) -> None:
    """Without quotes, which would be part of it; a line's end cannot be written, so it is refused."""
    assert f"SQLMETRICS_PATH={odd}" in env(odd, "docker").out.splitlines()

    os.mkdir(os.path.join(os.path.dirname(odd), "a\nb"))
    done = env(os.path.join(os.path.dirname(odd), "a\nb"), "docker")
    assert (done.status, done.out) == (1, "")
    assert "line's end" in done.err


def test_a_program_counts_with_these_variables(path: str) -> None:
    """And nothing else: no code of its own, no launcher."""
    variables = env(path, "json").json()
    program = "from prometheus_client import Counter; Counter('jobs', 'Jobs').inc(3)"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **variables})

    assert "jobs_total 3.0" in command("export", "--path", path).out


def test_env_needs_nothing_but_the_package(path: str) -> None:
    """Neither `rich` nor a store; and `run` and `env` load no other command."""
    program = (
        "import json, sys; sys.modules['rich'] = sys.modules['shtab'] = None\n"
        "from sqlmetrics.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "loaded = [name for name in sys.modules if name.startswith('sqlmetrics.commands.')]\n"
        "print(json.dumps([status, sorted(loaded)]))"
    )
    arguments = [sys.executable, "-c", program, "env", "--path", path]
    out = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    status, loaded = json.loads(out.splitlines()[-1])

    assert status == 0
    assert "sqlmetrics.commands.env" in loaded
    assert not {"sqlmetrics.outside.look", "sqlmetrics.commands.show"} & set(loaded)
    assert not os.path.exists(path)
