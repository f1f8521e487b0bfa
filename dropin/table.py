"""The table of what ran: a row for each test with the marker ``row``, with the versions that were installed."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from typing import NamedTuple

import pytest
from pages import DOCS, made_below

PAGE = DOCS / "reference" / "what-ran.md"
_BEGIN = "\nIt last ran with Python"
_HEAD = "| kind | what | with |\n|---|---|---|\n"


class Ran(NamedTuple):
    """A row: its kind, what ran, and the versions of the distributions (or Debian's packages) that it ran with."""

    kind: str
    what: str
    versions: str


def rows_of(items: Iterable[pytest.Item]) -> list[Ran]:
    """The rows of tests, sorted, each once."""
    marks = [mark.args for item in items for mark in item.iter_markers("row")]
    return sorted(
        {Ran(kind, what, ", ".join(f"{name} {_version(name)}" for name in names)) for kind, what, *names in marks}
    )


def _version(name: str) -> str:
    if name == "Python":  # for what is in its own library
        return platform.python_version()
    package = name.removeprefix("debian:")
    if package == name:
        return version(name)
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def written() -> dict[tuple[str, str], str]:
    """The versions in the page's table, by kind and what."""
    found = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8").partition(_HEAD)[2], flags=re.M)
    return {(kind, what): versions for kind, what, versions in found}


def write(rows: Iterable[Ran]) -> None:
    """Write the table anew, below what the page says of it."""
    machine = (
        f" {platform.python_version()}, prometheus_client {version('prometheus_client')} and apsw {version('apsw')}."
    )
    lines = "".join(f"| {row.kind} | {row.what} | {row.versions.replace('debian:', 'Debian ')} |\n" for row in rows)
    PAGE.write_text(made_below(PAGE.read_text("utf-8"), _BEGIN, f"{machine}\n\n{_HEAD}{lines}"), "utf-8")
