"""What the tests share: a clean prometheus_client, a store on tmpfs where there is one, and a second reader."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Shell, let_children_hear_signals
from launching import COUNT, write
from prometheus_client import REGISTRY

import sqlmetrics
from sqlmetrics.cells import shape

_VARIABLES = ("SQLMETRICS_PATH", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def pytest_configure() -> None:
    """See `let_children_hear_signals`."""
    let_children_hear_signals()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No store installed and no metric of a test left in the default registry."""
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
def folder() -> Iterator[Path]:
    """An empty folder on tmpfs, as the docs recommend, or else on the disk."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="sqlmetrics-test-", dir=shm))
    yield path
    sqlmetrics.uninstall()  # before its store is gone
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def path(folder: Path) -> str:
    """Where the store of a test is."""
    return str(folder / "metrics.sqlite3")


@pytest.fixture
def script(folder: Path) -> Path:
    """A program that counts one job under the name given, and has `prometheus_client` only."""
    return write(folder, "script.py", COUNT)


@pytest.fixture
def store(path: str) -> sqlmetrics.Store:
    """An installed store."""
    return sqlmetrics.install(path)


@pytest.fixture
def shell(path: str) -> Shell:
    """The second reader: another process, another SQLite."""
    return Shell(path)
