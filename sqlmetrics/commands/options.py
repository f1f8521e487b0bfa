"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable

from ..outside.place import Place, find

_PATH_HELP = "the store, a file or an existing folder; default: SQLMETRICS_PATH, else PROMETHEUS_MULTIPROC_DIR"
TROUBLE = 2
"""The exit status of a command that cannot do its work: there is no store, say, or it may not be read."""


def add_path(parser: argparse.ArgumentParser) -> None:
    """Add ``--path``."""
    parser.add_argument("--path", type=_named, help=_PATH_HELP)


def _named(text: str) -> str:
    """Refuse an empty path: it would mean the store of the environment, which a script may then empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; is a variable not set? Without --path the environment decides")
    return text


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add ``--path``, of a store that must be there: errors end with the status `TROUBLE`."""
    add_path(parser)
    parser.set_defaults(trouble=TROUBLE)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def seconds_to(most: int) -> Callable[[str], float]:
    """Return what reads a span of seconds, 0.1 to `most`, from an argument."""

    def seconds(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0.1 <= float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(f"expected seconds, 0.1 to {most}, not {text!r}")

    return seconds


def place_of(arguments: argparse.Namespace) -> Place:
    """Return the store of ``--path`` or the environment; from now on, error messages name it. Raises PathError."""
    arguments.place = find(arguments.path)
    place: Place = arguments.place
    return place
