"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sizes:
    """Counts of one run; `members` live at the same time and make `children` each, a lone process `alone` a round.

    some, many: counter children in one process, and in each of the workers of a burst; known: those of a process, an
    operation on one of which must not wait.
    deaths: after how many of them a store is looked at. lived, living, series: the numbers of the three curves.
    """

    operation_rounds: int = 31
    operations: int = 20_000
    scrape_rounds: int = 15
    slow_rounds: int = 2
    members: int = 16
    children: int = 300
    gauges: int = 1_000
    many_members: int = 64
    many_children: int = 1_177
    worn_out: int = 10_000
    alone_rounds: int = 15
    alone: int = 100
    together_rounds: int = 7
    weighed: int = 400
    fork_rounds: int = 9
    inherited: int = 5_000
    counter_rounds: int = 5
    some: int = 1_000
    many: int = 20_000
    burst_rounds: int = 3
    known: int = 50_000
    wait_rounds: int = 2
    wait_seconds: float = 8.0
    jobs: int = 60
    job_rounds: int = 5
    import_rounds: int = 21
    busy_rounds: int = 3
    busy_seconds: float = 10.0
    served_rounds: int = 11
    served_seconds: int = 3
    churn_rounds: int = 5
    deaths: tuple[int, ...] = (10, 100, 1_000)
    flushed: tuple[int, ...] = (100, 1_000, 5_000)
    anatomies: tuple[tuple[int, int], ...] = ((1, 60), (16, 300), (64, 300), (64, 1_177))
    lived: tuple[int, ...] = (8, 40, 200, 1_000, 4_000)
    living: tuple[int, ...] = (1, 4, 16, 64)
    series: tuple[int, ...] = (170, 1_700, 8_500, 20_400)


FULL = Sizes()
QUICK = replace(
    FULL,
    operation_rounds=5,
    operations=5_000,
    scrape_rounds=4,
    slow_rounds=1,
    many_members=16,
    many_children=300,
    worn_out=400,
    alone_rounds=4,
    together_rounds=2,
    weighed=100,
    fork_rounds=3,
    counter_rounds=2,
    some=200,
    many=2_000,
    burst_rounds=1,
    known=2_000,
    wait_rounds=1,
    wait_seconds=4.0,
    jobs=20,
    job_rounds=2,
    import_rounds=5,
    busy_rounds=1,
    busy_seconds=3.0,
    served_rounds=1,
    served_seconds=2,
    churn_rounds=3,
    deaths=(10, 100),
    flushed=(100, 1_000),
    anatomies=((1, 60), (16, 300)),
    lived=(8, 40, 200),
    living=(1, 4),
    series=(170, 1_700),
)
