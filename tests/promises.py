"""Which tests hold which promise, by their markers; run as a program, it writes that into `docs/reference/promises.md`.

It reads the source of the tests: those in `dropin` cannot be collected where their servers are not installed.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pages import DOCS, ROOT, made_below

PAGE = DOCS / "reference" / "promises.md"
_BEGIN = "\nHeld by:\n\n"
"""What the written part below each promise begins with."""


class Held(NamedTuple):
    """A promise that a file holds: as a whole, or by some of its tests."""

    promise: int
    file: Path
    summary: str
    names: list[str]
    """Those that hold it, none if it is the whole file."""


def files() -> list[Path]:
    """All files with tests."""
    return sorted([*(ROOT / "tests").glob("test_*.py"), *(ROOT / "dropin").glob("test_*.py")])


def held_by(file: Path) -> Iterator[Held]:
    """What the markers of a file say."""
    module = ast.parse(file.read_text("utf-8"))
    tests = {one.name: one for one in module.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")}
    for_all = [
        one for one in module.body if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "pytestmark"
    ]
    whole = {number for one in for_all for number in marked(one.value)}
    summary = (ast.get_docstring(module) or "").partition("\n")[0]
    for number in whole:
        yield Held(number, file, summary, [])
    some: dict[int, list[str]] = {}
    for name, test in tests.items():
        for number in {number for one in test.decorator_list for number in marked(one)} - whole:
            some.setdefault(number, []).append(name)
    for number, names in some.items():
        yield Held(number, file, summary, names)


def marked(expression: ast.expr) -> Iterator[int]:
    """The promises of the markers in an expression."""
    for one in ast.walk(expression):
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "pytest.mark.promise":
            yield from (ast.literal_eval(argument) for argument in one.args)


def held() -> list[Held]:
    """All of it, in the order of the files."""
    return [one for file in files() for one in held_by(file)]


def promised() -> list[int]:
    """The numbers of the promises on the page."""
    return [int(number) for number in re.findall(r"^## (\d+)\. ", PAGE.read_text("utf-8"), re.M)]


def page() -> str:
    """The page as it should be: what is written there by hand, and below each promise the tests that hold it."""
    head, *sections = re.split(r"^(?=## \d+\. )", PAGE.read_text("utf-8"), flags=re.M)
    everything = held()
    for at, section in enumerate(sections):
        number = int(section[3:].partition(".")[0])
        here = [one for one in everything if one.promise == number]
        sections[at] = made_below(section, _BEGIN, "".join(map(_item, here)))
    return head + "\n".join(sections)


def _item(one: Held) -> str:
    link = f"[`{one.file.relative_to(ROOT)}`]({os.path.relpath(one.file, PAGE.parent)})"
    if not one.names:
        return f"- {link}: {one.summary}\n"
    return f"- {link}: {', '.join(f'`{name}`' for name in one.names)}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
