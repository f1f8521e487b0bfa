"""Minutes of worker churn as a real Prometheus and a real VictoriaMetrics see them, both at once, once a second.

Both run with the configuration that `docs/how-to/prometheus.md` shows. ``SQLMETRICS_TEST_MINUTES`` is how long the
requests go on, 2 by default; one run serves all tests.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from churn import INTERVAL, JOBS, MINUTES, RATE, REQUESTS_PER_WORKER, Run, churning
from engines import Engine, Prometheus, Series
from helpers import Shell, wait_for
from traffic import LONGEST, PATHS, Bounds, interpolated

pytestmark = [
    pytest.mark.promise(2, 3, 8),
    pytest.mark.row("engine", "Prometheus scrapes minutes of churn", "debian:prometheus", "gunicorn"),
    pytest.mark.row("engine", "VictoriaMetrics scrapes minutes of churn", "debian:victoria-metrics", "gunicorn"),
]

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
WINDOW = 60
"""Seconds."""
_OF_ONE_PROCESS = ("process_", "python_")
"""The registry's own collectors tell of the process that answers, which is another one each time."""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """The run, in a folder on tmpfs where there is one."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="sqlmetrics-engines-", dir=shm))
    try:
        with churning(folder) as one:
            print(one.summary())  # shown with what fails, or by -rP
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["prometheus", "victoria-metrics"])
def engine(request: pytest.FixtureRequest, run: Run) -> Engine:
    """Each of the engines."""
    return run.engines[request.param]


def between_the_last_two(scrapes: Series) -> float:
    """A time at which the last but one scrape is what an engine knows, and the marks of what it no longer had, too.

    Those of the last scrape may still be on their way. VictoriaMetrics gives a scrape the time at which it was due
    and its marks the time at which it really began, up to a tenth of the interval later (scrapeInternal in its
    lib/promscrape/scrapework.go): at the scrape's own time, a series that it no longer had can still be there.
    """
    *_, last_but_one, last = scrapes.times()
    return (last_but_one + last) / 2


def test_workers_came_and_went_meanwhile(run: Run) -> None:
    """Else all that follows would show nothing. The server says nothing that is not about the kills."""
    expected = len(run.requests) // sum(REQUESTS_PER_WORKER)
    answered = {request.worker for request in run.requests}
    trouble = [line for line in run.server_log.splitlines() if "[INFO]" not in line]

    assert len(run.requests) >= RATE * MINUTES * 60 - 1
    assert len(run.killed) >= 5
    assert len(answered) > expected >= 20
    assert all(any(f"(pid:{pid})" in line and "SIGKILL" in line for pid in run.killed) for line in trouble), trouble


def test_every_scrape_was_answered(run: Run, engine: Engine) -> None:
    """`up` is 1 throughout, no scrape is missing, and neither the targets nor the log tell of any trouble."""
    ups = run.raw(engine, "up")
    assert {one.labels["job"] for one in ups} == set(JOBS)
    for one in ups:
        gaps = [late - early for early, late in pairwise(one.times())]
        assert set(one.values()) == {1.0}
        assert one.times()[0] < run.begun + INTERVAL
        assert one.times()[-1] > run.ended
        assert max(gaps) < 3 * INTERVAL  # a tick may come late where the machine is busy

    assert [(target["health"], target["lastError"]) for target in engine.targets()] == [("up", "")] * len(JOBS)
    assert engine.complaints() == []


def test_no_sample_of_a_scrape_was_dropped(run: Run, engine: Engine) -> None:
    """What was served is what was kept: no name twice, nothing that the engine did not like."""
    for job in JOBS:
        (served,) = run.raw(engine, f'scrape_samples_scraped{{job="{job}"}}')
        (kept,) = run.raw(engine, f'scrape_samples_post_metric_relabeling{{job="{job}"}}')
        series = engine.value(f'count({{job="{job}", __name__!~"up|scrape_.+"}})', between_the_last_two(served))

        assert served.points == kept.points
        assert min(served.values()) > 0 or job == "app-load"  # there is no request before the first
        assert series == served.values()[-2]


@pytest.mark.parametrize("job", JOBS)
def test_each_scrape_shows_what_was_counted_by_then(run: Run, engine: Engine, job: str) -> None:
    """All that was answered before it began, nothing that was sent after it; whichever worker was asked."""
    shown, sent = run.shown(engine, job), Bounds(run.requests)
    times = [*shown, math.inf, math.inf]
    for time, end, value in zip(times, times[2:], shown.values(), strict=False):
        # VictoriaMetrics gives a scrape the time at which it was due, if it began not more than a tenth off it.
        # So it had certainly ended when the next but one was due.
        assert sent.least(time - 0.1 * INTERVAL) <= value <= sent.most(end + 0.1 * INTERVAL)

    (up,) = run.raw(engine, f'up{{job="{job}"}}')
    assert [time for time in up.times() if time >= times[0]] == list(shown)
    assert list(shown.values())[-1] == len(run.requests)


