"""What the demo does to its server, and what it then looks at."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import checks, crew, shell
from .checks import Check, Scrape
from .crew import Crew
from .load import Client
from .server import START_SECONDS, DemoError, Server, wait

VICTIM_NUMBER = 90
ROWS_SECONDS = 5
"""How long rows may take to show everything: a flush comes once a second, and the machine may be busy."""
QUERIES = (
    "SELECT pid, state, rows FROM processes",
    "SELECT ifnull(pid, 'ended') AS pid, sum(value) AS requests\n  FROM samples WHERE metric = 'demo_requests_total'"
    " GROUP BY 1",
    "SELECT labels, value FROM metrics WHERE metric = 'demo_requests_total'",
)


@dataclass
class Findings:
    """Every number that was looked at, by the part of the screen it belongs to.

    rows: what the shell gave for each of `QUERIES`.
    """

    requests: list[Check] = field(default_factory=list)
    gauges_before: list[Check] = field(default_factory=list)
    gauges_after: list[Check] = field(default_factory=list)
    in_progress: list[Check] = field(default_factory=list)
    others: list[Check] = field(default_factory=list)
    rows: list[shell.Rows] = field(default_factory=list)

    def all(self) -> list[Check]:
        """Every check there is."""
        return [*self.requests, *self.gauges_before, *self.gauges_after, *self.in_progress, *self.others]


class Acts:
    """The acts of the demo on a server, to be called in the order in which they stand here."""

    def __init__(self, server: Server):
        self.server = server
        self.client = Client(server.port, threads=2 * server.workers)
        self.crew = Crew()
        self.findings = Findings()

    def load(self, number: int, step: Callable[[], object]) -> None:
        """Send requests from several threads, one of ten to a page that is not there."""
        self.client.get_all(["/missing" if n % 10 == 9 else "/" for n in range(number)], step)

    def set_gauges(self) -> None:
        """Have each worker set its gauges to a number of its own, 1 to n; which one is asked is chance."""
        numbers = range(1, self.server.workers + 1)

        def everyone_has_one() -> bool:
            number = next(iter(self.crew.missing(numbers)), 1)
            self.crew.has_set(self.client.get("/gauges?" + crew.query(number)).worker, number)
            return not self.crew.missing(numbers)

        wait(everyone_has_one, START_SECONDS, lambda: DemoError("one of the workers never answered"))

    def kill_a_worker(self) -> tuple[str, str]:
        """Kill a worker in the middle of a request; returns its pid and that of its successor."""
        victim, finish = self.client.begin("/slow?" + crew.query(VICTIM_NUMBER))
        self.crew.has_set(victim, VICTIM_NUMBER)
        scrape = self._scrape(self.crew.living - {victim})
        self.findings.gauges_before = checks.gauges(self.crew, scrape, "before the kill")
        self.findings.in_progress += [Check("in progress before the kill", 1, scrape.value("demo_in_progress"))]
        os.kill(int(victim), signal.SIGKILL)
        self.findings.others += [Check("complete answers of the killed worker", 0, int(finish()))]
        self.crew.has_ended(victim)
        return victim, self._await_successor()

    def look(self) -> None:
        """Scrape every worker, ask the shell, list the folder."""
        scrape = self._scrape(self.crew.living)
        self.findings.requests = checks.requests(self.client.answered, scrape)
        self.findings.gauges_after = checks.gauges(self.crew, scrape, "after the kill")
        self.findings.in_progress += [Check("in progress after the kill", 0, scrape.value("demo_in_progress"))]
        self.findings.others += [*self._ask_shell(scrape), *checks.files(self.server.folder)]

    def _await_successor(self) -> str:
        known = self.crew.living | self.crew.ended

        def newcomer() -> str | None:
            worker = self.client.get("/gauges").worker
            return None if worker in known else worker

        successor = wait(newcomer, START_SECONDS, lambda: DemoError("gunicorn replaced the killed worker by none"))
        self.crew.living.add(successor)
        return successor

    def _scrape(self, workers: set[str]) -> Scrape:
        """Scrape until each of the workers has answered; that all say the same is checked."""
        texts: dict[str, str] = {}

        def everyone_answered() -> bool:
            targets = ["/metrics"] * 2 * self.server.workers
            texts.update((answer.worker, answer.text) for answer in self.client.fetch_all(targets))
            return workers <= texts.keys()

        wait(everyone_answered, START_SECONDS, lambda: DemoError("one of the workers was never scraped"))
        # Whatever their order: a process that is settled between two answers has another place among the others.
        answers = {frozenset(text.splitlines()) for text in texts.values()}
        self.findings.others += [Check("different answers to one scrape", 1, len(answers))]
        return Scrape(next(iter(texts.values())))

    def _ask_shell(self, scrape: Scrape) -> list[Check]:
        deadline = time.monotonic() + ROWS_SECONDS
        while True:
            self.findings.rows = [shell.query(self.server.store, sql) for sql in QUERIES]
            found = checks.rows(self.crew, self.client.answered, *self.findings.rows)
            is_done = checks.have_caught_up(self.findings.rows[-1], scrape) and all(check.is_right for check in found)
            if is_done or time.monotonic() > deadline:
                return found
            time.sleep(0.1)
