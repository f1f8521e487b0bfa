"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Counts of one run; `members` live at the same time and make `children` each, a lone process `alone` a round."""

    operation_rounds: int
    operations: int
    scrape_rounds: int
    members: int
    children: int
    alone_rounds: int
    alone: int
    together_rounds: int


FULL = Sizes(
    operation_rounds=31,
    operations=40_000,
    scrape_rounds=25,
    members=16,
    children=300,
    alone_rounds=15,
    alone=100,
    together_rounds=9,
)
QUICK = Sizes(
    operation_rounds=7,
    operations=10_000,
    scrape_rounds=5,
    members=16,
    children=300,
    alone_rounds=5,
    alone=100,
    together_rounds=3,
)
