"""The records of a journal, in which a process announces itself, its families, its children and its exemplars.

Times are seconds since the epoch, None if unknown. In the text of a journal, the times of processes and families are
whole nanoseconds, 0 if unknown.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from json.encoder import encode_basestring as quote
from typing import NamedTuple

from .shape import STATE_MODE, STATE_TYPES, Shape, canonical_labels


class ProcessRecord(NamedTuple):
    """The process that writes this journal; always the first record.

    lost: earlier instances of this process in the store of that id, which have lost their cells. Their values are in
    this instance's cells now.
    """

    pid: str
    os_pid: int
    pid_namespace: int
    started: float | None
    store: str
    lost: list[int]


class FamilyRecord(NamedTuple):
    """A metric family; written again whenever its metadata changes. made: when it changed.

    registered: whether it is in the default registry; None: unknown.
    """

    name: str
    type: str
    mode: str
    help: str
    made: float | None
    unit: str
    registered: bool | None


class ChildRecord(NamedTuple):
    """The samples of one child and their cells: `cell` is the first value's, the others follow in order.

    created: when its process made it.
    """

    family: str
    type: str
    stamped: bool
    labelnames: list[str]
    names: list[str]
    variants: list[str]
    labelvalues: list[str]
    cell: int
    created: float

    def labels(self) -> str:
        """Return the labels as canonical JSON, without the one in the variant (a bucket's ``le``)."""
        return _labels(tuple(self.labelnames), tuple(self.labelvalues))

    def stand_in(self) -> FamilyRecord:
        """Return a record of the family for readers that have no sound one. Any sound one overrules it."""
        modes = {"gauge": "mostrecent" if self.stamped else "all"} | dict.fromkeys(STATE_TYPES, STATE_MODE)
        return FamilyRecord(self.family, self.type, modes.get(self.type, ""), "", None, "", None)

    def samples(self) -> Iterator[tuple[str, str, int]]:
        """Yield (sample name, variant, cell) of each sample."""
        cells = range(self.cell, self.cell + 2 * len(self.names), 2 if self.stamped else 1)
        return zip(self.names, self.variants, cells, strict=False)


class ExemplarRecord(NamedTuple):
    """An exemplar of one sample. exemplar: its own labels; value: the amount that was observed."""

    family: str
    type: str
    labelnames: list[str]
    name: str
    variant: str
    labelvalues: list[str]
    exemplar: dict[str, str]
    value: float
    timestamp: float

    def series(self) -> tuple[str, str, str, str, str]:
        """Return (family, type, labels as canonical JSON, sample name, variant)."""
        labels = _labels(tuple(self.labelnames), tuple(self.labelvalues))
        return self.family, self.type, labels, self.name, self.variant


@functools.lru_cache(10_000)  # processes of one app have the same labels
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not "".join(values).isascii():
        return canonical_labels(names, values)
    beginnings = _beginnings(names)
    return "{" + ",".join([text + quote(values[place]) for place, text in beginnings]) + "}"


@functools.lru_cache(1_000)
def _beginnings(names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return (place of the value, text before it) of each label, in the order of `canonical_labels`."""
    places = sorted(range(len(names)), key=names.__getitem__)
    return [(place, canonical_labels([names[place]], [""])[1:-3]) for place in places]


_SECOND = 1_000_000_000
"""In nanoseconds."""
Record = ProcessRecord | FamilyRecord | ChildRecord | ExemplarRecord


def unknown_process(instance: int) -> ProcessRecord:
    """Return the stand-in for a process's own record that makes no sense."""
    return ProcessRecord(f"unknown-{instance}", 0, 0, None, "", [])


def nanoseconds(time: float | None) -> int:
    """Return a time as journals have it: whole nanoseconds, 0 for None."""
    if time is None:
        return 0
    seconds, fraction = divmod(time, 1.0)  # a product would have more digits than a double
    return int(seconds) * _SECOND + round(fraction * _SECOND)


def from_nanoseconds(time: int) -> float | None:
    """Return the inverse of `nanoseconds`; a double resolves some 250 ns."""
    return time / _SECOND if time else None  # a quotient of two integers, so only the result is rounded


def is_older(made: float | None, than: float | None) -> bool:
    """Whether one time is before another; None is before all."""
    return than is not None and (made is None or made < than)


def process_record(record: ProcessRecord) -> str:
    """The JSON of a process record."""
    texts = json.encoder.encode_basestring_ascii
    pid, os_pid, pid_namespace, started, store, lost = record
    return f'["process", {texts(pid)}, {os_pid}, {pid_namespace}, {nanoseconds(started)}, {texts(store)}, {lost}]'


@functools.lru_cache(1_000)  # processes that are forked say what their parent said
def family_record(record: FamilyRecord) -> str:
    """The JSON of a family record."""
    return json.dumps(["family", *record._replace(made=nanoseconds(record.made))])


@functools.lru_cache(10_000)
def exemplar_record(shape: Shape, position: int) -> str:
    """The JSON of an exemplar's record up to the label values: the same for all of a sample of a metric's children."""
    record = ["exemplar", shape.family, shape.type, shape.labelnames, *shape.samples[position]]
    return json.dumps(record)[:-1] + ", "


@functools.lru_cache(10_000)
def child_record(shape: Shape) -> str:
    """The JSON of a child record up to its label values: the same for all children of a metric."""
    names, variants = zip(*shape.samples, strict=True)
    return json.dumps(["child", shape.family, shape.type, shape.stamped, shape.labelnames, names, variants])[:-1] + ", "
