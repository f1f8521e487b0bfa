"""The store that a command looks at, and what has named it: every command prints both."""

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
    """Find the store of ``--path``, or else of the environment; make and open nothing. Raises PathError."""
    found = config.resolve(path)
    source = config.named(path)[0]
    return Place(found, "--path" if source == "path" else source)
