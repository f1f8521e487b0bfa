"""What the import costs: whole processes that import a library and end, less one that imports nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from .sizes import Sizes
from .table import Row

STATEMENTS = {"bare": "pass", "memory": "import prometheus_client", "sqlmetrics": "import sqlmetrics"}


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:  # noqa: ARG001 - every part's signature
    """`sqlmetrics` imports `prometheus_client`, so it takes longer; the fresh interpreters take turns."""
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(-1, sizes.import_rounds):
        for name, statement in STATEMENTS.items():
            seconds = _run(statement)
            if number >= 0:  # the first one writes bytecode
                times[name].append(seconds)
    bare = median(times.pop("bare"))
    own = {name: [seconds - bare for seconds in of_side] for name, of_side in times.items()}
    yield Row("import sqlmetrics, beside import prometheus_client", own, "ms", to="memory", target=1.3)


def _run(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start
