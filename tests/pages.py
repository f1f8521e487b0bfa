"""The code in pages of the documentation.

A ``python`` block that begins with a comment such as ``# app.py`` is that file; any other is a program of its own. In
a ``console`` block each ``$ `` begins a command, and what is shown below it is what it prints. A line
``<!-- not run: why -->`` above a block keeps it from being run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
DROPIN = [DOCS / "how-to" / kind for kind in ("servers", "libraries")]
"""Whose pages need servers and libraries that the suite in `dropin` has; it runs them."""

_BLOCK = re.compile(r"(?P<mark><!-- not run[^\n]*-->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|ini|toml|yml|wsgi|conf))\n")


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        named = _FILE.match(self.text)
        return named[1] if named else None


def made_below(text: str, mark: str, made: str) -> str:
    """A text of which what begins with the mark is made by a program: the same with that made anew."""
    return f"{text.partition(mark)[0].rstrip()}\n{mark}{made}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are meant to run, in order."""
    found = _BLOCK.finditer(page.read_text("utf-8"))
    return [Block(match["kind"], match["text"]) for match in found if not match["mark"]]


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, what is shown below it) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown
