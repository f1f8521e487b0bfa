"""Checks that each record of a journal makes sense, so that readers can leave out those that do not.

Such a record may come from a bug, a newer version, or garbled memory. A record that passes these checks can fail
neither in SQLite nor in a scrape, which hands it to `prometheus_client`'s classes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from prometheus_client.metrics_core import METRIC_TYPES

from .records import ChildRecord, ExemplarRecord, FamilyRecord, ProcessRecord, Record, from_nanoseconds
from .shape import MODES, STATE_MODE, STATE_TYPES

T = TypeVar("T", bound=Record)
Check = Callable[[Any], bool]

_ANY_MODE = frozenset(("", *MODES))
_MODES_OF: dict[str, frozenset[str]] = dict.fromkeys(METRIC_TYPES, _ANY_MODE) | {
    "gauge": frozenset(MODES),
    **dict.fromkeys(STATE_TYPES, frozenset((STATE_MODE,))),
}
"""The modes that a family of each type can have."""
_NESTED = 100
"""A record with fewer brackets than this is not nested too deep to be read."""
_SHOWN = 200
"""Characters of a record that a message shows."""


class NonsenseError(ValueError):
    """A record that makes no sense, or none to this version."""


def decode(payload: bytes) -> Record:
    """Read a record from the JSON of its frame. Raises NonsenseError."""
    try:
        text = payload.decode("ascii")
        record = _like_another(text) or _any(text)
    except NonsenseError:
        raise
    except RecursionError:
        if payload.count(b"[") + payload.count(b"{") < _NESTED:
            raise  # the reader's own stack has no room
        record = None
    except (ValueError, TypeError, ArithmeticError):  # of JSON, or in one of the checks
        record = None
    if record is None:
        raise NonsenseError(f"a record that makes no sense: {_shown(payload)}")
    return record


def _any(text: str) -> Record | None:
    kind, *fields = json.loads(text)
    if kind not in _KINDS:
        raise NonsenseError(f"a record of a kind that this version does not know: {_shown(text.encode())}")
    record = _KINDS[kind](fields)
    if isinstance(record, ChildRecord):
        _remember(text, record)
    return record


_beginnings: dict[str, tuple[str, list[Any]]] = {}
"""The beginning of each metric's last child record, and its fields: all children of a metric have them in common.

The key is the text up to the label names, so there is one entry for each metric.
"""
_MOST_BEGINNINGS = 10_000


def _like_another(text: str) -> ChildRecord | None:
    """Read a child's record if another child of its metric was read before; None for other records, or nonsense."""
    beginning, fields = _beginnings.get(text[: text.find("[", 1)], (None, ()))
    if beginning is None or not text.startswith(beginning):
        return None
    rest = json.loads("[" + text[len(beginning) :])
    return _complete(ChildRecord(*fields, *rest))


def _remember(text: str, record: ChildRecord) -> None:
    fields = [*record[:6]]
    beginning = json.dumps(["child", *fields])[:-1] + ", "
    if text.startswith(beginning):
        if len(_beginnings) >= _MOST_BEGINNINGS:
            _beginnings.clear()
        _beginnings[text[: text.find("[", 1)]] = beginning, fields


class Decoder:
    """Reads records of many journals as `decode` does, but faster, as the processes of one app write the same texts.

    A child's cell and time differ from process to process, and come last. So each text before them is read once, and
    all children with that text share its lists.
    """

    def __init__(self) -> None:
        self._children: dict[bytes, ChildRecord] = {}
        self._families: dict[bytes, Record] = {}

    def __call__(self, payload: bytes) -> Record:
        """Read one record. Raises NonsenseError."""
        if not payload.startswith(_CHILD):
            return self._other(payload)
        head, cell, created = [*payload.rsplit(b", ", 2), b"", b""][:3]
        if not (_CELL.fullmatch(cell) and _CREATED.fullmatch(created)):
            return decode(payload)
        known = self._children.get(head)
        if known is not None:
            return ChildRecord._make((*known[:7], int(cell), float(created[:-1])))
        record = decode(payload)
        if isinstance(record, ChildRecord):
            self._children[head] = record
        return record

    def _other(self, payload: bytes) -> Record:
        found = self._families.get(payload) or decode(payload)
        if isinstance(found, FamilyRecord):
            self._families[payload] = found
        return found


# A whole number and a float in JSON, with so few digits that `decode` would accept them, too.
_CELL = re.compile(rb"0|[1-9][0-9]{0,9}")
_CREATED = re.compile(rb"(?:0|[1-9][0-9]{0,11})\.[0-9]{1,20}\]")
_CHILD = b'["child", '


