"""`sqlmetrics check`: finds present and coming problems, and says what to do about each."""

from __future__ import annotations

import argparse

from ..outside.examined import findings
from ..outside.findings import ERROR, OK, WARNING, Finding, worst
from . import options, screen

_STATUSES = {OK: 0, WARNING: 1, ERROR: 2}


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Checks the store's files, all their content, and their surroundings, and says what to do about each problem."
        " Changes nothing. A large store takes seconds."
    )
    parser.epilog = "Exit status: 0 if all is in order; 1 if there are warnings; 2 if there are errors."
    options.add_store(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    place = options.place_of(arguments)
    found = findings(place)
    if arguments.json:
        screen.say_json({"store": place, "worst": worst(found), "findings": found})
    else:
        screen.say(f"store  {place}")
        _print(found)
    return _STATUSES[worst(found)]


def _print(found: list[Finding]) -> None:
    for one in found:
        screen.say_wrapped(one.level, f"{one.about}: {one.text}")
        if one.fix and one.level != OK:
            screen.say_wrapped("", f"-> {one.fix}")
    counts = {level: sum(one.level == level for one in found) for level in (ERROR, WARNING)}
    screen.say(f"{counts[ERROR]} errors, {counts[WARNING]} warnings, {len(found)} checks")
