"""`sqlmetrics status`: prints one screen about the app's processes and the state of its store."""

from __future__ import annotations

import argparse
import time

from ..outside import words
from ..outside.look import Look
from ..outside.processes import Process
from ..outside.state import Status, Work, status
from . import options, screen

NOBODY, TROUBLE = 1, 2
_REMEMBERED = 5
_DEATHS = 5


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Shows which processes are alive, as the kernel says, how large the store is, and what went wrong. CPU and"
        " memory come from /proc. Changes nothing, and needs only the right to read."
    )
    parser.epilog = (
        "Exit status: 0 if a process is alive; 1 if none is; 2 if there is trouble, or the store cannot be read."
    )
    options.add_store(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    found = status(Look(options.place_of(arguments)))
    if arguments.json:
        screen.say_json(found)
    else:
        _print(found)
    return TROUBLE if found.trouble else 0 if found.alive() else NOBODY


def _print(found: Status) -> None:
    now = time.time()
    states = [one.state for one in found.processes]
    _line("store", str(found.store))
    _line("state", ", ".join(f"{states.count(one)} {one}" for one in ("alive", "dead", "remembered")))
    for trouble in found.trouble:
        _line("TROUBLE", trouble)
    screen.say()
    if found.processes:
        _print_processes(found.processes, now)
        screen.say()
    if found.deaths:
        _print_deaths(found, now)
        screen.say()
    sizes = ", ".join(f"{name} {words.size(count)}" for name, count in found.files.items())
    _line("files", sizes)
    _line("disk", f"{words.size(found.free_bytes)} free")
    _line("limits", ", ".join(f"{name} {one.used}/{one.of}" for name, one in found.limits.items()))
    flushed = "" if found.last_flush is None else f"; the last {words.seconds(now - found.last_flush)} ago"
    _line("flushes", f"{_work(found.flushes)}{flushed}")
    _line("scrapes", f"{_work(found.scrapes)}, by processes that count")
    _line("behind", f"{words.size(found.journal_bytes_behind)} of new series are not in rows yet")
    _line("errors", ", ".join(f"{cause} {count:.0f}" for cause, count in found.errors.items()) or "none")
    _line("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items() if name != "Python"))


def _line(name: str, text: str) -> None:
    screen.say_wrapped(name, text)


def _work(done: Work) -> str:
    return "none noted" if done.mean is None else f"{done.count:.0f} noted, {1000 * done.mean:.1f} ms each"


def _print_processes(known: list[Process], now: float) -> None:
    """Print the processes that are not settled, and the last ones of the others."""
    unsettled = [one for one in known if one.state != "remembered"]
    remembered = sorted((one for one in known if one.state == "remembered"), key=lambda one: one.died or 0.0)
    shown = [*unsettled, *remembered[-_REMEMBERED:]]
    is_named = any(one.pid != _pid(one) for one in shown)
    heads = [
        "<PROCESS",
        *(["PID"] if is_named else []),
        "<STATE",
        "<STARTED",
        "AGE",
        "SERIES",
        "CPU",
        "RSS",
        "<PROGRAM",
    ]
    screen.table(heads, [_row(one, now, is_named) for one in shown])
    if len(remembered) > _REMEMBERED:
        screen.say(f"(and {len(remembered) - _REMEMBERED} more that are remembered for their `all` gauges)")


def _print_deaths(found: Status, now: float) -> None:
    """Print the last processes that ended, and how many ended before them."""
    rows = [
        [
            words.printable(one.pid),
            f"{words.seconds(now - one.died)} ago",
            one.noticed,
            words.seconds(None if one.started is None else one.died - one.started),
        ]
        for one in found.deaths[:_DEATHS]
    ]
    screen.table(["<ENDED", "WHEN", "<NOTICED BY", "AGE"], rows)
    total = sum(found.ended.values())
    if total > len(rows):
        screen.say(f"(and {total - len(rows)} before them; the view `deaths` has the last hundred)")


def _pid(one: Process) -> str:
    return str(one.seen_pid or one.os_pid or "-")


def _row(one: Process, now: float, is_named: bool) -> list[str]:
    """Return one process's row. is_named: whether any process has another name than its pid."""
    age = None if one.started is None else (one.died or now) - one.started
    cpu = "-" if one.cpu_seconds is None else f"{one.cpu_seconds:.1f} s"
    return [
        words.printable(one.pid),
        *([_pid(one)] if is_named else []),
        one.state,
        words.moment(one.started)[5:16],
        words.seconds(age),
        str(one.series),
        cpu,
        words.size(one.rss_bytes),
        words.printable(one.program or "") if one.died is None else f"died {words.seconds(now - one.died)} ago",
    ]
