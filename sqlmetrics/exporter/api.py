"""The data for the page: each question is a method, by its name in `QUESTIONS`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..outside.examined import findings
from ..outside.sights import distribution, rates
from ..outside.sizes import cardinality
from ..outside.values import Distribution
from ..version import __version__
from . import lately, search
from .history import History
from .questions import Given, RequestError, labels, wanted
from .watched import Watched

_GREEDIEST = 12


class Api:
    """Answers the page's questions about one store."""

    def __init__(self, store: Watched):
        self._store = store
        self.history = History(store)

    def ask(self, name: str, given: Given) -> Any:
        """Return the answer to a question as plain data. Raises RequestError, and what `Look` does."""
        question = QUESTIONS.get(name)
        if question is None:
            raise RequestError(f"there is no {name!r}; there are {', '.join(QUESTIONS)}")
        return question(self, given)

    def now(self, _: Given) -> Any:
        """Return the processes, the families, and the busiest series with their rates over the last minutes."""
        kept = self.history.kept()
        last, before = kept[-1], lately.some_time_ago(kept)
        found, is_first = rates(before, last), before is last
        return {
            "store": self._store.place(),
            "version": __version__,
            "at": last.at,
            "since": kept[0].at,
            **lately.processes(found, is_first=is_first),
            "ended": lately.ended(kept),
            "families": [
                {"name": one.name, "type": one.type, "series": one.series, "rate": None if is_first else one.per_second}
                for one in found.families
            ],
            "series": last.numbers(),
            "busiest": [] if is_first else lately.busiest(kept),
        }

    def histogram(self, given: Given) -> Any:
        """Return a histogram's observations from look to look, by bucket, and their quantiles."""
        family = wanted(given, "family"), "histogram"
        kept = [one for one in self.history.kept() if family in one.columns]
        if not kept:
            raise RequestError(f"there is no histogram {family[0]!r}")
        column, steps = kept[-1].columns[family], lately.observed(kept, family)
        bounds = list(column.of.buckets)
        return {
            "bounds": bounds,
            "times": [at for at, _, _ in steps],
            "rates": [[n / seconds for n in _by_bound(of, bounds)] for _, seconds, of in steps],
            "quantiles": {name: [of.quantile(q) for _, _, of in steps] for name, q in search.QUANTILES.items()},
            "ever": search.summary(distribution(column.of, column.values)),
        }

    def search(self, given: Given) -> Any:
        """Return series by words or a pattern, with their values now."""
        return search.found(self._store.look(), given.get("q", ""))

    def series(self, given: Given) -> Any:
        """Return the exact part that each process has of a series, and the last minutes of the series."""
        family, name, own = wanted(given, "family"), wanted(given, "name"), labels(given)
        found = search.of_processes(self._store.look(), family, name, own)
        return {"processes": found, **lately.series(self.history.kept(), family, (name, f"{name}_count"), own)}

    def cardinality(self, _: Given) -> Any:
        """Return the largest families with their numbers of series and label values."""
        found = cardinality(self._store.look())[0]
        return {
            "series": sum(one.series for one in found),
            "families": found[:_GREEDIEST],
            "others": max(len(found) - _GREEDIEST, 0),
        }

    def health(self, _: Given) -> Any:
        """Return what `sqlmetrics check` finds."""
        return {"at": time.time(), "findings": findings(self._store.place())}


QUESTIONS: dict[str, Callable[[Api, Given], Any]] = {
    "now": Api.now,
    "histogram": Api.histogram,
    "search": Api.search,
    "series": Api.series,
    "cardinality": Api.cardinality,
    "health": Api.health,
}


def _by_bound(of: Distribution, bounds: Sequence[float]) -> list[float]:
    """Return what each bucket has by itself, by these bounds; a child may have other bounds than before."""
    found = dict(zip((bound for bound, _ in of.buckets), of.densities(), strict=True))
    return [found.get(bound, 0.0) for bound in bounds]
