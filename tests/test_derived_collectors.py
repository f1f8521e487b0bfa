"""A class derived from `MultiProcessCollector` is asked by what it overrides, as in the mmap mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from helpers import child
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric

import sqlmetrics

pytestmark = pytest.mark.promise(12)

PEERS = multiprocess.MultiProcessCollector
"""The class as `prometheus_client` has it, for who imported it before the store was installed."""


def made(base: Any) -> dict[str, type]:
    """Derived classes, each of which hides the family `secret` in its own way."""

    class Collects(base):  # type: ignore[misc]
        def collect(self) -> Iterator[Metric]:
            yield from (family for family in super().collect() if family.name != "secret")
            yield GaugeMetricFamily("only_here", "", value=7)

    class Merges(base):  # type: ignore[misc]
        @staticmethod
        def merge(files: Iterable[str], accumulate: bool = True) -> list[Metric]:
            return [family for family in base.merge(files, accumulate) if family.name != "secret"]

    class MergesByParts(base):  # type: ignore[misc]
        def merge(self, files: Iterable[str], accumulate: bool = True) -> list[Metric]:
            families = base._read_metrics(files)
            families.pop("secret")
            return list(base._accumulate_metrics(families, accumulate))

    class LooksForFiles(base):  # type: ignore[misc]
        def __init__(self, registry: Any):
            super().__init__(registry)
            assert self._path

        def collect(self) -> list[Metric]:
            return [family for family in self.merge([], accumulate=True) if family.name != "secret"]

    return {cls.__name__: cls for cls in (Collects, Merges, MergesByParts, LooksForFiles)}


@pytest.fixture
def counted(path: str) -> Iterator[None]:
    """Two families, of two processes."""
    sqlmetrics.install(path)
    secret, shown = Counter("secret", ""), Gauge("shown", "", multiprocess_mode="sum")

    def count() -> None:
        secret.inc()
        shown.inc()

    with child(count=count) as other:
        other.do("count")
        count()
        yield


def lines(registry: Any) -> list[str]:
    """The samples of a registry's text."""
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("base", [PEERS, sqlmetrics.MultiProcessCollector], ids=["the peer's", "ours"])
@pytest.mark.parametrize("way", made(PEERS))
def test_what_a_derived_class_overrides_is_called(counted: None, base: type, way: str) -> None:
    """In a registry and by itself; all processes are added up in what it gets from its base class."""
    cls: Any = made(base)[way]
    registry = CollectorRegistry()
    cls(registry)
    expected = ["shown 2.0", *(["only_here 7.0"] if way == "Collects" else [])]

    assert lines(registry) == expected
    assert next(sample.value for family in cls(None).collect() for sample in family.samples) == 2
    assert lines(registry.restricted_registry(["shown", "secret_total"])) == ["shown 2.0"]


def test_an_instance_may_have_a_method_of_its_own(counted: None) -> None:
    """As a test that replaces `collect` of one object has it."""
    registry = CollectorRegistry()
    collector = sqlmetrics.MultiProcessCollector(registry)
    collector.collect = list  # type: ignore[method-assign, assignment]

    assert lines(registry) == []


def test_in_the_default_registry_a_derived_class_repeats_nothing(counted: None) -> None:
    """The metrics there are the store's already; what it adds is there."""
    cls = made(PEERS)["Collects"]
    collector = cls(REGISTRY)
    try:
        text = lines(REGISTRY)
    finally:
        REGISTRY.unregister(collector)

    assert [line for line in text if line.startswith(("shown", "secret_total", "only"))] == [
        "secret_total 2.0",
        "shown 2.0",
        "only_here 7.0",
    ]


def test_merge_reads_the_store_in_use_and_refuses_what_is_for_files_only(counted: None) -> None:
    """`accumulate=False` is for those who write merged values back to mmap files."""
    assert {family.name for family in multiprocess.MultiProcessCollector.merge([])} == {"secret", "shown"}

    with pytest.raises(NotImplementedError, match="accumulate=False"):
        multiprocess.MultiProcessCollector.merge([], accumulate=False)
