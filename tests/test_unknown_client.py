"""A `prometheus_client` with other internals: one sentence says what is missing, and which versions are known."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pages import ROOT

import sqlmetrics
from sqlmetrics.client import patch, peer

PACKAGE = Path(sqlmetrics.__file__).parent
_LACKING = """
import sys
import prometheus_client.multiprocess, prometheus_client.openmetrics.exposition
where, name = {where}, {name!r}
delattr(where, name)
try:
    {use}
except Exception as error:
    print(type(error).__name__, error)
"""
USES = (
    "from sqlmetrics import install",
    "import sqlmetrics.multiprocess",
    "import sqlmetrics.gunicorn",
    "import sqlmetrics; sqlmetrics.generate_latest",
)


def _told(where: str, name: str, use: str) -> str:
    command = [sys.executable, "-c", _LACKING.format(where=where, name=name, use=use)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


GONE = {
    "metrics._validate_exemplar": "a function that one module imports",
    "metrics.MetricWrapperBase.labels": "a method that is replaced",
    "multiprocess.MultiProcessCollector._read_metrics": "a method of the collector",
    "values.MutexValue": "a class",
}
LISTED = {f"prometheus_client{where}.{name}" for where, names in peer.NEEDED.items() for name in names.split()}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("gone", GONE)
def test_what_is_gone_is_named_at_the_import(gone: str, use: str) -> None:
    """Whichever way in: an ImportError, which the launcher tells, and leaves the app alone."""
    where, _, name = f"prometheus_client.{gone}".rpartition(".")
    told = _told(where, name, use)

    assert told.startswith("ImportError prometheus_client "), told
    assert f" has no prometheus_client.{gone}, which" in told
    assert f"knows {peer.KNOWN[0]} to {peer.KNOWN[1]}" in told


def test_a_module_that_is_gone_is_named_too() -> None:
    """As if it had moved."""
    use = "sys.modules['prometheus_client.openmetrics.exposition'] = None; from sqlmetrics import install"

    assert " has no prometheus_client.openmetrics.exposition, which" in _told("sys", "copyright", use)


def test_all_that_is_imported_from_prometheus_client_is_looked_for() -> None:
    """A name that a module of the package begins to import belongs into the table."""
    imported = {name for file in PACKAGE.rglob("*.py") if file.parent.name != "demo" for name in _imported(file)}
    modules = {f"prometheus_client{where}" for where in peer.NEEDED}

    assert len(imported) > 20
    assert imported - modules - LISTED == set()


def test_all_that_is_replaced_in_prometheus_client_is_looked_for() -> None:
    """A method that is replaced belongs into the table."""
    replaced = {f"{_dotted(where)}.{name}" for where, name, _ in (*patch._REPLACED, *patch._METHODS)}

    assert len(replaced) > 30
    assert replaced - LISTED == set()


def _dotted(where: Any) -> str:
    return where.__name__ if isinstance(where, ModuleType) else f"{where.__module__}.{where.__name__}"


def _imported(file: Path) -> set[str]:
    found = ast.walk(ast.parse(file.read_text("utf-8")))
    froms = [node for node in found if isinstance(node, ast.ImportFrom) and not node.level]
    theirs = [node for node in froms if (node.module or "").partition(".")[0] == "prometheus_client"]
    return {f"{node.module}.{alias.name}" for node in theirs for alias in node.names}


def test_the_oldest_known_version_is_the_one_that_is_required_and_tried() -> None:
    """In the package's requirements, and in the environment `lowest` of tox."""
    assert f'"prometheus_client>={peer.KNOWN[0]}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"prometheus_client=={peer.KNOWN[0]}.0" in (ROOT / "tox.ini").read_text("utf-8")
