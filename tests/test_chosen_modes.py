"""The mode of a gauge may be chosen by who scrapes."""

from __future__ import annotations

import pytest
from helpers import ask, child
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

import sqlmetrics

pytestmark = pytest.mark.promise(1)


def test_a_mode_is_chosen_at_the_scrape(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """For libraries that leave their gauges at `all`; what cannot be made of what the dead left stays as it is."""
    busy = Gauge("busy", "Busy")
    top = Gauge("top", "Top", multiprocess_mode="max")

    def work(number: int) -> None:
        busy.set(number)
        top.set(number)

    work(1)
    with child(work=work) as one:
        one.do("work", 5)

        def shown(**modes: str) -> list[float | None]:
            registry = CollectorRegistry()
            sqlmetrics.MultiProcessCollector(registry, modes=modes)
            return [ask(registry, "busy"), ask(registry, "top")]

        assert shown(busy="sum") == [6, 5]
        assert shown(busy="livemin", top="sum") == [1, 5]
        one.kill()
        assert shown(busy="sum") == [6, 5]
        assert shown(busy="livesum", top="livemax") == [1, 1]
        monkeypatch.setenv("SQLMETRICS_MODES", "busy=max,top=livemax")
        assert ask(REGISTRY, "busy") == 5
        assert b"\nbusy 5.0\n" in sqlmetrics.generate_latest()
        assert sqlmetrics.generate_latest(modes={"busy": "min"}).count(b"\nbusy 1.0\n") == 1


def test_an_unknown_mode_is_refused(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error at set-up."""
    with pytest.raises(ValueError, match="'most' for 'busy' is no multiprocess mode; there are all, liveall"):
        sqlmetrics.MultiProcessCollector(None, modes={"busy": "most"})
    monkeypatch.setenv("SQLMETRICS_MODES", "busy")
    with pytest.raises(ValueError, match="SQLMETRICS_MODES='busy' cannot be used: expected name=mode"):
        sqlmetrics.generate_latest()