def test_no_counter_went_back(run: Run, engine: Engine) -> None:
    """Of no kind: totals, buckets, counts and sums, and those of the store about itself."""
    found = run.raw(engine, '{__name__=~".+_(total|bucket|count|sum)"}')
    found = [one for one in found if not one.name.startswith(_OF_ONE_PROCESS)]
    steps = {
        (one.name, tuple(one.labels.items())): min(late - early for early, late in pairwise(values))
        for one in found
        if len(values := one.values()) > 1
    }

    assert len(steps) > 2 * len(PATHS) * len(JOBS)
    assert {"sqlmetrics_errors_total", "sqlmetrics_scrape_seconds_count"} < {name for name, _ in steps}
    assert {key: step for key, step in steps.items() if step < 0} == {}
    assert engine.value(f"max(resets(requests_total[{run.seconds()}s]))", run.closed) == 0
    assert engine.value(f"max(resets(latency_seconds_bucket[{run.seconds()}s]))", run.closed) == 0


@pytest.mark.parametrize("job", JOBS)
def test_increase_and_rate_are_exact_from_sample_to_sample(run: Run, engine: Engine, job: str) -> None:
    """In a window that begins and ends with a sample there is nothing to extrapolate, so they have to be exact."""
    shown = run.shown(engine, job)
    first, last = next(iter(shown)), list(shown)[-1]
    milliseconds = round(1000 * (last - first))
    window = f'requests_total{{job="{job}"}}[{milliseconds}ms]'
    sent = len(run.requests) - shown[first]

    assert engine.value(f"sum(increase({window}))", last) == sent
    assert engine.value(f"sum(rate({window}))", last) == pytest.approx(1000 * sent / milliseconds, rel=1e-12)


def test_the_increase_of_all_time_is_what_the_page_says(run: Run, engine: Engine) -> None:
    """What the page says: VictoriaMetrics begins at zero, Prometheus at the first value that it has seen."""
    shown = run.shown(engine, "app")
    found = engine.value(f'sum(increase(requests_total{{job="app"}}[{run.seconds()}s]))', run.closed)
    if engine.name == "victoria-metrics":
        assert found == len(run.requests)
    else:
        assert found == pytest.approx(len(run.requests) - next(iter(shown.values())), abs=2 * 1.1 * INTERVAL * RATE)


def test_increase_in_any_window_agrees_with_what_was_sent(run: Run, engine: Engine) -> None:
    """At each second. Where a window's ends are between two scrapes, Prometheus extrapolates.

    Its samples are less than 2 intervals from either end, so what lies between them is at least what was sent in the
    window without them. And it extrapolates by at most 1.1 intervals at either end.
    """
    shown, sent = run.shown(engine, "app"), Bounds(run.requests)
    first, last = next(iter(shown)), list(shown)[-1]
    (found,) = engine.query_range(f'sum(increase(requests_total{{job="app"}}[{WINDOW}s]))', first + WINDOW, last, 1)
    margin = 2 * INTERVAL
    beyond = 1 + 2 * 1.1 * INTERVAL / (WINDOW - 2 * margin)

    assert len(found.points) > 0.8 * (last - first - WINDOW)
    for time, value in found.points:
        least = sent.least(time - margin) - sent.most(time - WINDOW + margin)
        most = sent.most(time + margin) - sent.least(time - WINDOW - margin)
        assert least <= value <= most * beyond


@pytest.mark.parametrize("job", [job for job in JOBS if job != "app-load"])
def test_histograms_agree_with_themselves_and_with_what_was_sent(run: Run, engine: Engine, job: str) -> None:
    """`_count` is the last bucket in every scrape; in the end each bucket and the sum are those of the requests."""
    for path in PATHS:
        here = f'{{job="{job}", path="{path}"}}'
        buckets = {one.labels["le"]: one for one in run.raw(engine, f"latency_seconds_bucket{here}")}
        (count,) = run.raw(engine, f"latency_seconds_count{here}")
        (total,) = run.raw(engine, f"latency_seconds_sum{here}")
        sent = [request.seconds for request in run.requests if request.path == path]

        assert count.points == buckets["+Inf"].points
        for bound, bucket in buckets.items():
            assert bucket.values()[-1] == sum(seconds <= float(bound) for seconds in sent)
        assert total.values()[-1] == pytest.approx(sum(sent))


def bounds_of(run: Run, engine: Engine) -> list[float]:
    """The bounds of the buckets, ascending."""
    found = run.raw(engine, 'latency_seconds_bucket{job="app", path="/"}')
    return sorted(float(one.labels["le"]) for one in found)


def test_quantiles_are_those_of_what_was_sent(run: Run, engine: Engine) -> None:
    """Of all requests they are what can be calculated of buckets, to the last digits."""
    last = list(run.shown(engine, "app"))[-1]
    bounds = bounds_of(run, engine)
    for quantile in QUANTILES:
        _, expected, _ = interpolated(quantile, run.requests, bounds)
        buckets = 'sum by (le) (latency_seconds_bucket{job="app"})'
        assert engine.value(f"histogram_quantile({quantile}, {buckets})", last) == pytest.approx(expected)


