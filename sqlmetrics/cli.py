"""The command line: ``sqlmetrics`` or ``python -m sqlmetrics``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .errors import SQLMetricsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of this package are printed, not raised."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except SQLMetricsError as error:
        print(f"sqlmetrics: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sqlmetrics", description="prometheus_client for many processes")
    parser.add_argument("--version", action="version", version=f"sqlmetrics {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    demo = commands.add_parser("demo", help="start a gunicorn, send it requests, kill a worker, check every number")
    demo.add_argument("--requests", type=int, default=2000, help="how many requests to send (default 2000)")
    demo.add_argument("--workers", type=int, default=4, help="how many workers to start (default 4)")
    demo.set_defaults(run=_demo)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from .demo import run
    except ImportError as error:
        print(f"sqlmetrics: the demo needs {error.name}: pip install 'sqlmetrics[demo]'", file=sys.stderr)  # noqa: T201
        return 1
    return run(requests=arguments.requests, workers=arguments.workers)
