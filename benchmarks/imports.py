"""What the import costs: whole processes that import a library and end, less one that imports nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from .sizes import Sizes
from .table import Row

STATEMENTS = {
    "bare": "pass",
    "memory": "import prometheus_client",
    "sqlmetrics": "import sqlmetrics",
    "loaded": "from sqlmetrics import install",
}


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """The import alone loads nothing else, the first name all, `prometheus_client` too. The interpreters take turns."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(-1, sizes.import_rounds):
        for name, statement in STATEMENTS.items():
            seconds = _run(statement, environment)
            if number >= 0:  # the first one writes bytecode
                times[name].append(seconds)
    bare = median(times.pop("bare"))
    own = {name: [seconds - bare for seconds in of_side] for name, of_side in times.items()}
    loaded = own.pop("loaded")
    yield Row("import sqlmetrics, beside import prometheus_client", own, "ms", to="memory", target=1.3)
    own["sqlmetrics"] = loaded
    yield Row("from sqlmetrics import install, beside the same", own, "ms", to="memory")


def _run(statement: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    return time.perf_counter() - start
