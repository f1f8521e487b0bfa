"""Sums that do not depend on the order of what is added."""

from __future__ import annotations

import math
from collections.abc import Iterable


def exact_sum(values: Iterable[float]) -> float:
    """The sum, rounded once: so it does not depend on the order."""
    values = list(values)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond all floats on the way, or Inf and -Inf
        return sum(values)
