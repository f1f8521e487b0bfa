"""`sqlmetrics completion`: a shell completes what the parser knows."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from looking import command

from sqlmetrics import cli

_ASK = """
eval "$1"
shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
complete -p sqlmetrics > /dev/null
$(complete -p sqlmetrics | sed 's/.*-F \\([^ ]*\\).*/\\1/') sqlmetrics "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["s"], {"show", "status"}),
        (["show", "--op"], {"--openmetrics"}),
        (["env", "--format", ""], {"shell", "systemd", "docker", "json"}),
    ],
)
def test_bash_completes_commands_options_and_choices(words: list[str], wanted: set[str]) -> None:
    """By its own machinery."""
    script = command("completion", "bash").out
    ask = ["bash", "-c", _ASK, "bash", script, "sqlmetrics", *words]
    done = subprocess.run(ask, check=True, capture_output=True, text=True)

    assert wanted <= set(done.stdout.split()), done


def test_every_command_is_in_the_script_of_each_shell() -> None:
    """As the parser has them."""
    for shell in ("bash", "zsh", "tcsh"):
        script = command("completion", shell).out
        assert all(name in script for name in cli.COMMANDS)


def test_without_the_extra_it_says_what_to_install() -> None:
    """With status 1."""
    program = "import sys; sys.modules['shtab'] = None; from sqlmetrics.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, "completion", "bash"], capture_output=True, text=True)

    assert done.returncode == 1
    assert "pip install 'sqlmetrics[cli]'" in done.stderr
