"""Celery, dramatiq and rq, unmodified: what their tasks count is exact, whichever process is killed meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Sample
from exact import assert_tidy
from helpers import wait_for
from jobs import DONE, RUNNING, AtWork, Jobs, redis_server, working

pytestmark = pytest.mark.promise(3, 12)

_ACTOR = (("actor_name", "work"), ("queue_name", "default"))
_DRAMATIQ: dict[Sample, float] = {
    **DONE,
    ("dramatiq_messages_total", _ACTOR): 1.0,
    ("dramatiq_message_duration_milliseconds_count", _ACTOR): 1.0,
}
_WORK = ("task", "tasks.work")
_SIGNALS: dict[Sample, float] = {
    ("celery_tasks_total", (("queue", "celery"), ("state", "SUCCESS"), _WORK)): 1.0,
    ("celery_task_seconds_count", (_WORK,)): 1.0,
}
_AT_WORK: Sample = ("celery_tasks_running", (_WORK,))
_DRAMATIQ_IDLE = (RUNNING, ("dramatiq_messages_inprogress", _ACTOR))


@pytest.fixture
def redis(folder: Path) -> Iterator[int]:
    """The port of a Redis."""
    with redis_server(folder) as port:
        yield port


def row(page: str, heading: str, *versions: str) -> pytest.ParameterSet:
    """A section of a page, and what its row in the table says."""
    mark = pytest.mark.row("jobs", f"{page}: {heading}", *versions)
    return pytest.param(heading, marks=mark, id=heading)


@pytest.mark.parametrize("heading", [row("celery", "prefork", "celery", "billiard")])
def test_celery_children_are_killed_and_replaced(folder: Path, heading: str) -> None:
    """One is killed in the middle of its job, which Celery then drops: the gauge of jobs at work is right at once."""
    with working(Jobs("servers/celery.md", heading), folder, redis=0) as celery:
        celery.work_off(200)
        celery.until(lambda: len(celery.counting()) == 2)
        before = celery.counting()
        celery.kill(celery.at_work())
        assert celery.shown(RUNNING) == 0
        celery.until(lambda: celery.counting() - before)
        celery.work_off(100)
    assert_sound(celery)


@pytest.mark.parametrize("heading", [row("celery", "Children that are replaced", "celery", "billiard")])
def test_celery_children_come_and_go(folder: Path, heading: str) -> None:
    """Each does a few jobs, and is killed in one of them or ends by itself."""
    with working(Jobs("servers/celery.md", heading), folder, redis=0) as celery:
        celery.work_off(150)
        celery.kill(celery.at_work())
        celery.work_off(100)
        assert celery.shell.value("SELECT count(*) FROM processes WHERE state = 'unsettled'") <= 3
    assert_sound(celery)


@pytest.mark.row("jobs", "celery: Other pools", "celery", "gevent")
@pytest.mark.parametrize("options", ["-P threads -c 4", "-P gevent -c 4", "-P solo"])
def test_celerys_other_pools_count(folder: Path, options: str) -> None:
    """In the main process, which answers the scrapes as well."""
    with working(Jobs("servers/celery.md", "prefork", options=options), folder, redis=0) as celery:
        celery.work_off(200)
    assert_sound(celery)


def test_celerys_signals_count_every_task(folder: Path) -> None:
    """The page's module counts what the tasks count themselves."""
    page = Jobs("servers/celery.md", "prefork", samples=DONE | _SIGNALS, idle=(RUNNING, _AT_WORK))
    with working(page, folder, redis=0, change={"import os\n": "import os\n\nimport counting\n"}) as celery:
        celery.work_off(100)
        celery.kill(celery.at_work())
        assert celery.shown(_AT_WORK) == 0
    assert_sound(celery)


@pytest.mark.parametrize(
    "heading",
    [
        row("dramatiq", "Two processes", "dramatiq", "redis", "debian:redis-server"),
        row("dramatiq", "Processes that are spawned", "dramatiq", "redis", "debian:redis-server"),
    ],
)
def test_dramatiq_is_started_again_after_a_kill(folder: Path, redis: int, heading: str) -> None:
    """It ends when one of its processes was killed; its own middleware shows what both runs counted, in our store."""
    page = Jobs("servers/dramatiq.md", heading, samples=_DRAMATIQ, idle=_DRAMATIQ_IDLE)
    with working(page, folder, redis, dramatiq_prom_db=str(folder / "its own")) as dramatiq:
        dramatiq.work_off(200)
        dramatiq.until(lambda: len(dramatiq.counting()) == 2)
        dramatiq.kill(dramatiq.at_work())
        dramatiq.start_again()
        dramatiq.work_off(100)
    assert "Traceback" not in dramatiq.log()
    assert list((folder / "its own").iterdir()) == []
    assert_sound(dramatiq)


@pytest.mark.parametrize(
    "heading",
    [
        row("rq", "Work horses that are forked", "rq", "redis", "debian:redis-server"),
        row("rq", "Work horses that are spawned", "rq", "redis", "debian:redis-server"),
        row("rq", "Without work horses", "rq", "redis", "debian:redis-server"),
    ],
)
def test_rq_counts_in_a_process_for_each_job(folder: Path, redis: int, heading: str) -> None:
    """A work horse, which leaves by `os._exit`, or is killed; a worker of the pool is killed, too, and replaced."""
    with working(Jobs("servers/rq.md", heading), folder, redis) as rq:
        some, more = (6, 3) if "spawned" in heading else (150, 50)
        rq.work_off(some)
        rq.kill(rq.at_work())
        assert rq.shown(RUNNING) == 0
        before = wait_for(lambda: workers if len(workers := children(rq.process.pid)) == 2 else None)
        # Not the one with rq's scheduler, which goes on as an orphan and keeps its connection to Redis open.
        idle = wait_for(lambda: [worker for worker in before if not children(worker)])
        rq.kill(idle[0])
        wait_for(lambda: len(children(rq.process.pid) | before) == 3)
        rq.work_off(more)
    assert_sound(rq)


def children(pid: int) -> set[int]:
    """The processes that a process has forked, and that live: of the others there is no command line."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in found if command_line(child)}


def command_line(pid: str) -> bytes:
    """That of a process, b'' if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def assert_sound(deployment: AtWork) -> None:
    """Nobody went without the store, and its files are in order."""
    assert "counts in its own memory" not in deployment.log()
    assert_tidy(deployment)
