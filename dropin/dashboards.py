"""A dashboard of Grafana as a test needs it: the queries of its panels, and what Grafana does to them first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Target(NamedTuple):
    """One query of a panel."""

    panel: str
    legend: str
    expression: str


class Dashboard:
    """A dashboard of a file."""

    def __init__(self, file: Path):
        self.board: dict[str, Any] = json.loads(file.read_text("utf-8"))
        self.panels: list[dict[str, Any]] = [panel for panel in self.board["panels"] if panel["type"] != "row"]
        self.variables: dict[str, dict[str, Any]] = {one["name"]: one for one in self.board["templating"]["list"]}

    def targets(self) -> Iterator[Target]:
        """The queries of all panels."""
        for panel in self.panels:
            for target in panel["targets"]:
                yield Target(panel["title"], target["legendFormat"], target["expr"])


def filled(text: str, values: dict[str, str]) -> str:
    """A text with these values for its variables. Raises KeyError for a variable that is not known."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)


def used(text: str) -> set[str]:
    """The variables that a text has."""
    return {one or other for one, other in _VARIABLE.findall(text)}
