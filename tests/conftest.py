"""Fixtures that only these tests use, beside `shared_fixtures`: a clean prometheus_client, and an installed store."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import let_children_hear_signals
from launching import COUNT, write
from prometheus_client import REGISTRY

import sqlmetrics
from sqlmetrics.cells import shape

_SLOW_SECONDS = 5
_VARIABLES = ("SQLMETRICS_PATH", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def pytest_configure(config: pytest.Config) -> None:
    """See `let_children_hear_signals`."""
    let_children_hear_signals()
    config.pluginmanager.import_plugin("shared_fixtures")


def pytest_sessionfinish() -> None:
    """Undo the freeze of `clean`, because hypothesis, which pytest imports at the end, searches all objects."""
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that took long without the marker ``slow``; a busy machine may be the reason."""
    reports = [one for some in terminalreporter.stats.values() for one in some if isinstance(one, pytest.TestReport)]
    for one in reports:
        if one.duration > _SLOW_SECONDS and "slow" not in one.keywords:
            terminalreporter.write_line(f"more than {_SLOW_SECONDS} s without the marker slow: {one.nodeid}")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end without an installed store, and without a test's metrics in the default registry.

    It leaves existing objects out of garbage collections: each `install` makes one, and would go through all of pytest.
    """
    gc.collect()
    gc.freeze()
    for name in [*_VARIABLES, *(name for name in os.environ if name.startswith("SQLMETRICS_"))]:
        monkeypatch.delenv(name, raising=False)
    before = set(REGISTRY._collector_to_names)
    yield
    sqlmetrics.uninstall()
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)
    for keys in shape._keys.values():
        keys.clear()  # a histogram of the same name has other buckets in the next test


@pytest.fixture
def script(folder: Path) -> Path:
    """A program that counts one job, whose name is its argument; it uses `prometheus_client` only."""
    return write(folder, "script.py", COUNT)


@pytest.fixture
def store(path: str, request: pytest.FixtureRequest) -> sqlmetrics.Store:
    """An installed store, with the settings in the test's marker ``store``."""
    marker = request.node.get_closest_marker("store")
    return sqlmetrics.install(path, **(marker.kwargs if marker else {}))


@pytest.fixture
def open_folder(folder: Path) -> Path:
    """A folder like /tmp and /dev/shm: anybody may create files, but only their owners may delete them."""
    folder.chmod(0o1777)
    return folder
