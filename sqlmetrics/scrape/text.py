"""Writes the exposition text without making and formatting a `Sample` for each line.

The text before a value is the same from one scrape to the next, so it is written once. `prometheus_client`'s own
encoders write it, so that each format and escaping scheme is exactly theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, compress
from operator import itemgetter
from typing import Any, NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from ..rows.ingest import storable
from .families import FamilySamples
from .plan import Family, FamilyId, Gauge, Line, Lines

Encoder = Callable[[Any], bytes]
"""One of `prometheus_client`'s functions that make text from a registry."""
_FORMATS = 8
"""The most formats of which texts are kept, as a client may ask for any version."""
_PROBE = Family("x", "counter", "", "", 0)
"""A family to try out a format with."""
_GO_EXPONENT = 1e6
"""From here on Go writes numbers with an exponent."""


class _Kept(NamedTuple):
    """The texts before the values of a family, and the generation of its lines that they are for."""

    generation: int
    prefixes: list[str]


class _Form(NamedTuple):
    """The text before the value of samples with the same name and label names.

    text: has `%s` for each label's value. quotes: how many it has. takes_any: whether values can be put into it.
    """

    text: str
    quotes: int
    values_of: Callable[[dict[str, str]], Any]
    takes_any: bool


class Texts:
    """The texts before the values, in one format."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder
        self._end = encoder(Families([])).decode()
        self._has_exemplars = " # {" in self._encode(_PROBE, [Sample("x_total", {}, 0.0, None, Exemplar({}, 0.0, 0.0))])
        self._heads: dict[FamilyId, tuple[Family, str]] = {}
        self._forms: dict[tuple[str, ...], _Form] = {}
        self._lines: dict[Lines, _Kept] = {}
        self._gauges: dict[tuple[Gauge, str | None], str] = {}
        self._last: dict[FamilyId, tuple[list[tuple[Gauge, str | None]], list[str]]] = {}
        """By family of gauges: the keys of the lines that were written last, and the texts before their values."""

    def text(self, shown: list[FamilySamples]) -> bytes:
        """Return the exposition."""
        pieces: list[str] = []
        used = 0
        for one in shown:
            pieces.append(self._head(one.family))
            numbers = _numbers(one.values)
            if one.exemplars and self._has_exemplars:
                self._add_exemplars(one, numbers)
            pieces += chain.from_iterable(zip(self._prefixes(one), numbers, strict=True))
            pieces.append("\n")
            used += len(one.keys or ())
        if len(self._gauges) > 2 * used + 1000:
            self._gauges.clear()  # most are of processes that are gone
        pieces.append(self._end)
        return "".join(pieces).encode()

    def _head(self, family: Family) -> str:
        known = self._heads.get(family[:2])
        if known is None or known[0] != family:
            known = self._heads[family[:2]] = (family, self._encode(family, []).removesuffix("\n"))
        return known[1]

    def _prefixes(self, shown: FamilySamples) -> Iterable[str]:
        if shown.source is not None:
            source, chosen = shown.source
            kept = self._of_lines(shown.family, source)
            return kept if chosen is None else compress(kept, chosen)
        if shown.keys is not None:
            return self._of_gauges(shown.family, shown.keys)
        return self._write(shown.family, shown.lines)

    def _of_lines(self, family: Family, source: Lines) -> list[str]:
        kept = self._lines.get(source)
        if kept is None or kept.generation != source.generation:
            kept = self._lines[source] = _Kept(source.generation, [])
        if len(kept.prefixes) < len(source.lines):
            kept.prefixes.extend(self._write(family, source.lines[len(kept.prefixes) :]))
        return kept.prefixes

    def _of_gauges(self, family: Family, keys: list[tuple[Gauge, str | None]]) -> list[str]:
        last = self._last.get(family[:2])
        if last is not None and last[0] is keys:
            return last[1]
        fresh = [key for key in keys if key not in self._gauges]
        if fresh:
            lines = [gauge.line(pid) for gauge, pid in fresh]
            self._gauges.update(zip(fresh, self._write(family, lines), strict=True))
        found = [self._gauges[key] for key in keys]
        self._last[family[:2]] = (keys, found)
        return found

    def _write(self, family: Family, lines: Sequence[Line]) -> list[str]:
        """Return the text before the value of each line, beginning with the end of the line before."""
        written = [self._filled(family, line) for line in lines]
        odd = [number for number, text in enumerate(written) if text is None]
        if odd:
            for number, text in zip(odd, self._encoded(family, [lines[number] for number in odd]), strict=True):
                written[number] = text
        return written  # type: ignore[return-value]

    def _filled(self, family: Family, line: Line) -> str | None:
        """Return that text of one line, made from its form; None if the encoder would escape anything."""
        name, labels = line
        key = (family.name, family.type, name, *labels)
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = self._form(family, line)
        if not form.takes_any:
            return None
        text = form.text % form.values_of(labels) if labels else form.text
        is_plain = text.isascii() and "\\" not in text and text.count('"') == form.quotes and text.find("\n", 1) < 0
        return text if is_plain else None

    def _form(self, family: Family, line: Line) -> _Form:
        marks = {label: f"\1{number}\1" for number, label in enumerate(line.labels)}
        (text,) = self._encoded(family, [Line(line.name, marks)])
        order = sorted(line.labels, key=lambda label: text.find(marks[label]))
        text = text.replace("%", "%%")
        for mark in marks.values():
            text = text.replace(mark, "%s")
        takes_any = text.count("%s") == len(order) and "\1" not in text
        return _Form(text, text.count('"'), itemgetter(*order) if order else dict, takes_any)

    def _encoded(self, family: Family, lines: Sequence[Line]) -> list[str]:
        """Return the texts of some lines, made by the encoder."""
        text = self._encode(family, [Sample(name, labels.copy(), 0.0) for name, labels in lines])
        written = text.split("\n")[-1 - len(lines) : -1]
        if not all(line.endswith(" 0.0") for line in written):
            raise RuntimeError(f"prometheus_client writes samples in a way that is not known: {text[:200]!r}")
        return ["\n" + line.removesuffix("0.0") for line in written]

    def _add_exemplars(self, shown: FamilySamples, numbers: list[str]) -> None:
        """Add to values with an exemplar what the encoder writes after them."""
        lines = [(shown.lines[number].name, exemplar) for number, exemplar in shown.exemplars.items()]
        # That depends on neither labels nor value of the sample, so all are written with the same short beginning.
        bare = self._encode(shown.family, [Sample(lines[0][0], {}, 0.0)])
        text = self._encode(shown.family, [Sample(name, {}, 0.0, None, exemplar) for name, exemplar in lines])
        beginning = bare.split("\n")[-2]
        written = text.split("\n")[-1 - len(lines) : -1]
        for number, line in zip(shown.exemplars, written, strict=True):
            numbers[number] += line.removeprefix(beginning)

    def _encode(self, family: Family, samples: list[Sample]) -> str:
        metric = Metric(family.name, family.help, family.type, family.unit)
        metric.samples = samples
        try:
            text = self._encoder(Families([metric]))
        except UnicodeEncodeError:  # lone surrogates, as os.fsdecode() makes them, must not stop all scrapes
            text = self._encoder(Families([encodable(metric)]))
        return text.decode().removesuffix(self._end)


def texts(kept: dict[object, Any], encoder: Encoder) -> Texts:
    """Return what is kept for a format: an encoder with its keyword arguments."""
    key = (encoder.func, *sorted(encoder.keywords.items())) if isinstance(encoder, partial) else encoder
    if key not in kept:
        if len(kept) == _FORMATS:
            kept.clear()
        kept[key] = Texts(encoder)
    texts: Texts = kept[key]
    return texts


def encodable(metric: Metric) -> Metric:
    """Return the metric with texts that can be UTF-8."""
    found = Metric(metric.name, storable(metric.documentation), metric.type, metric.unit)
    found.samples = [_storable(one) for one in metric.samples]
    return found


def _storable(sample: Sample) -> Sample:
    if sample.exemplar is not None:
        sample = sample._replace(exemplar=sample.exemplar._replace(labels=_all_storable(sample.exemplar.labels)))
    return sample._replace(labels=_all_storable(sample.labels))


def _all_storable(labels: dict[str, str]) -> dict[str, str]:
    return {name: storable(value) for name, value in labels.items()}


class Families:
    """A registry, as far as an encoder needs one."""

    def __init__(self, metrics: list[Metric]):
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        """Return the families."""
        return self._metrics


def _numbers(values: list[float]) -> list[str]:
    low, high = float("-inf"), _GO_EXPONENT
    return [repr(value) if low < value < high else floatToGoString(value) for value in values]  # type: ignore[no-untyped-call]
