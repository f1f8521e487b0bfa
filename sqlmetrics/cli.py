"""The command line: ``sqlmetrics`` or ``python -m sqlmetrics``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import apsw

from . import __version__, config, launch
from .errors import SQLMetricsError
from .rows import wal_reset

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of this package are printed, not raised."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (SQLMetricsError, ValueError) as error:
        print(f"sqlmetrics: {error}", file=sys.stderr)  # noqa: T201
        return getattr(error, "status", 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sqlmetrics", description="prometheus_client for many processes")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_env(commands)
    demo = commands.add_parser("demo", help="start a gunicorn, send it requests, kill a worker, check every number")
    demo.add_argument("--requests", type=int, default=2000, help="how many requests to send (default 2000)")
    demo.add_argument("--workers", type=int, default=4, help="how many workers to start (default 4)")
    demo.set_defaults(run=_demo)
    return parser


def _version() -> str:
    """What `--version` prints: also with which SQLite, as its version matters, and whether it is in order."""
    sqlite = ".".join(map(str, wal_reset.version()))
    lines = [f"sqlmetrics {__version__} (apsw {apsw.apsw_version()}, SQLite {sqlite})", wal_reset.warning()]
    return "\n".join(line for line in lines if line)


def _add_run(commands: _Commands) -> None:
    run = commands.add_parser(
        "run",
        help="run a command so that every Python below it uses the store",
        usage="sqlmetrics run [-h] [--path PATH] [--] COMMAND [ARGUMENT ...]",
        description="Empties the store, unless a process uses it, and becomes COMMAND. In every Python process that it"
        " starts, the first import of prometheus_client installs the store. Settings are taken from SQLMETRICS_...",
        epilog="The exit status is that of the command; 127 if there is none of that name, 126 if it cannot be run.",
    )
    _add_path(run)
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="a program and its arguments")
    run.set_defaults(run=lambda given: _run(run, given))


def _add_env(commands: _Commands) -> None:
    env = commands.add_parser(
        "env",
        help="print the variables that `run` sets, for units, containers and shells",
        description="Prints lines for a shell to evaluate; a Python that starts with these variables uses the store"
        " as it would below `sqlmetrics run`. Empties nothing.",
    )
    _add_path(env)
    env.set_defaults(run=_env)


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--path",
        help="the store, a file or an existing folder; default: SQLMETRICS_PATH, else PROMETHEUS_MULTIPROC_DIR",
    )


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command was given; for example: sqlmetrics run -- gunicorn -w 4 app:app")
    launch.run(command, arguments.path)


def _env(arguments: argparse.Namespace) -> int:
    for name, value in launch.variables(config.resolve(arguments.path)).items():
        print(f"export {name}={shlex.quote(value)}")  # noqa: T201
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from .demo.story import run
    except ImportError as error:
        print(f"sqlmetrics: the demo needs {error.name}: pip install 'sqlmetrics[demo]'", file=sys.stderr)  # noqa: T201
        return 1
    return run(requests=arguments.requests, workers=arguments.workers)
