"""`sqlmetrics reset`: empties the store, so that counters begin at zero."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

from ..outside import words
from ..outside.look import Look
from ..outside.place import Place
from ..outside.processes import processes
from . import changes, options, screen
from .changes import Sizes


@dataclass(frozen=True)
class Emptied:
    """What was removed. is_small: whether database and WAL were rebuilt; if not, the app's processes do that."""

    store: Place
    series: int
    before: Sizes
    after: Sizes
    is_small: bool


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Empties the store of all series of all processes. Nothing of them stays in the files, which are small again."
        " Shows what will go, and asks first. Refuses while a process uses the store, unless you force it."
    )
    parser.epilog = (
        "Exit status: 0 if it is empty; 2 if nothing was changed: it was refused, not confirmed, or cannot be written."
    )
    options.add_store(parser)
    options.add_json(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--force", action="store_true", help="also while processes use it; what they count then begins at 0"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    place = options.place_of(arguments)
    look = Look(place)
    families = look.families().families
    series, alive = sum(len(one.samples) for one in families), sum(one.is_alive for one in processes(look.members()))
    look.close()
    what = f"{series:,} series of {len(families)} families ({alive} processes alive)"
    if not arguments.json:
        screen.say(f"store  {place}")
    changes.confirm(f"Remove {what}?", yes=arguments.yes)
    done = reset(place, series, force=arguments.force)
    if arguments.json:
        screen.say_json(done)
    else:
        before, after = words.size(done.before.total), words.size(done.after.total)
        screen.say(f"removed {what}; the files took {before}, now {after}")
    if not done.is_small:
        screen.complain(changes.NOT_SMALL)
    return 0


def reset(place: Place, series: int, *, force: bool) -> Emptied:
    """Empty the store. series: how many it has. Raises StoreInUseError, StoreError, PathError or apsw.Error."""
    before = changes.sizes(place.path)
    store = changes.opened(place)
    changes.insist(partial(store.reset, force=force, keep_own=False))
    is_small = changes.shrink(store)
    store.close()
    return Emptied(place, series, before, changes.sizes(place.path), is_small)
