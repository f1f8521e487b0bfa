"""``python -m benchmarks``: measure everything beside the rivals, print one table, compare what the sides answer."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from . import background, churn, creation, curves, forks, gunicorn, operations, scrapes, stall, table
from .comparison import DifferenceError
from .sizes import FULL, QUICK, Sizes

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
PICTURE = PAGE.with_suffix(".svg")
PARTS: dict[str, tuple[Callable[[str, Sizes], Iterator[table.Row]], ...]] = {
    "operations": (operations.measure,),
    "scrapes": (scrapes.measure, scrapes.measure_after_deaths),
    "large": (scrapes.measure_large,),
    "creation": (creation.measure_alone, creation.measure_together, creation.measure_weight),
    "forks": (forks.measure,),
    "background": (background.measure,),
    "gunicorn": (gunicorn.measure,),
    "stall": (stall.measure,),
    "churn": (churn.measure,),
}


def main() -> int:
    """Return 0, or 1 if two sides gave different numbers; how long anything took is never an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all, and the curves")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller counts")
    parser.add_argument("--write", action="store_true", help="write the table and the picture to docs/performance.md")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    sizes = QUICK if given.quick else FULL
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    where = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, stores in {memory or tempfile.gettempdir()}"
    print(where)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=memory) as folder:
        try:
            rows = _rows(folder, sizes, given.parts or list(PARTS))
            drawn = curves.measure(folder, sizes) if not given.parts else []
        except DifferenceError as error:
            print(f"DIFFERENT: {error}")
            return 1
    print("\nAll outputs compared: equal.")
    if given.write:
        _write(where, rows, drawn)
    return 0


def _rows(folder: str, sizes: Sizes, parts: list[str]) -> list[table.Row]:
    rows = []
    table.print_head()
    for part in parts:
        for measure in PARTS[part]:
            for row in measure(folder, sizes):
                table.print_row(row)
                rows.append(row)
    return rows


def _write(where: str, rows: list[table.Row], drawn: list[curves.Curve]) -> None:
    text = PAGE.read_text("utf-8")
    new = f"<!-- table -->\n{where}.\n\n{table.markdown(rows)}<!-- end of table -->"
    PAGE.write_text(re.sub(r"<!-- table -->.*<!-- end of table -->", lambda _: new, text, flags=re.DOTALL), "utf-8")
    if drawn:
        curves.draw(drawn, PICTURE)


if __name__ == "__main__":
    sys.exit(main())
