"""The page about the commands has every key of their JSON, and every thing that `check` looks at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from looking import command, worker
from pages import DOCS

PAGE = (DOCS / "reference" / "commands.md").read_text("utf-8")
BY_LABEL = {"labels", "files", "errors", "ended", "versions", "limits", "label_sets"}
"""Keys of objects whose own keys are no fixed words, or are told in one sentence."""


def keys(found: Any) -> Iterator[str]:
    """All keys, of objects within objects, too."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield key
            yield from () if key in BY_LABEL and isinstance(value, dict) else keys(value)
    elif isinstance(found, list):
        for one in found:
            yield from () if isinstance(one, str) else keys(one)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["show", "--by", "process"],
        ["status"],
        ["check"],
        ["cardinality"],
        ["top", "--interval", "0.1"],
        ["remove", "--yes", "requests"],
    ],
    ids=" ".join,
)
def test_every_key_of_the_json_is_described(path: str, arguments: list[str]) -> None:
    """Scripts rely on them."""
    with worker(path) as one:
        one.do("count", "/", 1)
        one.do("observe", "/", 0.2)
        one.do("set", "last", 1)
        found = set(keys(command(*arguments, "--path", path, "--json").json())) - {"path"}  # the label of the metrics

    assert len(found) > 4
    section = PAGE.partition(f"\n## {arguments[0]}")[2].partition("\n## ")[0] + PAGE.partition("\n## show")[0]
    assert {key for key in found if f"`{key}`" not in section} == set()


def test_every_key_after_a_reset_is_described(path: str) -> None:
    """Which needs a store that nobody uses."""
    with worker(path):
        pass
    found = set(keys(command("reset", "--yes", "--path", path, "--json").json()))

    assert {key for key in found if f"`{key}`" not in PAGE} == set()


def test_everything_that_is_looked_at_is_described(path: str) -> None:
    """With what it is about."""
    with worker(path):
        abouts = {one["about"] for one in command("check", "--path", path, "--json").json()["findings"]}

    section = PAGE.partition("\n## check")[2].partition("\n## ")[0]
    assert len(abouts) > 9
    assert {about for about in abouts if not re.search(rf"^\|.*`{about}`.*\|.*\|$", section, re.M)} == set()
