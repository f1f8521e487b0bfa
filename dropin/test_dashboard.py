"""The dashboard of `contrib/grafana`: its structure, and each panel's query against a real Prometheus.

Grafana itself does not run here, and no stable schema of dashboards is published that a test could take; so the
structure is checked by what Grafana needs to load a file and to draw it.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apps.serving import Server, serving
from dashboards import Dashboard, filled, used
from engines import Engine, Prometheus, Series, running
from pages import ROOT

BOARD = Dashboard(ROOT / "contrib" / "grafana" / "sqlmetrics.json")
SECONDS = 20
WINDOW = 15
RATE = 20
"""Requests per second."""
FAILS_EVERY = 10
WORKERS = 3
LONGEST = 0.1
"""Clients say times from 0 to this, in seconds."""
KINDS = {"timeseries", "stat", "heatmap", "bargauge", "table"}
UNITS = {"short", "s", "bytes", "percentunit", "reqps", "ops"}
_GRAFANAS_OWN = {"__rate_interval"}
_SCRAPE = """
scrape_configs:
  - job_name: app
    scrape_interval: 1s
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def test_panels_have_what_grafana_needs() -> None:
    """A kind, a title, a unit, a place that no other panel has, queries with names, and numbers of their own."""
    everything = BOARD.board["panels"]
    places = Counter(
        (x, y)
        for panel in everything
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )
    assert len(BOARD.panels) > 20
    assert max(places.values()) == 1
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)
    for panel in BOARD.panels:
        assert panel["type"] in KINDS
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_a_dashboard_can_be_loaded_anywhere() -> None:
    """It has a name, no id of somebody's database, and the variables that it uses and no others."""
    board = BOARD.board
    assert board["title"]
    assert re.fullmatch(r"[\w-]{1,40}", board["uid"])
    assert isinstance(board["schemaVersion"], int)
    assert "id" not in board
    queries = [one["definition"] for one in BOARD.variables.values() if one["type"] == "query"]
    asked = set().union(*(used(text) for text in (*queries, *(target.expression for target in BOARD.targets()))))
    assert asked - _GRAFANAS_OWN == set(BOARD.variables) - {"datasource"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A Prometheus that has scraped a churning app for a while, and still does."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="sqlmetrics-dashboard-", dir=shm))
    environment = {
        "SQLMETRICS_PATH": str(folder / "metrics.sqlite3"),
        "SQLMETRICS_SELF_METRICS": "1",
        "SQLMETRICS_GUNICORN_REQUESTS": "1",
        "SQLMETRICS_MAX_SERIES": "20",
    }
    options = [
        f"-w{WORKERS}",
        "--max-requests=60",
        "--max-requests-jitter=30",
        "--pythonpath",
        str(Path(__file__).parent),
    ]
    try:
        with (
            serving(folder, "dashboard_app:app", *options, **environment) as server,
            running(Prometheus, folder, _SCRAPE.format(port=server.port)) as one,
        ):
            churn(server)
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def churn(server: Server) -> None:
    """Send requests at a steady rate, of which one in ten fails, and kill a worker now and then."""
    numbers = itertools.count()

    def send(begun: float) -> None:
        while (number := next(numbers)) < SECONDS * RATE:
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            if number % FAILS_EVERY == 0:
                assert server.ask("/fails").status == 500
            else:
                answer = server.get(f"/?seconds={LONGEST * (number * 37 % 100) / 100}&user={number}")
                if number % (8 * RATE) == RATE + 1:
                    os.kill(answer.worker, signal.SIGKILL)

    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for sent in [pool.submit(send, begun) for _ in range(4)]:
            sent.result()


def values_of(engine: Engine) -> dict[str, str]:
    """What Grafana would fill in: the values of the variables by their queries, and the interval."""
    found = {"__rate_interval": f"{WINDOW}s"}
    for name, variable in BOARD.variables.items():
        if variable["type"] == "query":
            values = options(engine, filled(variable["definition"], found), variable["regex"])
            assert values, name
            found[name] = "latency_seconds" if name == "histogram" else "|".join(values)
            assert name != "histogram" or {"latency_seconds", "gunicorn_request_duration_seconds"} <= set(values)
    return found


def options(engine: Engine, query: str, regex: str) -> list[str]:
    """What a variable offers, by Grafana's two functions: label_values(selector, label) and metrics(regex)."""
    if named := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
        return engine.ask(f"/api/v1/label/{named[2]}/values", **{"match[]": named[1]})
    names = engine.ask("/api/v1/label/__name__/values")
    wanted = re.compile(re.fullmatch(r"metrics\((.+)\)", query)[1])
    found = (re.search(regex.strip("/"), name) for name in names if wanted.search(name))
    return [one[1] for one in found if one]


def near(low: float, high: float) -> Callable[[list[Series]], bool]:
    """Whether all values are between these."""
    return lambda found: all(low <= one.points[-1][1] <= high for one in found)


def labelled(label: str, *expected: str) -> Callable[[list[Series]], bool]:
    """Whether a label has these values, all of them and more."""
    return lambda found: set(expected) <= {one.labels.get(label) for one in found}


def total(low: float, high: float) -> Callable[[list[Series]], bool]:
    """Whether the sum of all values is between these."""
    return lambda found: low <= sum(one.points[-1][1] for one in found) <= high


MIB = 2**20
PLAUSIBLE: dict[str, tuple[Callable[[list[Series]], bool], ...]] = {
    "Requests by status": (labelled("status", "200", "500"), total(0.5 * RATE, 1.5 * RATE + 2)),
    "Share of failed requests": (near(0.3 / FAILS_EVERY, 2 / FAILS_EVERY),),
    "Workers by state": (labelled("state", "busy", "idle"), total(1, WORKERS + 1)),
    "Time of requests": (near(0.0001, 1),),
    "Quantiles of $histogram": (near(0.3 * LONGEST, 1.2 * LONGEST),),
    "Distribution of $histogram": (labelled("le", "0.005", "0.1", "+Inf"), near(0, RATE * WINDOW)),
    "CPU": (near(0, 1), total(0.001, WORKERS + 1)),
    "Memory": (near(10 * MIB, 500 * MIB), total(20 * MIB, 2000 * MIB)),
    "Open file descriptors": (near(5, 200),),
    "Garbage collections": (near(0, 1000),),
    "Targets that answer": (near(1, 1),),
    "Alive": (near(1, WORKERS + 1),),
    "Processes by state": (labelled("state", "alive", "dead", "remembered"), total(1, 100)),
    "Ended in 10 minutes": (labelled("noticed", "notice"), total(2, 100)),
    "Time of a flush": (near(1e-5, 1),),
    "Time of a scrape": (near(1e-5, 1),),
    "Time of a scrape as Prometheus sees it": (near(1e-4, 1),),
    "Flushes": (near(0.1, 2 * WORKERS),),
    "Size by file": (labelled("file", "database", "wal", "shm", "cells"), near(4096, 64 * MIB)),
    "Room on the disk": (near(MIB, math.inf),),
    "Limits of the cells file": (labelled("limit", "processes", "cell blocks", "journal extents"), near(1e-4, 0.1)),
    "Rows behind": (near(0, 10),),
    "Journals behind": (near(0, MIB),),
    "Processes with the name of another": (near(0, 0),),
    "Errors by cause": (labelled("cause", "app"), near(0, 10 * WORKERS)),
    "Versions": (near(1, 1),),
    "Families with the most series": (labelled("family", "users", "latency_seconds"), near(1, 1000)),
    "Series in all": (near(30, 1000),),
    "Refused for max_series": (labelled("family", "users"), total(0.3 * RATE, 1.5 * RATE)),
}


@pytest.mark.row("engine", "Prometheus answers each panel of the dashboard", "debian:prometheus", "gunicorn")
def test_each_panel_shows_plausible_values(engine: Engine) -> None:
    """Every query of every panel has a result, and the values are what this traffic must have made of them."""
    assert set(PLAUSIBLE) == {panel["title"] for panel in BOARD.panels}
    variables = values_of(engine)
    now = time.time()
    for target in BOARD.targets():
        found = engine.query(filled(target.expression, variables), now)
        print(target.panel, target.legend, [one.points[-1][1] for one in found][:9])  # shown with what fails
        assert found, target
        assert all(math.isfinite(one.points[-1][1]) for one in found), (target, found)
        assert all(check(found) for check in PLAUSIBLE[target.panel]), (target, found)
        assert all(set(used_by(target.legend)) <= set(one.labels) for one in found), (target, found)


def used_by(legend: str) -> list[str]:
    """The labels that a legend names."""
    return re.findall(r"\{\{(\w+)\}\}", legend)


def test_quantiles_rise(engine: Engine) -> None:
    """A greater quantile is never less, at any time."""
    variables = values_of(engine)
    for title in ("Time of requests", "Quantiles of $histogram"):
        low, middle, high = (
            engine.query(filled(one.expression, variables), time.time())[0].points[-1][1]
            for one in list(BOARD.targets())
            if one.panel == title and one.legend.startswith("p")
        )
        assert low <= middle <= high
