"""Which store a command looks at, and how it was found: every command says both."""

from __future__ import annotations

from dataclasses import dataclass

from .. import config


@dataclass(frozen=True)
class Place:
    """The path of a store, and what named it: ``--path`` or an environment variable."""

    path: str
    named_by: str

    def __str__(self) -> str:
        return f"{self.path} (from {self.named_by})"


def find(path: str | None = None) -> Place:
    """The store of ``--path``, else of the environment; nothing is made or opened. Raises PathError."""
    found = config.resolve(path)
    source = config.source(path)
    return Place(found, "--path" if source == "path" else source)
