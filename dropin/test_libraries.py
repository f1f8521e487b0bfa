"""Every instrumentation library whose page tells how to run it: unmodified, under the server that its users have."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from deployment import PORTS, Deployment, Row, Sample, deployed, inherited, started
from exact import assert_all_shown, assert_exact_across_a_death, assert_tidy
from helpers import wait_for
from pages import DOCS, blocks

pytestmark = pytest.mark.promise(12)

FOLDER = DOCS / "how-to" / "libraries"
ELSEWHERE = {"apm-agents": "test_agents.py", "django-commands": "test_commands.py"}
"""Pages that are no libraries, with the file that runs them."""
GUNICORN, UVICORN = ["gunicorn"], ["uvicorn", "gunicorn", "uvicorn-worker"]


def sample(name: str, /, **labels: str) -> Sample:
    """The name of a sample of a scrape."""
    return name, tuple(sorted(labels.items()))


_REQUESTS = {sample("requests_total", path="/"): 1.0}
_DJANGO = {
    sample(
        "django_http_requests_total_by_view_transport_method_total", view="hello", transport="http", method="GET"
    ): 1,
    sample("django_http_requests_latency_seconds_by_view_method_count", view="hello", method="GET"): 1,
    sample("django_http_responses_total_by_status_view_method_total", status="200", view="hello", method="GET"): 1,
}
_FLASK = {
    sample("flask_http_request_total", method="GET", status="200"): 1,
    sample("flask_http_request_duration_seconds_count", method="GET", path="/", status="200"): 1,
}
_FASTAPI = {
    sample("http_requests_total", handler="/", method="GET", status="2xx"): 1,
    sample("http_request_duration_seconds_count", handler="/", method="GET"): 1,
    sample("http_request_duration_seconds_bucket", handler="/", method="GET", le="+Inf"): 1,
    sample("http_response_size_bytes_sum", handler="/"): 7,
}
_STARLETTE_LABELS = {"app_name": "starlette", "method": "GET", "path": "/", "status_code": "200"}


class Library(NamedTuple):
    """A page.

    distributions: whose versions matter. samples: what a request adds. metrics: where it is scraped, by heading.
    counts_late: see `Row`.
    """

    distributions: list[str]
    samples: Mapping[Sample, float]
    metrics: Mapping[str, str] = {}
    counts_late: bool = False


LIBRARIES = {
    "django-prometheus": Library(
        ["django-prometheus", "django", *GUNICORN],
        {
            **_DJANGO,
            sample("django_cache_get_total", backend="locmem"): 1,
            sample("django_db_execute_total", alias="default", vendor="sqlite"): 1,
        },
    ),
    "django-prometheus-uwsgi": Library(["django-prometheus", "django", "uwsgi"], _DJANGO),
    "prometheus-flask-exporter": Library(
        ["prometheus-flask-exporter", "flask", *GUNICORN],
        {**_FLASK, sample("greetings_total", kind="hello"): 1},
    ),
    "prometheus-flask-exporter-multiprocess": Library(
        ["prometheus-flask-exporter", "flask", *GUNICORN], _FLASK, {"GunicornPrometheusMetrics": ":9200/"}
    ),
    "prometheus-flask-exporter-uwsgi": Library(["prometheus-flask-exporter", "flask", "uwsgi"], _FLASK),
    "prometheus-fastapi-instrumentator": Library(
        ["prometheus-fastapi-instrumentator", "fastapi", *UVICORN], _FASTAPI, counts_late=True
    ),
    "starlette-exporter": Library(
        ["starlette-exporter", "starlette", *UVICORN],
        {
            sample("starlette_requests_total", **_STARLETTE_LABELS): 1,
            sample("starlette_request_duration_seconds_count", **_STARLETTE_LABELS): 1,
        },
        counts_late=True,
    ),
    "prometheus-async": Library(
        ["prometheus-async", "aiohttp", *GUNICORN],
        {
            sample("answer_seconds_count"): 1,
            sample("answer_seconds_bucket", le="+Inf"): 1,
            sample("failures_total"): 0,
            sample("open_requests"): 0,
        },
        {"A server of its own": ":9200/metrics"},
    ),
    "prometheus_client-django": Library(["django", *GUNICORN], _REQUESTS),
    "prometheus_client-wsgi": Library(["flask", "werkzeug", *GUNICORN], _REQUESTS),
    "prometheus_client-asgi": Library(
        ["fastapi", *UVICORN],
        _REQUESTS,
        {"uvicorn": "/metrics/", "gunicorn, PROMETHEUS_MULTIPROC_DIR is set": "/metrics/"},
    ),
    "prometheus_client-aiohttp": Library(["aiohttp", *GUNICORN], _REQUESTS),
    "prometheus_client-twisted": Library(["twisted"], _REQUESTS),
    "opentelemetry": Library(["opentelemetry-distro", "opentelemetry-instrumentation-flask", *GUNICORN], _REQUESTS),
    "opentelemetry-prometheus": Library(
        ["opentelemetry-sdk-extension-prometheus-multiprocess", "flask", *GUNICORN],
        {**_REQUESTS, sample("response_size_bytes_sum", path="/"): 6, sample("response_size_bytes_count", path="/"): 1},
    ),
    "worker-numbers": Library(GUNICORN, {**_REQUESTS, sample("sent_bytes_total"): 6}),
}


def row_of(page: str, heading: str) -> Row:
    """The row of the command below a heading."""
    library = LIBRARIES[page]
    metrics = library.metrics.get(heading, "/metrics")
    samples, counts_late = library.samples, library.counts_late
    return Row(f"libraries/{page}.md", heading, metrics=metrics, samples=samples, counts_late=counts_late)


ROWS = [
    pytest.param(row_of(page, heading), marks=pytest.mark.row("library", f"{page}: {heading}", *library.distributions))
    for page, library in LIBRARIES.items()
    for heading, _ in started(FOLDER / f"{page}.md")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.page}: {row.heading}")
def test_every_scrape_is_exact(row: Row, folder: Path) -> None:
    """Across a worker's death, without a change of the app, whether or not the peer's variable is set."""
    assert_exact_across_a_death(row, folder)


def test_each_page_is_run() -> None:
    """A page that nobody runs is a promise that nobody keeps."""
    assert {page.stem for page in FOLDER.glob("*.md")} == LIBRARIES.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("heading", [heading for heading, _ in started(FOLDER / "opentelemetry.md")])
def test_opentelemetrys_traces_are_there_as_exemplars(heading: str, folder: Path) -> None:
    """The app is instrumented, and what one worker links to a trace is shown by all."""
    with deployed(row_of("opentelemetry", heading), folder) as server:
        server.request(1)
        texts = server.texts(headers={"Accept": "application/openmetrics-text"})

    traces = [re.findall(r'requests_total{path="/"} 1.0 # {trace_id="([0-9a-f]{32})"}', text) for text in texts]
    assert len({trace for (trace,) in traces}) == 1
    assert int(traces[0][0], 16) > 0


@pytest.mark.parametrize("heading", [heading for heading, _ in started(FOLDER / "opentelemetry.md")])
def test_an_app_has_the_store_if_opentelemetry_cannot_start(heading: str, folder: Path) -> None:
    """For example because an exporter is missing; it says so, and the app runs without traces."""
    row = replace(row_of("opentelemetry", heading), change=("--traces_exporter none", "--traces_exporter missing"))
    with deployed(row, folder) as server:
        server.until(lambda: len(server.counting()) == 2)
        assert_all_shown(server)
        assert "Failed to auto initialize OpenTelemetry" in server.log()


NUMBERED = [heading for heading, _ in started(FOLDER / "worker-numbers.md")]


@pytest.mark.parametrize("heading", NUMBERED)
def test_a_number_that_is_used_again_keeps_sums_and_names_gauges(heading: str, folder: Path) -> None:
    """Whether the worker says that it goes (TERM) or not (KILL), who takes its number takes neither more nor less."""
    with deployed(row_of("worker-numbers", heading), folder) as server:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            server.until(lambda: len(server.counting()) == 2)
            gone = min(server.counting())
            server.kill(gone, number)
            server.until(lambda: gone not in server.counting() and len(server.counting()) == 2)  # noqa: B023
        server.until(lambda: names_of_gauges(server) == gauges_expected(server, heading))
        assert_all_shown(server)


def names_of_gauges(server: Deployment) -> set[str]:
    """The `pid` labels of the gauge that each worker has."""
    (values,) = server.scrapes(1)
    return {dict(labels)["pid"] for name, labels in values if name == "last_request_timestamp_seconds"}


def gauges_expected(server: Deployment, heading: str) -> set[str]:
    """The workers' numbers; their pids where the gauge was made before the fork, and that of the master then."""
    pids = {str(pid) for pid in {*server.counting(), server.process.pid}}
    return pids if heading == "preload" else {"1", "2"}


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("prometheus-flask-exporter", "PrometheusMetrics"),
        ("prometheus-flask-exporter", "PrometheusMetrics, PROMETHEUS_MULTIPROC_DIR is set"),
        ("prometheus-flask-exporter-multiprocess", "GunicornInternalPrometheusMetrics"),
        ("prometheus-flask-exporter-multiprocess", "GunicornPrometheusMetrics"),
        ("prometheus_client-wsgi", "gunicorn, PROMETHEUS_MULTIPROC_DIR is set"),
        ("prometheus_client-asgi", "uvicorn"),
    ],
)
def test_names_that_are_asked_for_are_all_there_is(page: str, heading: str, folder: Path) -> None:
    """Where the collector is registered with a restricted registry, and where a registry is restricted."""
    row = row_of(page, heading)
    (name, labels), *_ = row.samples
    with deployed(replace(row, metrics=f"{row.metrics}?name[]={name}"), folder) as server:
        server.until(lambda: len(server.counting()) >= 2)
        assert [values for values in server.scrapes() if values != {(name, labels): server.sent}] == []


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("prometheus-fastapi-instrumentator", "gunicorn, PROMETHEUS_MULTIPROC_DIR is set"),
        ("prometheus-flask-exporter-multiprocess", "GunicornInternalPrometheusMetrics"),
    ],
)
def test_the_variables_older_name_does_as_well(page: str, heading: str, folder: Path) -> None:
    """The libraries look for either, and so does the launcher."""
    name = "PROMETHEUS_MULTIPROC_DIR"
    row = replace(row_of(page, heading), change=(name, name.lower()))
    with deployed(row, folder) as server:
        server.until(lambda: len(server.counting()) >= 2)
        assert_all_shown(server)
    assert_tidy(server)


