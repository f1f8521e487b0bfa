"""What a library uses of `prometheus_client`, read from its source: names, in which style, and variables."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import NamedTuple

PEER = "prometheus_client"
VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
INSIDES = frozenset(
    {"_value", "_buckets", "_sum", "_count", "_metrics", "_lock", "_labelvalues", "_created", "_multiprocess"}
    | {"_collector_to_names", "_names_to_collectors", "_metric_init", "_samples", "_child_samples", "_multi_samples"}
)
"""Attributes of the peer's objects whose contents are others with a store, or that are not to be relied on there."""


class Uses(NamedTuple):
    """What was found.

    imported: names that were taken by ``from … import …`` and stay what they were then.
    looked_up: names that are looked up in a module at each use.
    variables: of the environment. insides: attributes from `INSIDES`, of whatever object.
    """

    imported: frozenset[str]
    looked_up: frozenset[str]
    variables: frozenset[str]
    insides: frozenset[str]


def uses_of(module: str) -> Uses:
    """What a module, or a package with all that is in it but its tests, uses."""
    found = [_uses_of_file(name, file) for name, file in _files(module)]
    return Uses(*(frozenset().union(*(getattr(one, field) for one in found)) for field in Uses._fields))


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """(name of the package that it is in, file)"""
    spec = find_spec(module)
    assert spec is not None, f"there is no {module}"
    assert spec.origin is not None
    if not spec.submodule_search_locations:
        yield module.rpartition(".")[0], Path(spec.origin)
        return
    root = Path(spec.origin).parent
    for file in sorted(root.rglob("*.py")):
        below = file.relative_to(root).parent.parts
        if "tests" not in below:
            yield ".".join([module, *below]), file


def _uses_of_file(package: str, file: Path) -> Uses:
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    pairs = list(_names(package, nodes))
    names = dict(pairs)
    looked_up = {".".join([names[root], *rest]) for root, *rest in map(_chain, nodes) if rest and root in names}
    return Uses(
        imported=frozenset(name for _, name in pairs if not _is_module(name)),
        looked_up=frozenset(name for name in looked_up if _is_module(name.rpartition(".")[0]) and not _is_module(name)),
        variables=frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and node.value in VARIABLES),
        insides=frozenset(
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute) and node.attr in INSIDES and not _is_own(node.value)
        ),
    )


def _names(package: str, nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """(name in the file, what it is of the peer)"""
    for node in nodes:
        if isinstance(node, ast.Import):
            for one in node.names:
                if one.name.split(".")[0] == PEER:
                    yield (one.asname, one.name) if one.asname else (PEER, PEER)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            if origin.split(".")[0] == PEER:
                yield from ((one.asname or one.name, f"{origin}.{one.name}") for one in node.names)


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the name before the last dot is no package
        return False


def _chain(node: ast.AST) -> list[str]:
    """The parts of a dotted name; of anything else, one that is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *reversed(parts)]


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")
