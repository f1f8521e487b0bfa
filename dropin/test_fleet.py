"""Three hosts, two engines, three ways from one to the other: whatever happens to a host, no count is wrong.

The hosts are network namespaces; the configurations are those of `docs/how-to/many-hosts.md`. ``SQLMETRICS_TEST_CUT``
is how long one of them is cut off, in seconds, 10 by default.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from engines import Engine, Prometheus, Series, VictoriaMetrics, running
from helpers import wait_for
from networks import Host, Network, can_connect
from pages import DOCS, blocks

HERE = Path(__file__).parent
CUT = float(os.environ.get("SQLMETRICS_TEST_CUT", "10"))
WAYS = ("app", "app-agent", "app-vmagent")
"""The jobs: asked from the centre, sent by Prometheus' agent, sent by vmagent."""
APP = str(HERE / "fleet_app.py")
PAGE = DOCS / "how-to" / "many-hosts.md"
SECONDS = 60

pytestmark = [
    pytest.mark.skipif(not can_connect(), reason="only root can make networks"),
    pytest.mark.row("fleet", "Three hosts: a cut, a reset, a loss", "debian:prometheus", "debian:victoria-metrics"),
]


class Central(Prometheus):
    """It takes what agents send, too."""

    def command(self) -> list[str]:
        return [
            *("prometheus", "--config.file=scrape.yml", "--storage.tsdb.path=data"),
            *(f"--web.listen-address=0.0.0.0:{self.port}", "--web.enable-remote-write-receiver"),
        ]


class CentralVictoria(VictoriaMetrics):
    """Hosts reach it."""

    def command(self) -> list[str]:
        return [one.replace("127.0.0.1", "0.0.0.0") for one in super().command()]


def page(name: str) -> str:
    """A file of the page, with an interval of a second."""
    (text,) = (one.text for one in blocks(PAGE) if one.file == name or (one.kind, name) == ("json", "hosts.json"))
    return text.replace("scrape_interval: 15s", "scrape_interval: 1s")