def test_the_multiprocess_classes_for_flask_ask_for_the_folder(folder: Path) -> None:
    """With a sentence that names it; the page tells to leave the variable as it is."""
    row = row_of("prometheus-flask-exporter-multiprocess", "GunicornInternalPrometheusMetrics")
    app = next(block.text for block in blocks(row.path) if block.file == "internal.py")
    command = ["sqlmetrics", "run", "--path", str(folder / "app.sqlite3"), "--", sys.executable, "-c", app]
    done = subprocess.run(command, env=inherited(), capture_output=True, text=True)

    assert "env PROMETHEUS_MULTIPROC_DIR or env prometheus_multiproc_dir must be set and be a directory" in done.stderr


def test_each_port_of_a_django_worker_shows_all(folder: Path) -> None:
    """Its documentation tells to scrape each of them, and to add up."""
    change = {"configure(": f"configure(PROMETHEUS_METRICS_EXPORT_PORT_RANGE={PORTS[1:3]}, "}
    with deployed(row_of("django-prometheus", "gunicorn"), folder, change) as server:
        server.until(lambda: len(server.counting()) >= 2)
        for port in PORTS[1:3]:
            (values,) = server.scrapes(1, f":{port}/")
            assert {one: values.get(one) for one in _DJANGO} == dict.fromkeys(_DJANGO, server.sent)


def test_each_starlette_worker_has_the_exemplars_of_all(folder: Path) -> None:
    """In its handler for OpenMetrics; each worker gives its pid for an exemplar, and the newest one is shown."""
    change = {
        "(PrometheusMiddleware)": "(PrometheusMiddleware, exemplars=lambda: {'worker': str(os.getpid())})",
        "handle_metrics": "handle_openmetrics",
        "# app.py": "import os",
    }
    row = row_of("starlette-exporter", "uvicorn, PROMETHEUS_MULTIPROC_DIR is set")
    shown = re.compile(r'^starlette_requests_total{.*path="/",.* # {worker="(\d+)"}', re.M)
    with deployed(row, folder, change) as server:
        server.until(lambda: len(server.counting()) >= 2)
        wait_for(lambda: len({tuple(shown.findall(text)) for text in server.texts()}) == 1)
        (worker,) = shown.findall(server.texts(1)[0])
        assert int(worker) in server.counting()
