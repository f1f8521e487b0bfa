"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sizes:
    """Counts of one run; `members` live at the same time and make `children` each, a lone process `alone` a round.

    deaths: after how many of them a store is looked at.
    """

    operation_rounds: int
    operations: int
    scrape_rounds: int
    members: int
    children: int
    alone_rounds: int
    alone: int
    together_rounds: int
    churn_rounds: int
    deaths: tuple[int, ...]


FULL = Sizes(
    operation_rounds=31,
    operations=40_000,
    scrape_rounds=25,
    members=16,
    children=300,
    alone_rounds=15,
    alone=100,
    together_rounds=9,
    churn_rounds=5,
    deaths=(10, 100, 1_000, 2_000),
)
QUICK = replace(
    FULL,
    operation_rounds=7,
    operations=10_000,
    scrape_rounds=5,
    alone_rounds=5,
    together_rounds=3,
    churn_rounds=3,
    deaths=(10, 100, 300),
)
