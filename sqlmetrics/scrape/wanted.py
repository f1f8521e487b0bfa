"""What a caller wants of a scrape."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from .. import config
from ..cells.shape import EACH_MODES, MODES, MOST_RECENT_MODES, STATE_TYPES
from .plan import Family


@dataclass(frozen=True)
class Wanted:
    """What a caller wants of a scrape.

    names: the names of the wanted samples; None: all. created: whether ``_created`` samples are wanted. self_metrics:
    whether the families about the store itself are wanted. modes: by name of a gauge, the mode in which to show it.
    unset: whether to show a mostrecent gauge that nobody has set, as 0, as `prometheus_client` does in one process.
    """

    names: Container[str] | None = None
    created: bool = False
    self_metrics: bool = False
    modes: Mapping[str, str] = field(default_factory=dict)
    unset: bool = False

    def mode_of(self, family: Family) -> str:
        """Return the mode in which to show a family: the wanted one, if the store has the values for it.

        For a gauge that has each process's value, that is any mode but the mostrecent ones, which need times. For other
        gauges, dead processes have left a single value, so the only other mode is the one without them (`live…`).
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
    """Return what a caller wants. self_metrics, modes: None: as the environment has it. Raises ValueError."""
    self_metrics = config.self_metrics() if self_metrics is None else self_metrics
    source = "SQLMETRICS_MODES: " if modes is None else ""
    modes = config.modes() if modes is None else modes
    for name, mode in modes.items():
        if mode not in MODES:
            known = ", ".join(sorted(MODES))
            raise ValueError(f"{source}{mode!r} for {name!r} is no multiprocess mode; there are {known}")
    return Wanted(None if names is None else frozenset(names), created, self_metrics, modes)
