"""Whether two sides gave the same families and samples; a number that is fast and wrong is worth nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Content = dict[str, float | str]
"""Family or sample, with its labels as text: its type and help, or its value."""


class DifferenceError(Exception):
    """Two sides that did the same gave different answers."""


def compare(what: str, contents: Mapping[str, Mapping[str, float | str]]) -> None:
    """Raise DifferenceError unless all sides have the same keys and values."""
    (first, expected), *others = contents.items()
    for name, found in others:
        different = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        if different:
            raise DifferenceError(
                f"{what}: {len(different)} of {len(expected)} lines; for example {different[0]} is"
                f" {expected.get(different[0])} with {first} and {found.get(different[0])} with {name}"
            )


def expect(what: str, found: Any, expected: Any) -> None:
    """Raise DifferenceError unless the two are equal."""
    if found != expected:
        raise DifferenceError(f"{what}: {found!r} instead of {expected!r}")
