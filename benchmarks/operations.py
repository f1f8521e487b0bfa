"""What an operation on a child that exists costs."""

from __future__ import annotations

from collections.abc import Iterator

from .comparison import compare, expect
from .process import Side, sides
from .sizes import Sizes
from .table import Row

STATEMENTS = {
    "counter child.inc()": "child.inc()",
    "counter.labels(...).inc()": 'counter.labels("GET", "/x").inc()',
    "gauge.set()": "gauge.set(2.5)",
    "mostrecent gauge.set()": "recent.set(2.5)",
    "histogram.observe()": "histogram.observe(0.25)",
}


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """The sides take turns, many short rounds: what disturbs the machine disturbs all of them alike."""
    with sides(folder, "baseline", "memory", "mmap", "sqlmetrics") as running:
        for what, statement in STATEMENTS.items():
            for side in running.values():
                side.ask("operate", statement=statement, count=sizes.operations)
            times: dict[str, list[float]] = {name: [] for name in running}
            for _ in range(sizes.operation_rounds):
                for name, side in running.items():
                    times[name].append(side.ask("operate", statement=statement, count=sizes.operations))
            yield Row(what, times, "ns", to_mmap=0.3, to_memory=0.8)
        _check({name: side for name, side in running.items() if name != "baseline"}, sizes)


def _check(running: dict[str, Side], sizes: Sizes) -> None:
    contents = {name: side.ask("content") for name, side in running.items()}
    compare("values after the operations", contents)
    done = float(sizes.operations * (sizes.operation_rounds + 1))
    for line in ("calls_total {}", 'requests_total {"method": "GET", "path": "/x"}', "seconds_count {}"):
        expect(line, contents["sqlmetrics"].get(line), done)
    for line in ("level {}", "recent {}"):
        expect(line, contents["sqlmetrics"].get(line), 2.5)
