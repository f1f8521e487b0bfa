"""APM agents that start a program, as the outer and as the inner command: each Python has its agent and the store."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from deployment import Deployment, Row, deployed, inherited, outside_code, started
from exact import assert_all_shown, assert_tidy
from helpers import Shell
from pages import DOCS, commands

pytestmark = pytest.mark.promise(3, 12)

PAGE = DOCS / "how-to" / "libraries" / "apm-agents.md"
HOOKS = "With gunicorn's hooks"


class Agent(NamedTuple):
    """An agent, whose distribution has this name too.

    launcher: its command. package: what it imports. active: an expression that is true in a request that is traced.
    variables: what it needs to run here; INTAKE stands for an address that takes all that it sends.
    """

    launcher: str
    package: str
    active: str
    variables: dict[str, str]


AGENTS = {
    "ddtrace": Agent(
        "ddtrace-run",
        "ddtrace",
        "__import__('ddtrace.trace').trace.tracer.current_span()",
        {
            "DD_TRACE_AGENT_URL": "INTAKE",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            # It has gunicorn 27 show tracebacks of its control server, which is stopped at each fork, also without us.
            "GUNICORN_CMD_ARGS": "--no-control-socket",
        },
    ),
    "newrelic": Agent(
        "newrelic-admin run-program",
        "newrelic",
        "__import__('newrelic.agent').agent.current_transaction()",
        {"NEW_RELIC_DEVELOPER_MODE": "true", "NEW_RELIC_APP_NAME": "app"},
    ),
    "elastic-apm": Agent(
        "elasticapm-run",
        "elasticapm",
        "__import__('elasticapm').get_transaction_id()",
        {"ELASTIC_APM_SERVER_URL": "INTAKE", "ELASTIC_APM_SERVICE_NAME": "app"},
    ),
}
HEADINGS = {
    f"{name}{where}": distribution
    for name, distribution in zip(("Datadog", "New Relic", "Elastic"), AGENTS, strict=True)
    for where in ("", ", outside")
}
"""The sections that start an agent and `sqlmetrics run`, with the agent."""


class Hooked(Row):
    """The section about gunicorn's hooks, whose command has no `sqlmetrics run` in it."""

    def command(self) -> str:
        """The command of the section, with the app loaded before the fork: the agent has threads then."""
        section = outside_code(self.path).partition(f"## {self.heading}\n")[2]
        ((command, _),) = commands(re.findall(r"^```console\n(.*?)^```$", section, flags=re.M | re.S)[0])
        assert self.change[0] in command
        return command.replace(*self.change).replace(" -w 2 ", " --preload -w 2 ")

    def store(self) -> str:
        """Where the variable has it."""
        return re.search(r"SQLMETRICS_PATH=(\S+)", self.command())[1]  # type: ignore[index]


def row(heading: str, agent: str) -> pytest.ParameterSet:
    """A section of the page, and what its row in the table says."""
    mark = pytest.mark.row("library", f"apm-agents: {heading}", agent, "flask", "gunicorn")
    return pytest.param(heading, agent, marks=mark, id=heading)


@pytest.mark.parametrize(("heading", "agent"), [row(*one) for one in HEADINGS.items()])
def test_workers_are_traced_and_counted_with_both_launchers(
    heading: str, agent: str, folder: Path, intake: str
) -> None:
    """Whichever is the outer one; each worker has its agent, also one that takes the place of a killed one."""
    assert_traced_and_exact(Row(f"libraries/{PAGE.name}", heading), agent, folder, intake)


@pytest.mark.row("library", f"apm-agents: {HOOKS}", *AGENTS, "flask", "gunicorn")
@pytest.mark.parametrize("agent", AGENTS)
def test_workers_are_traced_and_counted_with_an_agent_and_gunicorns_hooks(
    agent: str, folder: Path, intake: str
) -> None:
    """The agent has started its threads before the master makes the metrics, and forks."""
    launcher = AGENTS[agent].launcher
    assert_traced_and_exact(
        Hooked(f"libraries/{PAGE.name}", HOOKS, change=("ddtrace-run", launcher)), agent, folder, intake
    )


class Intake(BaseHTTPRequestHandler):
    """Takes what agents send: they try again for seconds when nobody does, and when a process ends."""

    def do_GET(self) -> None:
        """Whatever it is."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        """The same."""
        self.do_GET()

    def do_PUT(self) -> None:
        """The same."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def intake() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Intake) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def variables(agent: str, intake: str) -> dict[str, str]:
    """What the agent needs."""
    return {name: value.replace("INTAKE", intake) for name, value in AGENTS[agent].variables.items()}


def assert_traced_and_exact(row: Row, agent: str, folder: Path, intake: str) -> None:
    """Every scrape is exact across the death of a worker, and every worker's requests are traced."""
    counts = 'REQUESTS.labels("/").inc()'
    change = {
        "app = Flask": 'TRACED = Counter("traced_requests", "Requests that are traced")\napp = Flask',
        counts: f"{counts}\n    TRACED.inc(bool({AGENTS[agent].active}))",
    }
    with deployed(row, folder, change, **variables(agent, intake)) as server:
        server.until(lambda: len(traced(server)) == 2)
        assert_all_shown(server)
        before = server.counting()
        server.kill(min(before))
        assert_all_shown(server)
        server.until(lambda: traced(server) - before)
        assert_all_shown(server)
        log = server.log()
    assert "counts in its own memory" not in log, log
    assert "Traceback" not in log, log
    assert_tidy(server)


def traced(server: Deployment) -> set[int]:
    """The living workers that have answered requests which their agent traced."""
    return server.counting_in("traced_requests_total")


PROGRAM = """
import multiprocessing, os, subprocess, sys, threading

def count(by):
    assert AGENT in sys.modules, by
    from prometheus_client import REGISTRY, Counter
    jobs = REGISTRY._names_to_collectors.get("jobs") or Counter("jobs", "Jobs done", ["by"])
    jobs.labels(by).inc()

if __name__ == "__main__":
    if sys.argv[1:]:
        count(*sys.argv[1:])
        sys.exit()
    subprocess.run([sys.executable, __file__, "a program"], check=True)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    child = multiprocessing.get_context("fork").Process(target=count, args=["a child"])
    child.start()
    child.join()
    count("itself")
    if os.fork() == 0:
        count("a late child")
        os._exit(0)
    assert os.wait()[1] == 0
"""
COUNTED = {"a program", "a child", "a late child", "itself"}


@pytest.mark.parametrize("agent", AGENTS)
def test_every_python_below_both_launchers_has_the_agent_and_counts(agent: str, folder: Path, intake: str) -> None:
    """Children of every kind, whether or not their parent has imported `prometheus_client` already."""
    program, store = folder / "program.py", folder / "metrics.sqlite3"
    program.write_text(PROGRAM.replace("AGENT", repr(AGENTS[agent].package)))
    launchers = ["sqlmetrics", "run", "--path", str(store), "--", *AGENTS[agent].launcher.split()]
    command = [*launchers, sys.executable, str(program)]
    environment = inherited() | variables(agent, intake)
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "sqlmetrics" not in done.stderr
    rows = Shell(str(store))(
        "SELECT labels ->> 'by' AS by, sum(value) AS times FROM metrics WHERE metric = 'jobs_total' GROUP BY by"
    )
    assert {str(row["by"]): row["times"] for row in rows} == dict.fromkeys(COUNTED, 1.0)


def test_the_page_has_a_section_for_each_order_of_each_agent() -> None:
    """And no command that nobody runs."""
    assert [heading for heading, _ in started(PAGE)] == list(HEADINGS)