class Machine:
    """A host with an app, an exporter, and what sends its metrics to the engines."""

    def __init__(self, stack: contextlib.ExitStack, host: Host, engines: list[Engine]):
        self._stack, self.host, self._engines = stack, host, engines
        self.store = str(host.folder / "metrics.sqlite3")
        self._programs: list[subprocess.Popen[str]] = []
        self.counted = 0
        """By apps that have ended."""
        self.start_app()
        self._start(
            sys.executable, "-m", "sqlmetrics", "serve", "--path", self.store, "--listen", ":9464", "--insecure"
        )
        self._start_agents()

    def start_app(self) -> None:
        """Start it; it has counted nothing."""
        self._app = self._start(sys.executable, APP, self.store)
        assert self._app.stdout.readline() == "0\n"

    def tell(self, what: str) -> int:
        """Tell the app to `count` or to be `idle`; all that it has counted, and those before it."""
        self._app.stdin.write(f"{what}\n")
        self._app.stdin.flush()
        return self.counted + int(self._app.stdout.readline())

    def reset(self) -> None:
        """End the idle app, empty its store, and start it again."""
        self.counted = self.tell("idle")
        self._app.stdin.close()
        self._app.wait(20)
        command = [sys.executable, "-m", "sqlmetrics", "reset", "--path", self.store, "--yes"]
        subprocess.run(command, check=True, capture_output=True, timeout=20)
        self.start_app()

    def lose(self) -> None:
        """All that runs there is gone at once, and so is its network."""
        self.counted = self.tell("idle")
        self.host.cut_off()
        for program in self._programs:
            program.kill()

    def _start_agents(self) -> None:
        folder, urls = self.host.folder, []
        for engine, example in zip(self._engines, ("prometheus.example:9090", "victoria.example:8428"), strict=True):
            urls.append((f"http://{example}", f"http://{self.host.centre_address}:{engine.port}"))
        for name in ("agent.yml", "vmagent.yml"):
            (folder / name).write_text(self._here(page(name), urls))
        commands = re.findall(r"^\$ ((?:prometheus|vmagent) .+)$", PAGE.read_text("utf-8"), re.M)
        assert len(commands) == len(WAYS) - 1
        for command in commands:
            self._start(*self._here(command, urls).split())

    def _here(self, text: str, urls: list[tuple[str, str]]) -> str:
        for example, url in urls:
            text = text.replace(example, url)
        return text.replace("host1", self.host.name)

    def _start(self, *command: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with self.host.inside(), (self.host.folder / "log").open("ab") as log:
            program = subprocess.Popen(
                command,
                cwd=self.host.folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if APP in command else log,
                stderr=log,
                text=True,
            )
        self._stack.enter_context(program)
        self._stack.callback(program.kill)
        self._programs.append(program)
        return program


@dataclass
class Run:
    """What happened. counted: by the apps of each host. cut: when the second host was cut off, and for how long."""

    engines: list[Engine]
    counted: dict[str, int]
    begun: float
    ended: float
    cut: tuple[float, float]

    def raw(self, engine: Engine, selector: str) -> list[Series]:
        """All samples of a selector."""
        return engine.query(f"{selector}[{self.seconds()}s]", self.ended)

    def seconds(self) -> int:
        """The length of a range in which all of it is."""
        return int(self.ended - self.begun) + 60


def all_show(engines: list[Engine], value: dict[str, int]) -> bool:
    """Whether each engine has these numbers of each host, by each way."""
    expected = {(job, host): number for job in WAYS for host, number in value.items()}
    for engine in engines:
        found = engine.query("events_total", time.time())
        shown = {(one.labels["job"], one.labels["host"]): one.points[-1][1] for one in found}
        if {key: shown.get(key) for key in expected} != expected:
            return False
    return True


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """The run, in a folder on tmpfs."""
    folder = Path(tempfile.mkdtemp(prefix="sqlmetrics-fleet-", dir="/dev/shm"))
    try:
        with contextlib.ExitStack() as stack:
            centre = Network(stack)
            stack.enter_context(centre.inside())
            (folder / "hosts.json").write_text(page("hosts.json"))
            config = page("prometheus.yml").replace("hosts.json", str(folder / "hosts.json"))
            engines = [stack.enter_context(running(kind, folder, config)) for kind in (Central, CentralVictoria)]
            hosts = [Host(stack, centre, number, folder) for number in (1, 2, 3)]
            machines = [Machine(stack, host, engines) for host in hosts]
            begun = time.time()
            wait_for(lambda: all_show(engines, {host.name: 0 for host in hosts}), SECONDS)
            cut = let_things_happen(engines, machines)
            counted = {one.host.name: one.counted for one in machines}
            print(counted, f"cut off for {cut[1] - cut[0]:.1f} s")  # shown with what fails
            yield Run(engines, counted, begun, time.time(), cut)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def let_things_happen(engines: list[Engine], machines: list[Machine]) -> tuple[float, float]:
    """Reset the first host's store, cut off the second host, lose the third one; tell when the cut was."""
    first, second, third = machines
    for one in machines:
        one.tell("count")
    time.sleep(3)
    begun = time.time()
    second.host.cut_off()
    for one in (first, third):
        wait_for(lambda one=one: all_show(engines, {one.host.name: one.tell("idle")}), SECONDS)
    first.reset()
    wait_for(lambda: all_show(engines, {first.host.name: 0}), SECONDS)
    third.lose()
    first.tell("count")
    time.sleep(max(0.0, begun + CUT - time.time()))
    ended = time.time()
    second.host.connect()
    for one in (first, second):
        shown = one.tell("idle") - one.counted  # since its store was empty
        wait_for(lambda one=one, shown=shown: all_show(engines, {one.host.name: shown}), SECONDS)
        one.counted += shown
    return begun, ended


@pytest.fixture(params=["prometheus", "victoria-metrics"])
def engine(request: pytest.FixtureRequest, run: Run) -> Engine:
    """Each of the engines."""
    return next(one for one in run.engines if one.name == request.param)


@pytest.mark.parametrize("way", WAYS)
def test_the_increase_is_what_was_counted(run: Run, engine: Engine, way: str) -> None:
    """Of each host, from its first sample to its last; the sum is the fleet's."""
    increases = {}
    for series in run.raw(engine, f'events_total{{job="{way}"}}'):
        first, last = series.times()[0], series.times()[-1]
        window = f"[{round(1000 * (last - first))}ms]"
        host = series.labels["host"]
        increases[host] = engine.value(
            f'sum by (job) (increase(events_total{{job="{way}", host="{host}"}}{window}))', last
        )
    assert min(run.counted.values()) > 20
    assert increases == pytest.approx(run.counted)


@pytest.mark.parametrize("way", WAYS)
def test_the_increase_of_the_fleet_is_what_was_counted(run: Run, engine: Engine, way: str) -> None:
    """In one query over all hosts. VictoriaMetrics is exact; Prometheus adds half an interval at the end of each."""
    found = engine.value(f'sum by (job) (increase(events_total{{job="{way}"}}[{run.seconds()}s]))', run.ended)
    total = sum(run.counted.values())
    assert found == pytest.approx(total, rel=1e-9 if engine.name == "victoria-metrics" else 0.05)


@pytest.mark.parametrize("way", WAYS)
def test_no_counter_was_reset_but_the_one_that_was(run: Run, engine: Engine, way: str) -> None:
    """Neither by the cut, nor by processes that were killed."""
    found = engine.query(f'resets(events_total{{job="{way}"}}[{run.seconds()}s])', run.ended)
    assert {one.labels["host"]: one.points[-1][1] for one in found} == {"host1": 1, "host2": 0, "host3": 0}


def test_the_centre_has_a_gap_where_agents_have_none(run: Run, engine: Engine) -> None:
    """While the second host was cut off: agents have kept what they saw."""
    begun, ended = run.cut
    during = {
        series.labels["job"]: [time for time in series.times() if begun + 1 < time < ended - 1]
        for series in run.raw(engine, 'events_total{host="host2"}')
    }
    assert len(during["app"]) <= 1
    assert min(len(during["app-agent"]), len(during["app-vmagent"])) > 0.8 * (ended - begun - 2)


def test_a_host_that_is_gone_is_down(run: Run, engine: Engine) -> None:
    """For whoever asked it from the centre. `increase()` still has what it counted."""
    found = engine.query('up{job="app"}', run.ended)
    assert {one.labels["host"]: one.points[-1][1] for one in found} == {"host1": 1, "host2": 1, "host3": 0}
