"""``python -m benchmarks [--quick]``: run every measurement, print one table, compare what the sides answer."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile

from . import churn, creation, operations, scrapes, table
from .comparison import DifferenceError
from .sizes import FULL, QUICK, Sizes


def main() -> int:
    """Return 0, or 1 if two sides gave different numbers; how long anything took is never an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller counts")
    sizes = QUICK if parser.parse_args().quick else FULL
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, stores in {memory or tempfile.gettempdir()}")
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=memory) as folder:
        try:
            _run(folder, sizes)
        except DifferenceError as error:
            print(f"DIFFERENT: {error}")
            return 1
    print("\nAll outputs compared: equal.")
    return 0


def _run(folder: str, sizes: Sizes) -> None:
    table.print_head()
    for measure in (
        operations.measure,
        scrapes.measure,
        creation.measure_alone,
        creation.measure_together,
        churn.measure,
    ):
        for row in measure(folder, sizes):
            table.print_row(row)


if __name__ == "__main__":
    sys.exit(main())
