"""What is asked of a scrape beside the values."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from .. import config
from ..cells.shape import EACH_MODES, MODES, MOST_RECENT_MODES, STATE_TYPES
from .plan import Family


@dataclass(frozen=True)
class Wanted:
    """What is asked of a scrape.

    names: of the samples that are wanted; None: all. created: whether ``_created`` samples are. self_metrics: whether
    the families about the store itself are. modes: the mode in which a gauge is to be shown, by its name.
    unset: whether a mostrecent gauge that nobody has set is shown, as 0; `prometheus_client` does so in one process.
    """

    names: Container[str] | None = None
    created: bool = False
    self_metrics: bool = False
    modes: Mapping[str, str] = field(default_factory=dict)
    unset: bool = False

    def mode_of(self, family: Family) -> str:
        """The mode in which a family is shown: the one asked for, where that can be made of what the store has.

        Of a gauge that shows each process, any but the mostrecent modes, which want times. Of the others, what the dead
        left is one value already: they can be left out, and no more.
        """
        mode = self.modes.get(family.name, family.mode)
        if family.type in STATE_TYPES:
            return mode if mode == "livemostrecent" else family.mode
        possible = family.mode in EACH_MODES and mode not in MOST_RECENT_MODES
        return mode if possible or mode == f"live{family.mode}" else family.mode


def wanted(
    names: Iterable[str] | None = None,
    *,
    created: bool = False,
    self_metrics: bool | None = None,
    modes: Mapping[str, str] | None = None,
) -> Wanted:
    """What is asked of a scrape. self_metrics, modes: default: what the environment says. Raises ValueError."""
    self_metrics = config.self_metrics() if self_metrics is None else self_metrics
    modes = config.modes() if modes is None else modes
    for name, mode in modes.items():
        if mode not in MODES:
            raise ValueError(f"{mode!r} for {name!r} is no multiprocess mode; there are {', '.join(sorted(MODES))}")
    return Wanted(None if names is None else frozenset(names), created, self_metrics, modes)
