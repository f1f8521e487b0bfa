"""`sqlmetrics remove`: removes series from the store and from all processes, like `remove()` in the app."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

from ..cells.selection import Selection
from ..errors import SQLMetricsError
from ..outside import words
from ..outside.look import Look
from ..outside.patterns import Pattern, among_metrics
from ..outside.place import Place
from . import changes, options, screen
from .changes import Sizes

NOTHING = 1
_SHOWN = 20


class RemovalError(SQLMetricsError, ValueError):
    """The removal makes no sense; the library would refuse it, too."""


@dataclass(frozen=True)
class Removed:
    """The label sets of a family that were removed.

    is_small: whether database and WAL were rebuilt without them; if not, processes of the app do that later.
    """

    store: Place
    family: str
    label_sets: list[dict[str, str]]
    before: Sizes
    after: Sizes
    is_small: bool


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Removes label sets of a metric from the store and from all processes: those with these labels, or all of them."
        " Shows them and asks first. If a process goes on counting one, it begins at 0. Nothing of them stays in the"
        " files, which are small again."
    )
    parser.epilog = (
        "Exit status: 0 if they are gone; 1 if there are none; 2 if nothing was removed: it was refused, not confirmed,"
        " or the store cannot be written."
    )
    options.add_store(parser)
    options.add_json(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("name", metavar="NAME", help="of the family, such as requests, or of a sample of it")
    parser.add_argument(
        "labels", nargs="*", default=[], metavar="LABEL=VALUE", help="that label sets must have to be removed"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    place = options.place_of(arguments)
    look = Look(place)
    selections = selected(look, arguments.name, _labels(arguments.labels))
    found = [one for _, sets in selections for one in sets]
    if not found:
        screen.complain(f"no label set of {arguments.name} has these labels in {place}")
        return NOTHING
    if not arguments.json:
        _show(look, selections)
    look.close()  # first: all connections of a process share SQLite's index of the WAL, and this one is read-only
    changes.confirm(f"Remove {words.label_sets(len(found))} of {arguments.name}?", yes=arguments.yes)
    done = remove(place, selections)
    if arguments.json:
        screen.say_json(done)
    else:
        _report(done)
    return 0


def _labels(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if not text.partition("=")[1] or not text.partition("=")[0]:
            raise RemovalError(f"{text!r} is no LABEL=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


Selected = list[tuple[Selection, list[dict[str, str]]]]


def selected(look: Look, name: str, labels: dict[str, str]) -> Selected:
    """Return what to remove, and the label sets that this selects now. Raises RemovalError if it makes no sense."""
    children = look.children()
    names = {one.name: {one.name, *(sample.name for sample in one.samples)} for one in look.families().families}
    found: Selected = []
    for (family, type_), sets in children.items():
        if name in names.get(family, ()):
            _refuse(family, labels, {label for one in sets for label in one})
            meant = [one for one in sets if all(one.get(label) == value for label, value in labels.items())]
            found.append((Selection(family, type_, labels, whole=False), meant))
    if not found:
        raise RemovalError(f"there is no metric {name!r}; `sqlmetrics show --family` lists what there is")
    return found


def _refuse(family: str, labels: dict[str, str], known: set[str]) -> None:
    if not known:
        raise RemovalError(f"{family} has no labels, so there is nothing to remove; Counter.reset() sets it to 0")
    if unknown := sorted(labels.keys() - known):
        raise RemovalError(f"{family} has no label {', '.join(unknown)}; it has {', '.join(sorted(known))}")


def remove(place: Place, selections: Selected) -> Removed:
    """Remove them, and shrink the files. Raises StoreError, PathError or apsw.Error; then nothing is left for later."""
    before = changes.sizes(place.path)
    store = changes.opened(place)
    for selection, _ in selections:
        changes.insist(partial(store.rounds.remover.remove_now, selection))
    is_small = changes.shrink(store)
    store.close()
    sets = [one for _, found in selections for one in found]
    return Removed(place, selections[0][0].family, sets, before, changes.sizes(place.path), is_small)


def _show(look: Look, selections: Selected) -> None:
    patterns = [Pattern(one.family, one.labels, exact=True) for one, _ in selections]
    screen.say(f"store  {look.place}")
    shown = [sample for one in among_metrics(patterns, look.families().families) for sample in one.samples]
    rows = [[f"{one.name}{words.label_text(one.labels)}", words.number(one.value)] for one in shown[:_SHOWN]]
    screen.table(["<SERIES", "VALUE"], rows)
    if len(shown) > _SHOWN:
        screen.say(f"(and {len(shown) - _SHOWN} series more)")


def _report(done: Removed) -> None:
    before, after = words.size(done.before.total), words.size(done.after.total)
    removed = words.label_sets(len(done.label_sets))
    screen.say(f"removed {removed} of {done.family}; the files took {before}, now {after}")
    if not done.is_small:
        screen.complain(changes.NOT_SMALL)
