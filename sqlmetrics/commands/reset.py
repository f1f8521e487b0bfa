"""`sqlmetrics reset`: the store is empty, and counters begin at zero."""

from __future__ import annotations

import argparse

from . import changes, options, screen
from .look import Look
from .processes import processes


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Empties the store: all series of all processes go, and nothing of them stays in the files, which are small"
        " again. Shows what goes and asks first. Refused while a process uses the store, unless forced."
    )
    parser.epilog = (
        "Exit status: 0 if it is empty; 2 if nothing was changed: it was refused, not confirmed, or cannot be written."
    )
    options.add_path(parser)
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
    before = changes.sizes(place.path)
    store = changes.opened(place)
    changes.insist(lambda: store.reset(force=arguments.force, keep_own=False))
    is_small = changes.shrink(store)
    store.close()
    after = changes.sizes(place.path)
    if arguments.json:
        found = {"store": place, "series": series, "before": before, "after": after, "is_small": is_small}
        screen.say_json(found)
    else:
        screen.say(f"removed {what}; the files took {screen.size(before.total)}, now {screen.size(after.total)}")
    if not is_small:
        screen.complain("somebody reads or writes, so the files become small later, by the app's processes")
    return 0
