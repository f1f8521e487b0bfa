"""Two nodes of Celery, daemons with different pools, in one store; the exporter answers for both, and after them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import is_running
from exact import assert_tidy
from helpers import wait_for
from jobs import AtWork, Jobs, exporter, redis_server

pytestmark = pytest.mark.promise(3, 6, 12)

CHANGE = {
    "\n\n@celeryd_init.connect\ndef serve_metrics(**_):\n    start_http_server(8000)\n": (
        '\nNEWEST = Gauge("newest_job", "When the newest job was done", multiprocess_mode="liveall")\n'
    ),
    'broker="filesystem://"': 'broker="redis://127.0.0.1:6379"',
    "app.conf.broker_transport_options = {": "IGNORED = {",
    'DONE.labels("work").inc()': 'DONE.labels("work").inc()\n    NEWEST.set_to_current_time()',
}
"""The page's tasks without a server, and with a gauge that each process has.

And with a broker that two nodes can share: that of files may hand out a job before all of it is written.
"""


class Nodes(AtWork):
    """What `celery multi` starts: each node is a daemon, a session of its own."""

    def start(self) -> None:
        """Start both, and wait until both have begun to count."""
        self.sessions: dict[str, int] = {}
        command = ["bash", "-c", self.here(self.row.command())]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=log, stderr=log)
        assert self.process.wait(60) == 0, self.log()
        for name in ("one", "two"):
            self.sessions[name] = os.getsid(wait_for(lambda name=name: self.main(name)))
        wait_for(lambda: self.ask(self.row.metrics)[0] == 200)
        self.until(lambda: {os.getsid(pid) for pid in self.counting_in("jobs_total")} == {*self.sessions.values()})

    def main(self, name: str) -> int:
        """The main process of a node, 0 before there is one."""
        file = self.store.parent / f"{name}.pid"
        return int(file.read_text() or 0) if file.exists() else 0

    def gauges(self) -> set[int]:
        """The processes that the gauge is shown of."""
        (values,) = self.scrapes(1)
        return {int(dict(labels)["pid"]) for name, labels in values if name == "newest_job"}

    def processes_of(self, name: str) -> set[int]:
        """The processes of a node, those that have not been waited for left out."""
        listed = subprocess.run(["ps", "-o", "pid=", "-s", str(self.sessions[name])], capture_output=True, text=True)
        return {pid for pid in map(int, listed.stdout.split()) if is_running(pid)}

    def end(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a node's main process, or SIGKILL to all of it as systemd does; returns when all is gone."""
        if number is signal.SIGKILL:
            os.killpg(self.sessions[name], number)
        else:
            os.kill(self.main(name), number)
        wait_for(lambda: not self.processes_of(name), 60)

    def stop(self) -> None:
        """Kill what is left."""
        for session in self.sessions.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)


@contextlib.contextmanager
def nodes(folder: Path, pool: str) -> Iterator[Nodes]:
    """A node with the pool prefork and one with another, and the exporter that looks at their store."""
    row = Jobs("servers/celery.md", "Several nodes", metrics=":9464/metrics", options=f"-P:two {pool}")
    with redis_server(folder) as redis, contextlib.ExitStack() as stack:
        both = Nodes(row, folder, redis, CHANGE)
        stack.enter_context(exporter(both.store, both.ports[9464], folder))
        try:
            both.start()
            yield both
        finally:
            both.stop()


@pytest.mark.row("jobs", "celery: Several nodes", "celery", "billiard", "uvicorn")
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_node_that_ends_leaves_its_counts_and_no_live_gauge(pool: str, folder: Path) -> None:
    """By SIGTERM, and by SIGKILL in the midst of a job; the exporter is exact throughout."""
    with nodes(folder, pool) as both:
        both.work_off(50)
        assert both.gauges() >= both.processes_of("two") & both.counting_in("jobs_total") != set()

        both.end("one", signal.SIGTERM)
        assert both.gauges() <= both.processes_of("two") != set()
        both.work_off(20)

        assert both.at_work() in both.processes_of("two")
        both.end("two", signal.SIGKILL)
        (values,) = both.scrapes(1)
        assert {sample: values.get(sample, 0.0) for sample in both.expected()} == both.expected()
        assert both.gauges() == set()
        assert values["sqlmetrics_processes", (("state", "alive"),)] == 0
    assert "counts in its own memory" not in both.log() + (both.store.parent / "one.log").read_text()
    assert_tidy(both)
