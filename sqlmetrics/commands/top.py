"""`sqlmetrics top`: shows again and again what the processes of an app do, by family and by process."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import apsw

from ..errors import SQLMetricsError
from ..outside.look import Look
from . import options, screen
from .overview import (
    FAMILY_ORDERS,
    PROCESS_ORDERS,
    Choice,
    Overview,
    Watch,
    as_json,
    families_table,
    processes_table,
    summary,
)

_CLEAR = "\x1b[H\x1b[2J"


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Shows rates by family and by process since the last look, quantiles of the observations since then, CPU and"
        " memory from /proc, and deaths. Events are steps of counters and observations; the events of a process leave"
        " out counters of seconds and bytes. Changes nothing, and needs only the right to read."
    )
    parser.epilog = (
        "Keys: q leaves, s sorts the families and o the processes by the next column, / filters both by a part of a"
        " name, Esc shows all, space holds. Exit status: 0; 2 if the store cannot be read."
    )
    options.add_store(parser)
    parser.add_argument(
        "--interval", type=options.seconds_to(3600), default=2.0, metavar="SECONDS", help="from look to look (2)"
    )
    parser.add_argument("--once", action="store_true", help="print what happened between two looks, and end")
    parser.add_argument("--json", action="store_true", help="print that as JSON, for programs, without --filter")
    parser.add_argument("--sort", choices=list(FAMILY_ORDERS), default="rate", help="families by (default rate)")
    parser.add_argument("--order", choices=list(PROCESS_ORDERS), default="rate", help="processes by (default rate)")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only families and processes with it in the name")


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    watch = Watch(Look(options.place_of(arguments)))
    choice = Choice(arguments.sort, arguments.order, arguments.filter)
    watch.look()
    if arguments.once or arguments.json:
        time.sleep(arguments.interval)
        found = watch.look()
        screen.say_json(as_json(found)) if arguments.json else _print(found, choice)
        return 0
    try:
        live = _live_screen()
        if live is None:
            _repeat(watch, choice, arguments.interval)
        else:
            live(watch, choice, arguments.interval)
    except KeyboardInterrupt:
        pass
    return 0


def _live_screen() -> Callable[[Watch, Choice, float], None] | None:
    """Return what shows `top` on a whole terminal; None without a terminal or `rich`."""
    if not (_may_be_cleared() and sys.stdin.isatty()):
        return None
    try:
        from .live import live
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return None
    return live


def _may_be_cleared() -> bool:
    return screen.is_terminal() and os.environ.get("TERM", "dumb") != "dumb"


def _repeat(watch: Watch, choice: Choice, interval: float) -> None:
    while True:
        time.sleep(interval)
        try:
            found = watch.look()
        except (SQLMetricsError, apsw.Error, OSError) as error:
            screen.complain(str(error))
            continue
        if _may_be_cleared():
            sys.stdout.write(_CLEAR)
        _print(found, choice)
        screen.say()
        sys.stdout.flush()


def _print(found: Overview, choice: Choice) -> None:
    for line in summary(found):
        screen.say(line)
    for head, rows in (families_table(found, choice), processes_table(found, choice)):
        screen.say()
        screen.table(head, rows)
