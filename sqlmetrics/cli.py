"""The command line: ``sqlmetrics`` or ``python -m sqlmetrics``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import apsw

from . import __version__, launch
from .commands import screen
from .commands.options import add_path
from .errors import SQLMetricsError
from .rows import wal

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


COMMANDS = {
    "show": "show series and their values at this moment, as a scrape would",
    "top": "a live screen: rates by family and by process, quantiles, CPU, memory, deaths",
    "status": "show living processes, the size of the store, and what went wrong",
    "cardinality": "count series by family and by label",
    "check": "find problems of the store, and say what to do about them",
    "serve": "run the exporter: it answers Prometheus and shows a page, beside the processes that count",
    "export": "the exposition text, to a file as a whole or to the standard output",
    "remove": "remove series of a metric from the store and from all processes",
    "reset": "empty the store, so that counters begin at zero",
    "completion": "print a script that lets your shell complete commands and options",
    "env": "print the variables that `run` sets, for units, containers and shells",
}
"""The commands that are modules of `commands`. Only the one that is run is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of this package are printed, not raised."""
    screen.prepare()
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:
        parser().print_help(sys.stderr)
        return _MISUSE
    arguments = parser(next((one for one in given if not one.startswith("-")), "")).parse_args(given)
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `sqlmetrics show | head`
        return _SIGPIPE
    except (SQLMetricsError, ValueError, apsw.Error, OSError) as error:
        return _complain(error, arguments)
    finally:
        screen.let_go_of_the_unwritten()


_MISUSE = 2
"""The status for wrong arguments, as argparse has it."""
_INTERRUPTED, _SIGPIPE = 128 + 2, 128 + 13
"""The statuses that shells show for a program that SIGINT, or a closed pipe, has ended."""


def _complain(error: Exception, arguments: argparse.Namespace) -> int:
    screen.complain(str(error))
    if hasattr(arguments, "place"):
        screen.complain(f"the store is {arguments.place}")
    return getattr(error, "status", getattr(arguments, "trouble", 1))


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser. command: the one whose arguments it must know; None: all."""
    made = argparse.ArgumentParser(prog="sqlmetrics", description="prometheus_client for many processes")
    made.add_argument("--version", action="version", version=_version())
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    for name, help_ in COMMANDS.items():
        added = commands.add_parser(name, help=help_)
        if command in (None, name):
            module = importlib.import_module(f"{__package__}.commands.{name}")
            module.add(added)
            added.set_defaults(run=module.run, whole=parser)
    demo = commands.add_parser("demo", help="start a gunicorn, send it requests, kill a worker, check every number")
    demo.add_argument("--requests", type=int, default=2000, help="how many requests to send (default 2000)")
    demo.add_argument("--workers", type=int, default=4, help="how many workers to start (default 4)")
    demo.set_defaults(run=_demo)
    return made


def _version() -> str:
    """Return what `--version` prints: also the version of SQLite, and a warning if it has a known bug."""
    sqlite = ".".join(map(str, wal.version()))
    lines = [f"sqlmetrics {__version__} (apsw {apsw.apsw_version()}, SQLite {sqlite})", wal.warning()]
    return "\n".join(line for line in lines if line)


def _add_run(commands: _Commands) -> None:
    run = commands.add_parser(
        "run",
        help="run a command; every Python that it starts uses the store",
        usage="sqlmetrics run [-h] [--path PATH] [--] COMMAND [ARGUMENT ...]",
        description="Empties the store, unless a process uses it, and becomes COMMAND. In every Python process that it"
        " starts, the first import of prometheus_client installs the store. SQLMETRICS_... variables are its settings.",
        epilog="The exit status is that of the command; 127 if there is no such command, 126 if it cannot run.",
    )
    add_path(run)
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="a program and its arguments")
    run.set_defaults(run=lambda given: _run(run, given))


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command was given; for example: sqlmetrics run -- gunicorn -w 4 app:app")
    launch.run(command, arguments.path)


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from .demo.story import run
    except ImportError as error:
        print(f"sqlmetrics: the demo needs {error.name}: pip install 'sqlmetrics[demo]'", file=sys.stderr)  # noqa: T201
        return 1
    return run(requests=arguments.requests, workers=arguments.workers)
