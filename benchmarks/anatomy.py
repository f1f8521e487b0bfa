"""Where the time of an increment, a flush and a scrape goes, and how it grows: sqlmetrics alone, part by part.

The parts are functions of the package; each is timed by a function put around it, which takes about 0.2 µs a call.
"""

from __future__ import annotations

import functools
import importlib
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

from .process import sides
from .sizes import Sizes

if TYPE_CHECKING:
    from .library import Metrics

SCRAPE = {
    "scrape.reader.Reader.read": "whole",
    "cells.cellsfile.CellsFile.held_slots": "who lives",
    "cells.cellsfile.CellsFile.is_alive": "who lives",
    "cells.cellsfile.CellsFile.are_unsettled": "who lives",
    "cells.region.Region.census": "who lives",
    "cells.region.Region.changed": "who lives",
    "scrape.reading.Remembered.catch_up": "rows that are new",
    "scrape.reading.Scrape._follow": "journals",
    "scrape.reading.Scrape._write_tables": "what the query is told",
    "scrape.tables.Tables.read": "copy the cells",
    "scrape.tables.Tables.all_cells": "copy the cells",
    "cells.images.Copies.changed_since": "which cells have changed",
    "scrape.tables.Tables.choose": "which cells have changed",
    "scrape.query.sums": "the query",
    "scrape.query.gauges": "the query",
    "scrape.reading.Gauges.sort": "values of the lines",
    "scrape.reading.Scrape._sum": "values of the lines",
    "scrape.reading.Scrape._gauge": "values of the lines",
    "scrape.text.Texts.text": "write the text",
}
FLUSH = {
    "store.flush.flush": "whole",
    "cells.arenas.SharedArena.changed_blocks": "which blocks have changed",
    "cells.arenas.SharedArena.take_images": "which blocks have changed",
    "rows.ingest.ingest": "new children to rows",
    "rows.ingest.copy_images": "changed cells to rows",
    "rows.settle.settle_dead": "who has ended",
    "store.flush.checkpoint": "checkpoint",
}


def parts_of(functions: dict[str, str], action: Callable[[], object], times: int) -> dict[str, float]:
    """Seconds of each part in one run of an action, the median of some; what is in no part is called the rest."""
    runs = []
    for _ in range(times):
        with _timed(functions) as spent:
            action()
        whole = spent.pop("whole")
        runs.append({**spent, "the rest": whole - sum(spent.values()), "whole": whole})
    parts = [part for part in dict.fromkeys(functions.values()) if part != "whole"]
    return {part: median(run.get(part, 0.0) for run in runs) for part in (*parts, "the rest", "whole")}


@contextmanager
def _timed(functions: dict[str, str]) -> Iterator[Counter[str]]:
    """Seconds by part, of calls that are made meanwhile; a part within another one is its own only."""
    spent: Counter[str] = Counter()
    inside: list[float] = []
    originals = []
    for name, part in functions.items():
        where, attribute = _find(name)
        original = getattr(where, attribute)
        originals.append((where, attribute, original))

        def timed(*args: Any, _original: Any = original, _part: str = part, **kwargs: Any) -> Any:
            inside.append(0.0)
            start = time.perf_counter()
            try:
                return _original(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                within = inside.pop()
                spent[_part] += took if _part == "whole" else took - within
                if inside:
                    inside[-1] += took

        setattr(where, attribute, functools.update_wrapper(timed, original))
    try:
        yield spent
    finally:
        for where, attribute, original in originals:
            setattr(where, attribute, original)


def _find(name: str) -> tuple[Any, str]:
    """Where a function is, and its name there."""
    room, module, *path, attribute = name.split(".")
    where: Any = importlib.import_module(f"sqlmetrics.{room}.{module}")
    for one in path:
        where = getattr(where, one)
    return where, attribute


def increment(metrics: Metrics) -> dict[str, float]:
    """Seconds of what an increment consists of, each measured by itself."""
    child, value = metrics.operated["child"], metrics.operated["child"]._value

    def method(amount: Any = 1, exemplar: Any = None) -> None:
        pass

    names = {"child": child, "value": value, "method": method, "amount": 1, "exemplar": None}
    names |= {"gate": value._gate, "word": value._word, "cells": value._cells, "cell": value._cell}
    statements = {
        "the call of a method": "method()",
        "find the value": "child._value; value._gate; value._word; value._cells; value._cell",
        "compare the two bytes": "gate == word",
        "check the amount": "exemplar is None and (amount.__class__ is int or amount.__class__ is float) and amount >= 0",  # noqa: E501
        "add to the cell": "cells[cell] += amount",
        "whole": "child.inc()",
    }
    empty = min(timeit.repeat("pass", number=200_000, repeat=5))
    return {
        what: (min(timeit.repeat(statement, number=200_000, repeat=5, globals=names)) - empty) / 200_000
        for what, statement in statements.items()
    }


def measure(folder: str, sizes: Sizes) -> str:
    """The tables, as a page shows them."""
    tables = []
    with sides(folder, "sqlmetrics") as running:
        side = running["sqlmetrics"]
        found = side.ask("increment_parts")
        tables.append(_table("an increment", ["ns"], [{part: 1e9 * seconds for part, seconds in found.items()}]))
        heads, columns = [], []
        for children in sizes.flushed:
            found = side.ask("flush_parts", children=children, operations=1000)
            heads.append(f"{children:,} children, ms")
            columns.append({part: 1e3 * seconds for part, seconds in found.items()})
        tables.append(_table("a flush after 1,000 observations", heads, columns))
    heads, columns = [], []
    for members, children in sizes.anatomies:
        with sides(folder, "sqlmetrics") as running:
            side = running["sqlmetrics"]
            side.ask("gather", members=members, children=children)
            time.sleep(5)
            for everything, what in ((False, "one sample changed"), (True, "all sums asked for")):
                found = side.ask("scrape_parts", everything=everything)
                columns.append({part: 1e3 * seconds for part, seconds in found.items()})
                heads.append(f"{members} x {children * 17:,}, {what}, ms")
    tables.append(_table("a scrape", heads, columns))
    return "\n".join(tables)


def _table(what: str, heads: Sequence[str], columns: Sequence[dict[str, float]]) -> str:
    lines = [f"| {what} | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for part in columns[0]:
        lines.append(f"| {part} | {' | '.join(f'{column[part]:.3g}' for column in columns)} |")
    return "\n".join(lines) + "\n"
