"""`sqlmetrics cardinality`: counts series by family and by label, and prints commands to paste against too many."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from ..outside import words
from ..outside.look import Look
from ..outside.place import Place
from ..outside.sizes import FamilySize, Label, cardinality
from . import options, screen

_MANY = 100
"""A label with more values than this gets advice."""


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Counts series by family and by label, and names the label with the most values. Changes nothing."
    )
    parser.epilog = "Exit status: 0; 2 if the store cannot be read."
    options.add_store(parser)
    options.add_json(parser)
    parser.add_argument("--top", type=_count, default=10, metavar="N", help="how many families and labels (default 10)")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    look = Look(options.place_of(arguments))
    found, remark = cardinality(look)
    if remark:
        screen.complain(remark)
    if arguments.json:
        screen.say_json({"store": look.place, "series": sum(one.series for one in found), "families": found})
    else:
        screen.say(f"store  {look.place}")
        _print(found, arguments.top, look.place)
    return 0


def _print(found: list[FamilySize], top: int, place: Place) -> None:
    series, sets = sum(one.series for one in found), sum(one.label_sets for one in found)
    about = words.size(sum(one.bytes for one in found))
    screen.say(f"{series:,} series of {sets:,} label sets in {len(found)} families, about {about}")
    screen.say()
    rows = [
        [one.name, one.type, str(one.series), str(one.label_sets), _greediest(one), words.size(one.bytes)]
        for one in found[:top]
    ]
    screen.table(["<FAMILY", "<TYPE", "SERIES", "LABEL SETS", "<GREEDIEST LABEL", "ABOUT"], rows)
    labels = sorted(((one, label) for one in found for label in one.labels), key=lambda pair: -pair[1].values)[:top]
    if labels:
        screen.say()
        screen.table(
            ["<LABEL", "<FAMILY", "VALUES", "<VALUE WITH MOST SERIES", "SERIES"],
            [[of.name, one.name, str(of.values), words.printable(of.most), str(of.most_series)] for one, of in labels],
        )
    _advise([(one, label) for one, label in labels if label.values > _MANY], place)


def _greediest(one: FamilySize) -> str:
    return f"{one.labels[0].name} ({one.labels[0].values} values)" if one.labels else "-"


def _advise(many: Iterable[tuple[FamilySize, Label]], place: Place) -> None:
    """Print what to paste against labels with many values; the environment may name another store than ``--path``."""
    remove = "sqlmetrics remove" + (f" --path {words.shell_word(place.path)}" if place.named_by == "--path" else "")
    for family in {one.name: one for one, _ in many}.values():
        label, name = family.labels[0], words.shell_word(family.name)
        screen.say()
        screen.say(f"{family.name} has {label.values} values of {label.name}. Give the label fewer, or set a limit:")
        screen.say(f"  SQLMETRICS_MAX_SERIES={_MANY * 10}")
        screen.say("What is there goes by one of these (counters begin at 0 again):")
        screen.say(f"  {remove} {name} {words.shell_word(f'{label.name}={label.most}')}")
        screen.say(f"  {remove} {name}")
