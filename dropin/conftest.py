"""What the tests of real servers and libraries share beside `shared_fixtures`: the table of what ran."""

from __future__ import annotations

import os
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError

import pytest
import table
from helpers import let_children_hear_signals

ALL_ITEMS = pytest.StashKey[list[pytest.Item]]()
"""Every test that was collected, whether or not it was selected."""


@pytest.fixture(scope="session")
def all_items(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """Every test that was collected."""
    return request.config.stash[ALL_ITEMS]


def pytest_addoption(parser: pytest.Parser) -> None:
    """See `pytest_sessionfinish`."""
    parser.addoption("--write", action="store_true", help=f"write the table in {table.PAGE.name} anew, if all pass")


def pytest_configure(config: pytest.Config) -> None:
    """The marker of the tests that are rows of the table; and see `let_children_hear_signals`."""
    let_children_hear_signals()
    os.environ["PYTHONUNBUFFERED"] = "1"  # what servers and workers print is read while they run
    config.pluginmanager.import_plugin("shared_fixtures")
    config.addinivalue_line("markers", "row(kind, what, *distributions): a row in the table of what ran")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep all of them, before any is deselected; what compares the table with them has no say in writing it."""
    config.stash[ALL_ITEMS] = list(items)
    if config.getoption("--write"):
        items[:] = [item for item in items if item.path.name != "test_table.py"]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the table, if it was asked for and everything passed."""
    is_run = not session.config.getoption("collectonly")
    if session.config.getoption("--write") and is_run and not session.testsfailed:
        table.write(table.rows_of(session.items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a row that fails, tell with what versions it passed, as a new release may be why."""
    report = yield
    if report.failed:
        report.sections.extend(("versions", text) for text in _versions(item))
    return report


def _versions(item: pytest.Item) -> list[str]:
    try:
        rows = table.rows_of([item])
    except PackageNotFoundError as error:
        return [f"{error.name} is not installed: .venv/bin/pip install --group dropin"]
    before = [table.written().get((row.kind, row.what), "nothing yet") for row in rows]
    return [f"it failed with {row.versions}; it passed with {old}" for row, old in zip(rows, before, strict=True)]
