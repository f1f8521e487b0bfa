"""The operator's view: the store as the sqlite3 shell sees it, always from another process.

Never Python's `sqlite3` in a process that uses sqlmetrics: it is a second SQLite, and closing a file drops the
locks of the first.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from typing import Any

from .server import DemoError

_PYTHON = """
import json, sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute(sys.argv[2])]))
"""

Rows = list[dict[str, Any]]


@cache
def has_program() -> bool:
    """Whether there is a sqlite3 program that knows STRICT tables, as 3.37 was the first to do."""
    if not shutil.which("sqlite3"):
        return False
    said = subprocess.run(["sqlite3", "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    found = re.match(r"(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (3, 37)


def reader() -> str:
    """What `query` reads with, for people."""
    return "the sqlite3 shell" if has_program() else "Python's sqlite3 in another process"


def query(path: str, sql: str) -> Rows:
    """The rows of a query. Raises DemoError if the store cannot be read from outside."""
    command = ["sqlite3", "-readonly", "-json"] if has_program() else [sys.executable, "-c", _PYTHON]
    done = subprocess.run([*command, path, sql], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise DemoError(f"{reader()} cannot read {path}: {done.stderr.strip()}")
    return json.loads(done.stdout) if done.stdout.strip() else []
