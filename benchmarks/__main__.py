"""``python -m benchmarks``: measure everything beside the rivals, print one table, compare what the sides answer."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from . import (
    anatomy,
    background,
    burst,
    churn,
    creation,
    curves,
    forks,
    gunicorn,
    imports,
    jobs,
    operations,
    scrapes,
    stall,
    table,
    waits,
    weight,
)
from .comparison import DifferenceError
from .sizes import FULL, QUICK, Sizes

OWN_PAGE = Path(__file__).parent / "README.md"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
"""The one for users."""
PICTURE = PAGE.with_suffix(".svg")
PARTS: dict[str, tuple[Callable[[str, Sizes], Iterator[table.Row]], ...]] = {
    "operations": (operations.measure,),
    "scrapes": (scrapes.measure, scrapes.measure_gauges, scrapes.measure_after_deaths),
    "large": (scrapes.measure_large,),
    "creation": (creation.measure_alone, creation.measure_together, creation.measure_counters),
    "burst": (burst.measure,),
    "waits": (waits.measure,),
    "weight": (weight.measure,),
    "forks": (forks.measure,),
    "jobs": (jobs.measure,),
    "imports": (imports.measure,),
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
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the tables to benchmarks/README.md and docs/performance.md, and the picture",
    )
    given = parser.parse_args()
    if given.write and given.parts:
        parser.error("the pages are written of a whole run, not of some parts")
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
            anatomies = anatomy.measure(folder, sizes) if not given.parts else ""
        except DifferenceError as error:
            print(f"DIFFERENT: {error}")
            return 1
    print(f"\nAll outputs compared: equal.\n\n{anatomies}")
    if given.write:
        write(OWN_PAGE, "table", f"{where}.\n\n{table.markdown(rows)}")
        write(OWN_PAGE, "parts", anatomies)
        write(PAGE, "results", f"{where}.\n\n{table.results(row.cells() for row in rows)}")
        curves.draw(drawn, PICTURE)
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


def marked(page: Path, name: str) -> tuple[str, str, str]:
    """What is before, between and after a page's two comments of that name."""
    before, _, rest = page.read_text("utf-8").partition(f"<!-- {name} -->\n")
    between, _, after = rest.partition(f"<!-- end of {name} -->")
    return before, between, after


def write(page: Path, name: str, new: str) -> None:
    """Put a text between a page's two comments of that name."""
    before, _, after = marked(page, name)
    page.write_text(f"{before}<!-- {name} -->\n{new}<!-- end of {name} -->{after}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
