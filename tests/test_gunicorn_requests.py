"""Requests that gunicorn's hooks count, without a line in the app."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apps.serving import Values, parse, serving
from helpers import wait_for

pytestmark = [pytest.mark.promise(3, 12), pytest.mark.slow]
WORKERS = [["-w2"], ["-w2", "--threads=4"], ["-w2", "--preload"]]


def labelled(values: Values, name: str) -> dict[tuple[str, ...], float]:
    """The samples of that name, by the values of their labels."""
    return {tuple(text for _, text in labels): value for (one, labels), value in values.items() if one == name}


@pytest.mark.parametrize("options", WORKERS, ids=["sync", "threads", "preload"])
def test_requests_are_counted_by_method_and_status(folder: Path, path: str, options: list[str]) -> None:
    """Also those of which the app makes nothing; an odd method is not a series of its own."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_GUNICORN_REQUESTS": "1"}
    with serving(folder, "answering:app", *options, **environment) as server:
        server.get_all(["/"] * 30)
        for target, status in (("/missing", 404), ("/fails", 500)):
            assert server.ask(target).status == status
        assert server.ask("/", method="BREW").status == 200

        def counted() -> dict[tuple[str, ...], float]:
            return labelled(parse(server.get("/metrics").text), "gunicorn_requests_total")

        expected = {("GET", "404"): 1, ("GET", "500"): 1, ("other", "200"): 1}
        wait_for(lambda: expected.items() <= counted().items())
        before = counted()["GET", "200"]
        assert before >= 30

        def fits() -> bool:
            values = parse(server.get("/metrics").text)
            requests = labelled(values, "gunicorn_requests_total")
            observed = labelled(values, "gunicorn_request_duration_seconds_count")
            states = labelled(values, "gunicorn_workers")  # one answers this very scrape
            of_get = sum(count for (method, _), count in requests.items() if method == "GET")
            return observed["GET",] == of_get and states == {("busy",): 1, ("idle",): 1}

        wait_for(fits)


@pytest.mark.parametrize("log", [(), ("--access-logfile", os.devnull)], ids=["no log", "access log"])
def test_gunicorns_asgi_worker_is_counted_as_far_as_it_says(folder: Path, path: str, log: tuple[str, ...]) -> None:
    """It answers as without the hooks. It gives them no status unless it logs it, and that is not called a failure."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_GUNICORN_REQUESTS": "1"}
    with serving(folder, "answering_asgi:app", "-w1", "-kasgi", *log, **environment) as server:
        for _ in range(3):
            assert server.get("/").text == "done\n"
        assert server.ask("/missing").status == 404
        values = parse(server.get("/metrics").text)

    expected = {("GET", "200"): 3, ("GET", "404"): 1} if log else {("GET", "unknown"): 4}
    assert labelled(values, "gunicorn_requests_total") == expected
    assert labelled(values, "gunicorn_workers") == {("busy",): 1, ("idle",): 0}  # it answers this very scrape


def test_busy_workers_are_told_and_dead_ones_are_none(folder: Path, path: str) -> None:
    """While a request is held, and after its worker was killed in the midst of it."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_GUNICORN_REQUESTS": "1"}
    with serving(folder, "counting:app", "-w3", "--timeout=2", **environment) as server:

        def states() -> dict[tuple[str, ...], float]:
            return labelled(parse(server.get("/metrics").text), "gunicorn_workers")

        wait_for(lambda: states() == {("busy",): 1, ("idle",): 2})
        _, cut_off = server.hold()
        wait_for(lambda: states() == {("busy",): 2, ("idle",): 1})
        cut_off()
        wait_for(lambda: states() == {("busy",): 1, ("idle",): 2})


def test_it_is_off_unless_it_is_said(folder: Path, path: str) -> None:
    """Nobody gets series that were not asked for."""
    with serving(folder, "counting:app", "-w1", SQLMETRICS_PATH=path) as server:
        server.get_all(["/"] * 5)
        assert "gunicorn_" not in server.get("/metrics").text
