"""The samples of one child, described by their shape and label values, for which a metric object gets cells.

`prometheus_client` constructs one value object per sample (16 for a default histogram). All samples of one child share
one `Key`, one run of cells and one journal record.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prometheus_client.utils import floatToGoString

from . import exact

LIVE_MODES = frozenset(("liveall", "livemin", "livemax", "livesum", "livemostrecent"))
MOST_RECENT_MODES = frozenset(("mostrecent", "livemostrecent"))
STATE_TYPES = ("info", "stateset")
"""The types of families whose values are times; see `client.info_enum`."""
STATE_MODE = "max"
"""How times of several processes are folded."""
EACH_MODES = ("all", "liveall")
MODES = LIVE_MODES | {mode.removeprefix("live") for mode in LIVE_MODES}
_modes: dict[str, None] = {}
"""The modes that any child of this process has."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(eq=False)
class Shape:
    """All that the children of one metric have in common; get it with `shape_of`, equal ones are the same object.

    labelnames: sorted, without a bucket's ``le``.
    samples: (sample name, variant) for each value of a child, in order; the variant is a bucket's upper bound, or ''.
    stamped: whether a value has a timestamp's cell right before it. cells: how many a child takes.
    zero_shows: whether a child that its process has never touched changes a scrape.
    keys: by label values, the keys of each child, nearly always one; shared with shapes that differ in samples only.
    """

    family: str
    type: str
    mode: str
    labelnames: tuple[str, ...]
    samples: tuple[tuple[str, str], ...]
    stamped: bool = field(init=False)
    cells: int = field(init=False)
    zero_shows: bool = field(init=False)
    keys: dict[tuple[str, ...], Key | list[Key]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.stamped = self.mode in MOST_RECENT_MODES
        self.cells = len(self.samples) * (2 if self.stamped else 1)
        self.zero_shows = self.type == "gauge" and not self.stamped
        self.keys = _keys.setdefault((self.family, self.type, self.mode, self.labelnames), {})

    def child(self, labelvalues: tuple[str, ...]) -> tuple[object, ...]:
        """Return what identifies a child for a removal, whatever its mode and its samples."""
        return self.family, self.type, self.labelnames, labelvalues


Samples = tuple[tuple[str, str], ...]
Key = tuple[Shape, tuple[str, ...]]
Family = tuple[str, str, str]
"""(name, type, mode)"""

_shapes: dict[tuple[object, ...], Shape] = {}
_keys: dict[tuple[str, str, str, tuple[str, ...]], dict[tuple[str, ...], Key | list[Key]]] = {}
"""`Shape.keys` by family, type, mode and label names."""


class Metadata(NamedTuple):
    """The metadata of a family. made: when it last changed, in seconds since the epoch."""

    help: str
    made: float | None
    unit: str
    registered: bool | None


_BY_VALUE: dict[str, Callable[[Any], object]] = {"help": exact.help_text, "unit": exact.name, "registered": bool}

metadata: dict[Family, Metadata] = {}
"""The newest metadata of each family that this process has made; forked processes inherit it."""


class _News:
    """count: how often the metadata of any family has changed."""

    count = 0


news = _News()


def describe(family: Family, *, overrules: bool = False, **said: Any) -> None:
    """Change fields of a family's `Metadata`, if they are news. Raises what `exact.text` raises.

    overrules: whether this family's mode wins, even if the process has declared the family in another mode since.
    """
    said = {name: _BY_VALUE[name](value) for name, value in said.items()}
    known = metadata.get(family) or Metadata("", None, "", None)
    is_news = any(getattr(known, name) != value for name, value in said.items()) or known.made is None
    if is_news or (overrules and _is_overruled(family, known)):
        metadata[family] = known._replace(made=exact.system_now(), **said)
        news.count += 1


def _is_overruled(family: Family, known: Metadata) -> bool:
    others = (about.made for one, about in metadata.copy().items() if one[:2] == family[:2] and one != family)
    return any(made is not None and known.made is not None and made > known.made for made in others)


def family_of(metric: Any) -> Family:
    """Return the family of one of `prometheus_client`'s metrics."""
    mode = getattr(metric, "_multiprocess_mode", STATE_MODE if metric._type in STATE_TYPES else "")
    return exact.name(metric._name), exact.name(metric._type), exact.name(mode)


def shape_of(family: Family, labelnames: tuple[str, ...], samples: Samples) -> Shape:
    """Return the only Shape object with these fields, so that keys can be compared by identity."""
    parts = (family, labelnames, samples)
    _modes[family[2]] = None
    return _shapes.get(parts) or _shapes.setdefault(parts, Shape(*family, labelnames, samples))


def place_samples(family: Family, labels: dict[str, str], samples: Samples) -> list[tuple[Key, int]]:
    """Return the key of each sample of a child and its position in it.

    If another metric object of this process has a sample already, both objects count in one cell. So a second histogram
    of the same name but with other buckets shares the sum, and adds its own buckets.
    """
    names, values = _sorted(labels)
    keys = _keys_of(_keys.get((*family, names), {}), values)
    known = {sample: (key, place) for key in keys for place, sample in enumerate(key[0].samples)}
    fresh = tuple(dict.fromkeys(sample for sample in samples if sample not in known))
    if fresh:
        key = (shape_of(family, names, fresh), values)
        remember(key)
        known.update((sample, (key, place)) for place, sample in enumerate(fresh))
    return [known[sample] for sample in samples]


def sole_key(family: Family, labels: dict[str, str], samples: Samples) -> Key | None:
    """Return the key of a child if these are all of its samples; None if another object has made it with others."""
    names, values = _sorted(labels)
    key = (shape_of(family, names, samples), values)
    remember_new(key)
    return key if _keys_of(key[0].keys, values) == [key] else None


def _sorted(labels: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the label names of a child, sorted, and their values."""
    names = tuple(sorted(labels))
    return names, tuple([joined(labels[name]) for name in names])


def _keys_of(keys: dict[tuple[str, ...], Key | list[Key]], values: tuple[str, ...]) -> list[Key]:
    """Return the keys that this process has for a child."""
    found = keys.get(values, [])
    return found if isinstance(found, list) else [found]


def keys_of(family: str, typ: str, labels: dict[str, str]) -> list[Key]:
    """Return the keys that this process has for a child, in whatever mode it was made."""
    return _of_any_mode(family, typ, *_sorted(labels))


def siblings_of(key: Key) -> list[Key]:
    """Return the keys that this process has for the child of a key, in any mode, this key included."""
    return _of_any_mode(key[0].family, key[0].type, key[0].labelnames, key[1])


def _of_any_mode(family: str, typ: str, names: tuple[str, ...], values: tuple[str, ...]) -> list[Key]:
    of_modes = [_keys.get((family, typ, mode, names), {}) for mode in _modes.copy()]
    return [key for keys in of_modes for key in _keys_of(keys, values)]


def remember(key: Key) -> None:
    """Note a key, even if its child was removed: a metric object may still use it."""
    shape, values = key
    if not remember_new(key) and key not in (keys := _keys_of(shape.keys, values)):
        shape.keys[values] = [*keys, key]


def remember_new(key: Key) -> bool:
    """Note a key if this process has none for its child; False if it has one."""
    return key[0].keys.setdefault(key[1], key) is key


def forget(keys: Iterable[Key]) -> None:
    """Forget keys that this process does not use any more."""
    for key in keys:
        shape, values = key
        left = [one for one in _keys_of(shape.keys, values) if one != key]
        shape.keys.pop(values, None)
        if left:
            shape.keys[values] = left


def forget_infos(keys: Iterable[Key]) -> None:
    """Forget the shapes of label sets that an Info no longer has: each label set has a shape of its own."""
    for shape, _ in keys:
        if shape.type == "info":
            _shapes.pop(((shape.family, shape.type, shape.mode), shape.labelnames, shape.samples), None)


@functools.cache
def upper_bound(text: str) -> str:
    """Return a bucket's bound as the exposition shows it."""
    return str(floatToGoString(float(text) + 0.0))  # type: ignore[no-untyped-call]  # -0.0 is 0.0


def is_last(typ: str, metric_name: str, name: str, bound: str) -> bool:
    """Whether this value is the last of its child, in the order in which `prometheus_client` makes them."""
    if typ == "histogram":
        return bound == "+Inf"
    if typ == "summary":
        return name == metric_name + "_sum"
    return True


def joined(text: str) -> str:
    """Join surrogates that form a pair, as JSON does: to any reader they are one character."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    whole: str = json.loads(json.dumps(text))
    return whole


def canonical_labels(names: Iterable[str], values: Iterable[str]) -> str:
    """Return the JSON object of a label set: keys sorted, readable, and the same text for the same labels.

    Lone surrogates, which SQLite's text cannot hold, stay as JSON escapes.
    """
    labels = dict(zip(names, map(joined, values), strict=True))
    # As compact as the output of SQLite's JSON functions, which add to it in the views.
    text = json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def label_set(text: str) -> dict[str, str]:
    """Return the labels of a JSON object. Raises ValueError if it is something else."""
    return checked_label_set(json.loads(text), text)


def checked_label_set(labels: Any, text: str) -> dict[str, str]:
    """Return what was read from a text if it is a label set. Raises ValueError if it is something else."""
    if type(labels) is not dict or not set(map(type, labels.values())) <= {str}:
        raise ValueError(f"{text!r} is no label set")
    return labels
