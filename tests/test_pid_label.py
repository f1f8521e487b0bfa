"""A gauge with a label `pid` of its own keeps it; in `all` and `liveall` the process is in `process_pid` then."""

from __future__ import annotations

import os

import pytest
from helpers import child, scrape, value
from prometheus_client import REGISTRY, Gauge

import sqlmetrics

pytestmark = pytest.mark.promise(1)


@pytest.mark.parametrize("mode", ["all", "liveall"])
def test_both_labels_are_shown(store: sqlmetrics.Store, shell, mode: str) -> None:
    """The peer overwrites the app's own, and so mixes up two series."""
    watched = Gauge("watched", "Of other processes", ["pid"], multiprocess_mode=mode)  # type: ignore[arg-type]

    def watch(number: int) -> None:
        watched.labels("7").set(number)
        watched.labels("8").set(number + 1)

    watch(1)
    with child(watch=watch) as one:
        one.do("watch", 5)
        mine, its = str(os.getpid()), str(one.pid)

        assert {dict(labels)["pid"] for name, labels in scrape() if name == "watched"} == {"7", "8"}
        assert value("watched", pid="7", process_pid=mine) == 1
        assert value("watched", pid="8", process_pid=its) == 6
        assert REGISTRY.get_sample_value("watched", {"pid": "8", "process_pid": mine}) == 2
        store.flush()
        rows = shell("SELECT labels FROM metrics WHERE metric = 'watched'")
        assert f'{{"pid":"7","process_pid":"{mine}"}}' in {row["labels"] for row in rows}
        one.kill()
    assert value("watched", pid="8", process_pid=its) == (6 if mode == "all" else None)


def test_an_aggregate_keeps_the_label_of_the_app(store: sqlmetrics.Store) -> None:
    """Modes that show one series for all processes have nothing to add."""
    watched = Gauge("watched", "Of other processes", ["pid"], multiprocess_mode="sum")

    with child(watch=lambda: watched.labels("7").set(5)) as one:
        watched.labels("7").set(1)
        one.do("watch")

        assert value("watched", pid="7") == 6
