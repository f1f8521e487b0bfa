"""What an operation on a child that exists costs."""

from __future__ import annotations

from collections.abc import Iterator

from .comparison import compare, expect
from .process import Side, sides
from .sizes import Sizes
from .table import SIDES, Row

# statement, the other side and the ratio to reach
STATEMENTS: dict[str, tuple[str, str, float | None]] = {
    "child.inc()": ("child.inc()", "memory", 0.75),
    "histogram.observe()": ("histogram.observe(0.25)", "memory", 0.85),
    'metric.labels("GET", "/x").inc()': ('counter.labels("GET", "/x").inc()', "memory", 0.4),
    "gauge.set()": ("gauge.set(2.5)", "memory", None),
    "mostrecent gauge.set()": ("recent.set(2.5)", "mmap", 0.6),
}
_FASTER = 50
"""A commit takes a thousand times as long as an operation in memory: so many times fewer of them are done."""


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """The sides take turns, many short rounds: what disturbs the machine disturbs all of them alike."""
    with sides(folder, *SIDES) as running:
        counts = {name: sizes.operations // (_FASTER if name == "distributed" else 1) for name in running}
        for what, (statement, to, target) in STATEMENTS.items():
            times: dict[str, list[float]] = {name: [] for name in running}
            for number in range(-1, sizes.operation_rounds):
                for name, side in running.items():
                    seconds = side.ask("operate", statement=statement, count=counts[name])
                    if number >= 0:
                        times[name].append(seconds)
            yield Row(what, times, "ns", to=to, target=target)
        _check(running, counts, sizes)


def _check(running: dict[str, Side], counts: dict[str, int], sizes: Sizes) -> None:
    contents = {name: side.ask("content") for name, side in running.items()}
    compare("values after the operations", {name: contents[name] for name in ("memory", "mmap", "sqlmetrics")})
    for name, content in contents.items():
        done = float(counts[name] * (sizes.operation_rounds + 1))
        for line in ('calls_total {"by": "all"}', 'requests_total {"method": "GET", "path": "/x"}', "seconds_count {}"):
            expect(f"{line} with {name}", content.get(line), done)
        for line in ("level {}", "recent {}"):
            expect(f"{line} with {name}", content.get(line), 2.5)
