"""The house has floors: a module imports only from its own floor and from those beneath it, and there is no ring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import sqlmetrics

PACKAGE = Path(sqlmetrics.__file__).parent
FLOORS = (
    {"errors", "config", "process", "version"},
    {"cells"},
    {"rows"},
    {"scrape"},
    {"store"},
    {"client", "values"},
    {"outside", "web"},
    {"exporter", "names", ""},
    {"gunicorn", "gunicorn_requests", "multiprocess", "launch", "bootstrap", "commands", "testing"},
    {"cli", "demo", "__main__"},
)
"""From the ground up, by the first part of a module's name below the package; the package itself is ''."""
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in PACKAGE.rglob("*.py")
}


def _floor(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if module.split(".")[0] in floor)


def _imported(module: str) -> Iterator[str]:
    """The package's modules that one imports: anywhere in it, also inside a function, or for types only."""
    path = MODULES[module]
    here = ["sqlmetrics", *(module.split(".") if module else [])]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names if (name := _name_of(alias.name)) is not None)
        elif isinstance(node, ast.ImportFrom):
            up = here[: len(here) - node.level + (path.name == "__init__.py")] if node.level else []
            origin = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                name = _name_of(f"{origin}.{alias.name}")
                name = _name_of(origin) if name is None else name
                if name is not None:
                    yield name


def _name_of(dotted: str) -> str | None:
    """A module's name below the package, None for what is none of the package's."""
    first, _, rest = dotted.partition(".")
    return rest if first == "sqlmetrics" and rest in MODULES else None


GRAPH = {module: set(_imported(module)) - {module} for module in MODULES}


def test_each_module_is_on_a_floor() -> None:
    """And the test sees them all, with what they import."""
    assert len(MODULES) > 80
    assert sum(map(len, GRAPH.values())) > 300
    assert {module.split(".")[0] for module in MODULES} == set().union(*FLOORS)


def test_imports_run_downwards_only() -> None:
    """From a floor to itself or to one beneath it."""
    upwards = {f"{one} -> {other}" for one, of in GRAPH.items() for other in of if _floor(other) > _floor(one)}
    assert upwards == set()


def test_no_two_folders_import_each_other() -> None:
    """Also on one floor."""
    first = {module: module.split(".")[0] for module in MODULES if "." in module}
    pairs = {(first[one], first[other]) for one, of in GRAPH.items() for other in of if one in first and other in first}
    assert {pair for pair in pairs if pair[0] != pair[1] and pair[::-1] in pairs} == set()


def test_no_imports_form_a_ring() -> None:
    """Also within a floor."""
    TopologicalSorter(GRAPH).prepare()