def test_quantiles_stay_sane_under_churn(run: Run, engine: Engine) -> None:
    """At each second, of the last minute: in the bucket of the true quantile, and a greater one is never less."""
    shown = list(run.shown(engine, "app"))
    bounds = bounds_of(run, engine)
    seen: dict[float, list[float]] = defaultdict(list)
    for quantile in QUANTILES:
        low, _, high = interpolated(quantile, run.requests, bounds)
        rates = f'sum by (le) (rate(latency_seconds_bucket{{job="app"}}[{WINDOW}s]))'
        expression = f"histogram_quantile({quantile}, {rates})"
        (found,) = engine.query_range(expression, shown[0] + WINDOW, run.closed, 1)
        assert low <= quantile * LONGEST <= high
        for time, value in found.points:
            assert low < value <= high, (quantile, time)
            seen[time].append(value)

    assert len(seen) > 0.8 * (run.closed - shown[0] - WINDOW)
    assert all(values == sorted(values) and len(values) == len(QUANTILES) for values in seen.values())


def test_gauges_tell_of_the_living_only(run: Run, engine: Engine) -> None:
    """`livesum` falls to 0 when the requests end, also those of killed workers; the ended leave `liveall` as stale."""
    end = between_the_last_two(run.raw(engine, 'busy{job="app"}')[0])
    living = engine.query('last_request{job="app"}', end)
    ever = run.raw(engine, 'last_request{job="app"}')
    greatest: dict[int, int] = {}
    for request in sorted(run.requests):
        greatest[request.worker] = request.number

    assert engine.value('busy{job="app"}', end) == 0
    assert 1 <= len(living) <= 4
    assert {one.labels["pid"] for one in living} & set(map(str, run.killed)) == set()
    assert len({one.labels["pid"] for one in ever}) > len(greatest) / 2
    for one in living:
        assert one.points[-1][1] <= greatest.get(int(one.labels["pid"]), 0)  # one may have answered scrapes only


def test_a_job_with_names_gets_these_only(run: Run, engine: Engine) -> None:
    """`name[]`, as the page shows it."""
    found = run.raw(engine, '{job="app-load"}')
    names = {one.name for one in found if one.name != "up" and not one.name.startswith("scrape_")}

    assert names == {"requests_total", "busy"}
    assert {tuple(parse_qsl(scrape.query)) for scrape in run.scrapes} == {
        (),
        (("name[]", "requests_total"), ("name[]", "busy")),
    }


OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


def test_each_engine_was_served_what_it_asks_for(run: Run) -> None:
    """Prometheus OpenMetrics, VictoriaMetrics the text format, both compressed; where there is a choice."""
    served: dict[tuple[str, str], Counter[tuple[str, str, str]]] = defaultdict(Counter)
    for scrape in run.scrapes:
        agent = scrape.agent.partition("/")[0]
        kind = scrape.content_type.partition("; escaping")[0]
        served[agent, scrape.path][scrape.status, kind, scrape.encoding] += 1
    least = (run.ended - run.begun) / INTERVAL / 2

    for path in ("/metrics", "/metrics/registry", "/metrics/collector"):
        assert set(served["Prometheus", path]) == {("200", OPENMETRICS, "gzip")}
        assert set(served["vm_promscrape", path]) == {("200", PLAIN, "gzip")}
    for agent in ("Prometheus", "vm_promscrape"):
        assert [(status, kind[:10]) for status, kind, _ in served[agent, "/metrics/text"]] == [("200", "text/plain")]
    assert len(served) == 8
    assert all(kinds.total() > least for kinds in served.values())


@pytest.mark.parametrize("job", ["app", "app-load", "registry", "collector"])
def test_exemplars_lead_to_the_requests(run: Run, job: str) -> None:
    """Each that Prometheus has kept is of a request that was sent, with its path, its value and its time."""
    engine = run.engines["prometheus"]
    assert isinstance(engine, Prometheus)
    sent = {str(request.number): request for request in run.requests}
    selector = f'{{job="{job}", __name__=~"requests_total|latency_seconds_bucket"}}'
    found = engine.exemplars(selector, run.begun - 60, run.ended + 60)
    expected = {"requests_total"} if job == "app-load" else {"requests_total", "latency_seconds_bucket"}
    workers = set()
    for name, exemplars in found.items():
        for exemplar in exemplars:
            request = sent[exemplar["labels"]["trace_id"]]
            workers.add(request.worker)
            assert exemplar["series"]["path"] == request.path
            assert request.begun - 0.001 <= exemplar["timestamp"] <= request.answered  # the engine has milliseconds
            assert float(exemplar["value"]) == (1 if name == "requests_total" else request.seconds)
            assert request.seconds <= float(exemplar["series"].get("le", "inf"))

    assert set(found) == expected
    assert len(workers) > 5


@pytest.mark.promise(7)
def test_the_store_is_small_and_exact_in_the_end(run: Run) -> None:
    """Four files, and the second reader's number is that of the engines."""
    shell = Shell(str(run.store))
    total = "SELECT sum(value) FROM metrics WHERE metric = 'requests_total'"
    wait_for(lambda: shell.value(total) == len(run.requests))

    assert len(list(run.store.parent.glob("metrics.sqlite3*"))) == 4
    assert list(run.store.parent.glob("*.db")) == []
