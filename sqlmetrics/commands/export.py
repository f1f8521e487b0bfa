"""`sqlmetrics export`: writes the exposition text to standard output, or to a file, which it replaces as a whole."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import tempfile

from .. import config
from ..errors import SQLMetricsError
from ..outside.look import Look
from ..outside.place import Place
from . import options, screen


class ExportError(SQLMetricsError, OSError):
    """The file cannot be written."""


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Writes what a scrape would show now. With -o, replaces the file as a whole or leaves it as it is, as"
        " node_exporter's textfile collector needs it. Changes nothing in the store."
    )
    parser.epilog = "Exit status: 0 if it has written all; 2 if it cannot read the store or write the file."
    options.add_store(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="such as /var/lib/node_exporter/app.prom; default: standard output"
    )
    parser.add_argument("--openmetrics", action="store_true", help="OpenMetrics 1.0 instead of the text format 0.0.4")
    parser.add_argument("--self-metrics", action="store_true", help="also what the store tells of itself")


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    place = options.place_of(arguments)
    look = Look(place)
    text = look.text(openmetrics=arguments.openmetrics, self_metrics=arguments.self_metrics)
    if arguments.output in (None, "-"):
        screen.write(text)
    else:
        _refuse_store(arguments.output, place)
        write_whole(arguments.output, text)
    return 0


def _refuse_store(name: str, place: Place) -> None:
    """Raise ExportError for a file of the store: replacing it would lose the counts of processes that have ended."""
    target = os.path.realpath(name)
    if target == place.path or target.startswith(f"{place.path}-"):
        raise ExportError(f"{name} is a file of the store; name another file")


def write_whole(name: str, content: bytes) -> None:
    """Replace a file as a whole, or leave it as it is. Raises ExportError.

    The file keeps its mode. A new one has the mode of the umask, because another user must read it.
    """
    _refuse_trap(name)
    target = os.path.realpath(name)
    if os.path.exists(target) and not os.path.isfile(target):
        raise ExportError(f"{name} is no plain file; name a file, or leave out -o for the standard output")
    try:
        _replace(target, content)
    except OSError as error:
        raise ExportError(f"{name} cannot be written ({error.strerror}); it is as it was") from error


def _refuse_trap(name: str) -> None:
    """Raise ExportError for another user's link in a folder that all may write to: it may lead to a file of ours."""
    if os.path.islink(name) and config.is_open_to_all(os.path.dirname(os.path.abspath(name))):
        owner = os.lstat(name).st_uid
        if owner not in (0, os.geteuid()):
            raise ExportError(
                f"{name} is a link of uid {owner}, in a folder that anybody may write to; name another file"
            )


def _replace(target: str, content: bytes) -> None:
    folder, base = os.path.split(target)
    fd, beside = tempfile.mkstemp(prefix=f".{base}.", suffix=".tmp", dir=folder)  # a name that *.prom does not match
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, _mode_of(target))
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _mode_of(target: str) -> int:
    if os.path.exists(target):
        status = os.stat(target)
        if status.st_uid in (0, os.geteuid()):
            return stat.S_IMODE(status.st_mode)
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask
