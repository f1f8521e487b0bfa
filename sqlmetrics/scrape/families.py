"""A family as a scrape shows it: its lines and their values, before they become samples or text."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from .newest import NO_EXEMPLARS
from .plan import Family, Gauge, Line, Lines


class FamilySamples(NamedTuple):
    """A family as a scrape shows it.

    lines: the wanted lines of the family; values: the value of each. source: the object that has these lines from
    scrape to scrape, and which of its lines they are (None: all); None for gauges. keys: of gauges, the gauge and pid
    of each line. exemplars: by the number of a line.
    created: if ``_created`` samples are wanted, when each child was made (seconds since the epoch), by its labels.
    """

    family: Family
    lines: Sequence[Line]
    values: list[float]
    source: tuple[Lines, list[bool] | None] | None = None
    keys: list[tuple[Gauge, str | None]] | None = None
    exemplars: Mapping[int, Exemplar] = NO_EXEMPLARS
    created: Mapping[str, float] | None = None

    def samples(self) -> list[Sample]:
        """Return `prometheus_client`'s samples. The caller may change their labels, which are copies."""
        # Like Sample(name, labels, value), but in a third of the time: a scrape has thousands of them.
        new = tuple.__new__
        samples = [
            new(Sample, (name, labels.copy(), value, None, None, None))
            for (name, labels), value in zip(self.lines, self.values, strict=True)
        ]
        for number, exemplar in self.exemplars.items():
            own = exemplar._replace(labels=dict(exemplar.labels))
            samples[number] = samples[number]._replace(exemplar=own)
        return samples if self.created is None else list(self._with_created(samples, self.created))

    def metric(self) -> Metric:
        """Return the family as one of `prometheus_client`'s."""
        metric = Metric(self.family.name, self.family.help, self.family.type, self.family.unit)
        metric.samples = self.samples()
        return metric

    def _with_created(self, samples: list[Sample], created: Mapping[str, float]) -> Iterator[Sample]:
        """Yield the samples, and after those of each child its ``_created`` sample, where OpenMetrics wants it."""
        name = f"{self.family.name}_created"
        following_lines = [*self.lines[1:], None]
        for sample, line, following, text in zip(samples, self.lines, following_lines, self._texts(), strict=True):
            yield sample
            if following is None or self._is_next_child(line, following):
                labels = {key: value for key, value in sample.labels.items() if key != "le"}
                when = created.get(text)
                if when is not None:
                    yield Sample(name, labels, when)

    def _texts(self) -> Iterable[str]:
        """Return the app's labels of each line, as JSON."""
        assert self.source is not None  # as there are times
        source, chosen = self.source
        return source.texts if chosen is None else compress(source.texts, chosen)

    def _is_next_child(self, line: Line, following: Line) -> bool:
        if self.family.type == "histogram":
            return following.name.endswith("_bucket") and not line.name.endswith("_bucket")
        return line.labels is not following.labels  # a summary's count and sum have one label set

    def restricted(self, names: Container[str] | None) -> FamilySamples:
        """Return only the lines with these names (None: all), without exemplars."""
        chosen = [names is None or line.name in names for line in self.lines]
        lines, values = list(compress(self.lines, chosen)), list(compress(self.values, chosen))
        return self._replace(lines=lines, values=values, exemplars=NO_EXEMPLARS)
