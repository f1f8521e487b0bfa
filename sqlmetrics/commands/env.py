"""`sqlmetrics env`: prints the variables that `sqlmetrics run` sets, for other ways to start processes."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Mapping

from .. import config, launch
from . import options, screen


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Prints the variables that make a Python use the store, as under `sqlmetrics run`. Empties nothing."
    )
    parser.epilog = "Exit status: 0; 1 if no store is named, or the path cannot be one."
    options.add_path(parser)
    parser.add_argument(
        "--format",
        choices=list(_FORMATS),
        default="shell",
        help="shell: lines to evaluate (the default); systemd: lines of a unit's [Service]; docker: an --env-file;"
        " json: an object",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    variables = launch.variables(config.resolve(arguments.path))
    screen.put(_FORMATS[arguments.format](variables))
    return 0


def _shell(variables: Mapping[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def _systemd(variables: Mapping[str, str]) -> str:
    """Return lines for a unit. A backslash begins an escape there, and `%` a specifier (systemd.exec(5))."""
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "%": "%%"})
    return "\n".join(f'Environment="{name}={value.translate(escapes)}"' for name, value in variables.items())


def _docker(variables: Mapping[str, str]) -> str:
    """Return lines for an --env-file. Docker takes each line as it is, so a value cannot have a line's end."""
    if any("\n" in value for value in variables.values()):
        raise ValueError("an --env-file of docker has no way to write a value with a line's end; name another path")
    return "\n".join(f"{name}={value}" for name, value in variables.items())


def _json(variables: Mapping[str, str]) -> str:
    return json.dumps(variables, indent=2)


_FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "shell": _shell,
    "systemd": _systemd,
    "docker": _docker,
    "json": _json,
}
