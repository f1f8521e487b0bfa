"""Runs `sqlmetrics run` for tests, and has the smallest program that counts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from helpers import scrape

SQLMETRICS = [sys.executable, "-m", "sqlmetrics"]
COUNT = """
    import sys
    from prometheus_client import Counter
    JOBS = Counter("jobs", "Jobs done", ["by"])
    JOBS.labels(sys.argv[1] if len(sys.argv) > 1 else "it").inc()
"""


def run(*command: str, path: str | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `sqlmetrics run`, and wait for its end."""
    return subprocess.run(launched(*command, path=path), capture_output=True, text=True, timeout=60, **options)


def launched(*command: str, path: str | None) -> list[str]:
    """Return the command line of `sqlmetrics run`."""
    return [*SQLMETRICS, "run", *(["--path", path] if path else []), "--", *command]


def jobs(path: str) -> dict[str, float]:
    """Return what the program has counted, by label."""
    return {dict(labels)["by"]: count for (name, labels), count in scrape(path).items() if name == "jobs_total"}


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file in a folder, and return its path."""
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file