def _shown(payload: bytes) -> str:
    return payload[:_SHOWN].decode("ascii", "backslashreplace")


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_name(value: Any) -> bool:
    return type(value) is str and (value.isascii() or _is_storable(value)) and value != ""


def _is_storable(value: str) -> bool:
    value.encode()  # SQLite's text has no lone surrogates; an error is a ValueError
    return True


def _are_texts(value: Any) -> bool:
    return type(value) is list and set(map(type, value)) <= {str}


def _are_label_names(value: Any) -> bool:
    return _are_texts(value) and len(set(value)) == len(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _are_whole(value: Any) -> bool:
    return type(value) is list and all(map(_is_whole, value))


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and math.isfinite(value))


def _is_time(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_flag_or_none(value: Any) -> bool:
    return value is None or type(value) is bool


def _is_type(value: Any) -> bool:
    return type(value) is str and value in _MODES_OF


def _is_label_set(value: Any) -> bool:
    return type(value) is dict and _are_texts(list(value.values()))


def _process(fields: list[Any]) -> ProcessRecord | None:
    checks = (_is_text, _is_whole, _is_whole, _is_whole, _is_text, _are_whole)
    if not _fit(checks, fields):
        return None
    record = ProcessRecord(*fields)
    return record._replace(started=from_nanoseconds(fields[3]))


def _family(fields: list[Any]) -> FamilyRecord | None:
    checks = (_is_name, _is_type, _is_text, _is_text, _is_whole, _is_text, _is_flag_or_none)
    if not _fit(checks, fields):
        return None
    record = FamilyRecord(*fields)._replace(made=from_nanoseconds(fields[4]))
    return record if record.mode in _MODES_OF[record.type] and _is_storable(record.unit) else None


def _child(fields: list[Any]) -> ChildRecord | None:
    record = ChildRecord(*fields)
    lists = record.labelnames, record.names, record.variants
    is_shape = set(map(type, lists)) == {list} and _is_shape(*record[:3], *map(tuple, lists))
    return _complete(record) if is_shape else None


def _complete(record: ChildRecord) -> ChildRecord | None:
    """Return the record of a child if the fields that differ from child to child make sense; else None."""
    _, _, _, labelnames, _, _, labelvalues, cell, created = record
    makes_sense = (
        _are_texts(labelvalues) and len(labelvalues) == len(labelnames) and _is_whole(cell) and _is_time(created)
    )
    if makes_sense and type(created) is int:
        record = record._replace(created=float(created))
    return record if makes_sense else None


@lru_cache(10_000)  # all children of a metric have the same
def _is_shape(
    family: Any,
    type_: Any,
    stamped: Any,
    labelnames: tuple[Any, ...],
    names: tuple[Any, ...],
    variants: tuple[Any, ...],
) -> bool:
    """Whether the fields that all children of a metric share make sense. May raise ValueError if they do not."""
    return (
        _is_name(family)
        and _is_type(type_)
        and _is_flag(stamped)
        and _are_label_names(list(labelnames))
        and len(names) == len(variants) > 0
        and all(map(_is_name, names))
        and _are_texts(list(variants))
        and all(_is_variant(type_, variant) for variant in variants)
    )


def _exemplar(fields: list[Any]) -> ExemplarRecord | None:
    checks = (_is_name, _is_type, _are_label_names, _is_name, _is_text, _are_texts, _is_label_set, _is_number, _is_time)
    if not _fit(checks, fields):
        return None
    record = ExemplarRecord(*fields)
    if len(record.labelnames) != len(record.labelvalues) or not _is_variant(record.type, record.variant):
        return None
    return record._replace(value=float(record.value), timestamp=float(record.timestamp))


_KINDS: dict[str, Callable[[list[Any]], Record | None]] = {
    "process": _process,
    "family": _family,
    "child": _child,
    "exemplar": _exemplar,
}


def _fit(checks: tuple[Check, ...], fields: list[Any]) -> bool:
    return len(fields) == len(checks) and all(check(field) for check, field in zip(checks, fields, strict=True))


def _is_variant(type_: str, variant: str) -> bool:
    """Whether a sample of a family of that type can have that variant. May raise ValueError if it cannot."""
    if type_ == "histogram":
        return variant == "" or float(variant) is not None
    if type_ == "info":
        return _is_storable(variant) and _is_label_set(json.loads(variant))
    return _is_storable(variant) if type_ == "stateset" else variant == ""
