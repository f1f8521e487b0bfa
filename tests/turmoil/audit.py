"""Compares a scrape with the account."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from .ledger import BY_SEAT, FILES, GONE, LIVES, NOBODY, ROOM, SEATS, SHARED, Ledger, Snapshot

_LINE = re.compile(r"^(turmoil_\w+?)(?:\{([^}]*)\})? ([-+\w.]+)", re.MULTILINE)
_PER_OPERATION = {"turmoil_seconds_sum": 0.5, "turmoil_size_sum": 2.0}
_FAMILY_OF = {
    "turmoil_seat_total": "seat",
    "turmoil_seconds_count": "seconds",
    "turmoil_seconds_sum": "seconds",
    "turmoil_seconds_bucket": "seconds",
    "turmoil_size_count": "size",
    "turmoil_size_sum": "size",
}
_COUNTERS = ("_total", "_count", "_sum", "_bucket")
_IRREGULAR = ("turmoil_gone_total", "turmoil_noise_total")
"""Counters that are removed now and then."""

Values = dict[tuple[str, str], float]


def parse(text: str) -> Values:
    """{(sample name, labels as text): value} of our families."""
    return {(name, ",".join(sorted(labels.split(",")))): float(value) for name, labels, value in _LINE.findall(text)}


class Auditor:
    """One reader of the store: what it saw last, and what was wrong with it."""

    def __init__(self, ledger: Ledger, name: str):
        self._ledger, self._name = ledger, name
        self._last: Values = {}
        self._complained: set[str] = set()

    def scrape(self, read: Callable[[], str]) -> Values | None:
        """Scrape, and compare; None if it failed or was made in times of trouble."""
        before = self._ledger.snapshot()
        try:
            text = read()
        except Exception as error:
            if same_turn(before, self._ledger.snapshot(), FILES):
                self._complain("failed", repr(error))
            self._ledger.say("scrape failed", self._name, repr(error))
            return None
        values, after = parse(text), self._ledger.snapshot()
        is_calm = same_turn(before, after, FILES, ROOM)
        for what in differences(values, before, after, is_calm=is_calm):
            self._complain(*what)
        if same_turn(before, after, FILES):
            self._compare_with_last(values)
        self._ledger.say("scraped", self._name, is_calm)
        return values if is_calm else None

    def _compare_with_last(self, values: Values) -> None:
        for key, number in self._last.items():
            if values.get(key, 0.0) < number:
                self._complain("back", *key, number, values.get(key))
        self._last = {
            key: number
            for key, number in values.items()
            if key[0].endswith(_COUNTERS) and not key[0].startswith(_IRREGULAR)
        }

    def _complain(self, *what: object) -> None:
        if str(what[:3]) not in self._complained:  # the next scrape shows the same
            self._complained.add(str(what[:3]))
            self._ledger.say("WRONG", self._name, *what)


def same_turn(before: Snapshot, after: Snapshot, *which: int) -> bool:
    """Whether there was no such trouble between two copies of the account."""
    return before.turn(*which) is not None and before.turn(*which) == after.turn(*which)


def differences(values: Values, before: Snapshot, after: Snapshot, *, is_calm: bool) -> Iterator[tuple[object, ...]]:
    """What of a scrape is not between what was done before it and what was begun by its end.

    is_calm: if not, it may show less, but never more.
    """
    for what, value, low, high in _expected(values, before, after):
        if value > high or (is_calm and value < low):
            yield "not between", *what, value, low, high


def _expected(
    values: Values, before: Snapshot, after: Snapshot
) -> Iterator[tuple[tuple[object, ...], float, float, float]]:
    by_seat = counts_by_seat(values)
    for column in BY_SEAT:
        for seat in range(SEATS):
            low, high = before.done(column, seat), after.begun(column, seat)
            for name, value in by_seat.get((column, seat), {"nothing": 0.0}).items():
                yield (column, seat, name), value, low, high
    for number, column in enumerate(SHARED):
        value = values.get(("turmoil_shared_total", f'path="/{number}"'), 0)
        yield (column,), value, before.done(column), after.begun(column)
    yield ("plain",), values.get(("turmoil_plain_total", ""), 0), before.done("plain"), after.begun("plain")
    fresh = sum(value for (name, _), value in values.items() if name == "turmoil_fresh_total")
    yield ("fresh",), fresh, before.done("fresh"), after.begun("fresh")
    yield ("top",), values.get(("turmoil_top", ""), 0), before.greatest()[0], after.greatest()[1]
    yield ("lives",), values.get(("turmoil_lives", ""), 0), *_living(before, after)
    for number, column in enumerate(GONE):
        turn, low, high = before.removal(number)
        if turn == after.removal(number)[0] and turn % 2 == 0:
            value = values.get(("turmoil_gone_total", f'number="{number}"'), 0)
            yield (column, turn), value, before.done(column) - high, after.begun(column) - low


def counts_by_seat(values: Values) -> dict[tuple[str, int], dict[str, float]]:
    """{(column, seat): {sample: the number of operations that it tells}}."""
    found: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for (name, labels), value in values.items():
        if (column := _FAMILY_OF.get(name)) and 'le="0.1"' not in labels:
            seat = int(labels.partition('seat="')[2].partition('"')[0])
            found[column, seat][f"{name} {labels}"] = value / _PER_OPERATION.get(name, 1)
    return found


def _living(before: Snapshot, after: Snapshot) -> tuple[int, int]:
    """How many processes have lived all along, and at any time."""
    pairs = list(zip(before.lives(), after.lives(), strict=True))
    return (
        sum(one == other and one[1] == LIVES for one, other in pairs),
        sum(other[0] - one[0] + (one[1] != NOBODY) for one, other in pairs),
    )
