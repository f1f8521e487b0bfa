"""Minutes of churn: a gunicorn whose workers come and go, steady requests, and two engines that scrape it meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from apps.serving import serving
from engines import Engine, Prometheus, Series, VictoriaMetrics, added_up, running
from helpers import wait_for
from traffic import PATHS, Request, Traffic

MINUTES = float(os.environ.get("SQLMETRICS_TEST_MINUTES", "2"))
INTERVAL = 1.0
"""Seconds from one scrape to the next."""
RATE = 30.0
"""Requests per second."""
KILL_EVERY = 9.0
"""Seconds."""
REQUESTS_PER_WORKER = (60, 30)
"""After how many requests a worker is replaced, and how many more it may be; scrapes are requests, too."""

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "how-to" / "prometheus.md"
_MORE_JOBS = {"text": "/metrics/text", "registry": "/metrics/registry", "collector": "/metrics/collector"}
JOBS = ("app", "app-load", *_MORE_JOBS)
"""Those of the page, and one for each other way in which the app shows the same numbers."""
_ACCESS = "%(U)s|%(q)s|%(s)s|%(a)s|%({content-type}o)s|%({content-encoding}o)s"


class Scrape(NamedTuple):
    """A scrape as the server saw it."""

    path: str
    query: str
    status: str
    agent: str
    content_type: str
    encoding: str


@dataclass
class Run:
    """What happened, and the engines, which still run. Times are in seconds since the epoch.

    begun, ended: of the requests. closed: shortly after that; what has come since then, the tests don't look at.
    """

    begun: float
    ended: float
    closed: float
    requests: list[Request]
    killed: list[int]
    scrapes: list[Scrape]
    server_log: str
    store: Path
    engines: dict[str, Engine]

    def seconds(self) -> int:
        """The length of a range, up to `closed`, in which all of it is."""
        return int(self.closed - self.begun) + 60

    def raw(self, engine: Engine, selector: str) -> list[Series]:
        """All samples of a selector."""
        return engine.query(f"{selector}[{self.seconds()}s]", self.closed)

    def shown(self, engine: Engine, job: str) -> dict[float, float]:
        """The requests of all paths that a job's scrapes showed, by their times."""
        found = self.raw(engine, f'requests_total{{job="{job}"}}')
        assert {one.labels["path"] for one in found} == set(PATHS)
        return added_up(found)

    def workers(self) -> list[int]:
        """The workers that gunicorn has started."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.server_log)]

    def summary(self) -> str:
        """What came of it in figures, one line for the requests and one for each engine."""
        lines = [f"{len(self.requests)} requests, {len(self.workers())} workers, {len(self.killed)} of them killed"]
        for engine in self.engines.values():
            first, *_, last = self.raw(engine, 'scrape_duration_seconds{job="app"}')[0].times()
            window = f"[{round(1000 * (last - first))}ms]"
            wanted = {
                "scrapes": f"sum(count_over_time(up{window}))",
                "up": f"min(min_over_time(up{window}))",
                "longest scrape": f"max(max_over_time(scrape_duration_seconds{window}))",
                "increase": f'sum(increase(requests_total{{job="app"}}{window}))',
                "rate": f'sum(rate(requests_total{{job="app"}}{window}))',
                **{
                    f"p{100 * part:g}": f'histogram_quantile({part}, sum by (le) (latency_seconds_bucket{{job="app"}}))'
                    for part in (0.5, 0.9, 0.99)
                },
            }
            figures = (f"{name} {engine.value(expression, last):.9g}" for name, expression in wanted.items())
            lines.append(f"{engine.name}: {', '.join(figures)}")
        return "\n".join(lines)


def config(port: int) -> str:
    """The configuration that the page shows, for this server and more often, and the other jobs."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    for name, path in _MORE_JOBS.items():
        block += f"  - job_name: {name}\n    scrape_interval: 5s\n    metrics_path: {path}\n"
        block += '    static_configs:\n      - targets: ["localhost:8000"]\n'
    here, jobs = re.subn(r"localhost:8000", f"127.0.0.1:{port}", block)
    often, intervals = re.subn(r"scrape_interval: \w+", f"scrape_interval: {INTERVAL:g}s", here)
    assert jobs == intervals == len(JOBS), block
    return often


@contextlib.contextmanager
def churning(folder: Path) -> Iterator[Run]:
    """Let it all happen, with the server's files in `folder`, and yield when the engines have seen the end of it."""
    store, access = folder / "metrics.sqlite3", folder / "access.log"
    each, more = REQUESTS_PER_WORKER
    options = ["-w4", "--max-requests", str(each), "--max-requests-jitter", str(more), "--pythonpath", str(HERE)]
    options += ["--access-logfile", str(access), "--access-logformat", _ACCESS]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(folder, "engines_app:app", *options, SQLMETRICS_PATH=str(store)))
        file = config(server.port)
        engines = [stack.enter_context(running(kind, folder, file)) for kind in (Prometheus, VictoriaMetrics)]
        traffic = Traffic(server, RATE, KILL_EVERY)
        wait_for(lambda: all(shows(engine, "up", 0) for engine in engines))
        begun = time.time()
        traffic.run(MINUTES * 60)
        ended = time.time()
        # Twice the interval: VictoriaMetrics gives a sample the time at which its scrape was due, or nearly so.
        # And once more: it does not show all samples of a second at once.
        closed = ended + 2 * INTERVAL
        everything = '{__name__=~"up|scrape_.+|requests_.+|latency_.+"}'
        wait_for(lambda: all(shows(engine, everything, closed + 2 * INTERVAL) for engine in engines))
        yield Run(
            begun,
            ended,
            closed,
            traffic.requests,
            traffic.killed,
            [Scrape(*line.split("|")) for line in access.read_text().splitlines() if line.startswith("/metrics")],
            server.log(),
            store,
            {engine.name: engine for engine in engines},
        )


def shows(engine: Engine, selector: str, after: float) -> bool:
    """Whether each series has a sample after a time, in seconds since the epoch, and there are some of every job."""
    found = engine.query(f"{selector}[60s]", time.time())
    jobs = {one.labels["job"] for one in found}
    return jobs == set(JOBS) and all(one.times()[-1] > after for one in found)
