"""`sqlmetrics completion`: prints a script that makes a shell complete commands and options."""

from __future__ import annotations

import argparse

from ..errors import SQLMetricsError
from . import screen

SHELLS = ("bash", "zsh", "tcsh")


class MissingExtraError(SQLMetricsError):
    """A package is not installed."""


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Prints a script that makes a shell complete commands and options; it needs the extra `cli`. For bash:"
        ' eval "$(sqlmetrics completion bash)". For zsh: a file _sqlmetrics in a folder of $fpath.'
    )
    parser.epilog = "Exit status: 0; 1 if shtab is not installed."
    parser.add_argument("shell", choices=SHELLS)


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status. arguments.whole: makes the parser of all commands."""
    try:
        import shtab
    except ImportError:
        raise MissingExtraError("completion needs shtab: pip install 'sqlmetrics[cli]'") from None
    screen.put(str(shtab.complete(arguments.whole(), arguments.shell)))
    return 0
