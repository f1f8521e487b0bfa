"""Fixtures for `tests` and `dropin`: a place for a store, on a tmpfs if there is one, and a second reader."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Shell

import sqlmetrics


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
    """The path of a test's store."""
    return str(folder / "metrics.sqlite3")


@pytest.fixture
def shell(path: str) -> Shell:
    """A second reader of the store, with another SQLite in another process."""
    return Shell(path)
