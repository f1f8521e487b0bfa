"""Info and Enum: of several processes, the one that spoke last wins.

Each state of an Enum, and each label set that an Info was given, is a series of its own, told apart by its variant.
Its value is the time when a process last said so: one double, so that no scrape sees one half of a change. What a
scrape shows is the variant with the greatest time; the dead leave the greatest of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

from .gauges import Part
from .plan import Gauge, State

Key = tuple[Gauge, str | None]


def last_words(found: Mapping[Gauge, list[Part]]) -> tuple[list[Key], list[float]]:
    """The lines of a family, by what each is kept by, and their values. found: each variant with its times."""
    children: dict[str, dict[State, tuple[object, ...]]] = {}
    for state, parts in found.items():
        assert isinstance(state, State)
        children.setdefault(state.child, {})[state] = max((part.value, part.age()) for part in parts)
    keys: list[Key] = []
    values: list[float] = []
    for states in children.values():
        last = max(states, key=states.__getitem__)  # of a tie, what the later process said
        shown = [last] if last.is_info else list(states)
        keys += [(state, None) for state in shown]
        values += [float(state is last) for state in shown]
    return keys, values
