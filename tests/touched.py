"""What sqlmetrics touches in `prometheus_client`: read from its own source, so that nothing is left out."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlmetrics

_UNDERSCORED = re.compile(r"_[a-z][a-z_]*")


@functools.cache
def underscored() -> dict[str, set[str]]:
    """{underscored name: the modules of sqlmetrics that have it, as an attribute or in a text such as hasattr's}"""
    found: dict[str, set[str]] = {}
    package = Path(sqlmetrics.__file__).parent
    for file in package.rglob("*.py"):
        module = ".".join(["sqlmetrics", *file.relative_to(package).with_suffix("").parts])
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = getattr(node, "attr", getattr(node, "value", None))
            is_name = isinstance(node, (ast.Attribute, ast.Constant)) and isinstance(name, str)
            if is_name and _UNDERSCORED.fullmatch(name):
                found.setdefault(name, set()).add(module)
    return found


def parameters(function: Callable[..., Any]) -> str:
    """A signature without its annotations, which rely on nothing."""
    found = inspect.signature(function).parameters.values()
    shown = [str(one.replace(annotation=inspect.Parameter.empty)) for one in found]
    return f"({', '.join(re.sub(r'=<.*>$', '=…', one) for one in shown)})"


def fingerprint(function: Callable[..., Any]) -> str:
    """Of what a function does: of its source without signature, docstring and white space."""
    source = textwrap.dedent(inspect.getsource(function))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    first = definition.body[1 if ast.get_docstring(definition) else 0]
    body = "".join("".join(source.split("\n")[first.lineno - 1 :]).split())
    return f"{zlib.crc32(body.encode()):08x}"
