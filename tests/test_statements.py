"""The statements of SQL: each is where its name says what it does, or so short that it needs none."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlmetrics

PACKAGE = Path(sqlmetrics.__file__).parent
FILES = sorted(path for floor in ("rows", "scrape", "store") for path in (PACKAGE / floor).glob("*.py"))
VERB = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH)\b")
NOT_SHORT = re.compile(r"\n|\bJOIN\b|\bON CONFLICT\b|.\bSELECT\b", re.DOTALL)


def _fits(name: str, statement: str) -> bool:
    """Whether a constant is named by its verb; WITH alone is a beginning, to which a SELECT is added."""
    (verb,) = VERB.findall(statement)[:1]
    verbs = {"WITH": ("WITH_", "SELECT_")}.get(verb, (f"{'UPSERT' if 'DO UPDATE' in statement else verb}_",))
    return name.lstrip("_").startswith(verbs)


def _constants(path: Path) -> Iterator[tuple[str, str]]:
    """(name, statement) of all constants of a module; of a tuple or dict each of its statements."""
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    for name, found in vars(module).items():
        several = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else [found]
        if not name.startswith("__"):
            yield from ((name, one) for one in several if isinstance(one, str) and VERB.match(one))


def _inline(path: Path) -> Iterator[str]:
    """The statements that stand in functions, with all that is put into them left out."""
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                text = "".join(one.value for one in parts if isinstance(one, ast.Constant) and type(one.value) is str)
                if VERB.match(text):
                    yield text


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_statement_is_named_by_its_verb_unless_it_is_short(path: Path) -> None:
    """UPSERT_… inserts or updates; what has a join or another SELECT in it has a name."""
    wrong = [f"{name}: {text}" for name, text in _constants(path) if not _fits(name, text)]
    assert wrong == []
    assert [text for text in _inline(path) if NOT_SHORT.search(text)] == []


def test_many_statements_are_seen() -> None:
    """The test above looks at what is there."""
    assert len({text for path in FILES for _, text in _constants(path)}) > 70
    assert len({text for path in FILES for text in _inline(path)}) > 25
