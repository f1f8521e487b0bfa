"""The index of messages in the documentation and the code have the same messages."""

from __future__ import annotations

import ast
import functools
import re

import pytest
from pages import DOCS, ROOT

from sqlmetrics import errors

PAGE = DOCS / "reference" / "errors.md"
RAISED = {name for name in vars(errors) if name.endswith("Error")} - {"SQLMetricsError", "DamagedError"}
"""What is raised by name; a damage has one message for each place where it can be, and one answer."""
LOGGED = {"report", "happened", "remark"}


def indexed() -> list[str]:
    """The messages of the page's last table, with … for what differs."""
    table = PAGE.read_text("utf-8").partition("\n## Index of messages\n")[2]
    return re.findall(r"^\| `([^`]+)` \|", table, flags=re.M)


def text_of(node: ast.expr) -> str:
    """A string of the code, with … for what is put into it; empty for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@functools.cache
def nodes() -> list[ast.AST]:
    """All of the package's modules, taken apart."""
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "sqlmetrics").rglob("*.py"))]
    return [node for text in texts for node in ast.walk(ast.parse(text))]


def strings() -> list[str]:
    """Every string of the package."""
    return [text for node in nodes() if isinstance(node, ast.expr) and (text := text_of(node))]


def told() -> list[str]:
    """What is raised as one of the public errors, or reported as trouble, in words."""
    calls = [node for node in nodes() if isinstance(node, ast.Call)]
    wanted = [call for call in calls if re.split(r"\W", ast.unparse(call.func))[-1] in RAISED | LOGGED]
    return [text for call in wanted for one in call.args if re.search("[a-z] ", text := text_of(one))]


def test_every_message_in_the_index_is_one_of_the_code() -> None:
    """A message that nobody gives any more leaves the index."""
    code = strings()

    assert len(indexed()) > 40
    assert [message for message in indexed() if not any(message in text for text in code)] == []


@pytest.mark.parametrize("text", sorted(set(told())))
def test_every_message_of_the_code_is_in_the_index(text: str) -> None:
    """A new message comes into the index."""
    assert any(message in text for message in indexed())


def test_the_errors_and_reports_are_found_in_the_code() -> None:
    """The search that the other tests rely on finds the messages of each public error."""
    assert {"PathError", "InstallError", "StoreInUseError"} <= RAISED
    assert len(told()) > 35
