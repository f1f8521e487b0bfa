"""What starts, ends and restarts around a store: nothing is lost but what a new run is meant to drop."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from apps.serving import Server, Values, parse, serving
from helpers import FILES, Shell, child, scrape, value, wait_for
from outsiders import NOBODY, as_root, python
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics.store import resets

pytestmark = [pytest.mark.promise(3, 8), pytest.mark.slow]

readable_by_all = pytest.mark.skipif(
    not all(os.stat(folder).st_mode & stat.S_IXOTH for folder in Path(sys.prefix, "x").parents),
    reason=f"another user cannot import anything from {sys.prefix}",
)


def answered(server: Server, number: int) -> int:
    """Send requests while workers come and go, each until it is answered; each answer was counted exactly once."""

    def until_answered(_: int) -> None:
        def is_answered() -> bool:
            try:
                return server.ask("/").status == 200
            except (OSError, server.Cut):  # the worker left with the connection in its queue, before reading it
                return False

        wait_for(is_answered)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(until_answered, range(number)))
    return number


def counted(values: Values) -> float:
    """How many requests a scrape shows."""
    return values.get(("requests_total", (("path", "/"),)), 0)


def shown(server: Server) -> float:
    """How many requests the server's own scrape shows."""
    return counted(parse(server.get("/metrics").text))


def test_a_lone_worker_that_is_replaced_every_fifty_requests_loses_nothing(folder: Path, path: str) -> None:
    """The only one: between two of them no process that counts lives, and yet nothing is dropped."""
    with serving(folder, "counting:app", "-w1", "--max-requests=50", SQLMETRICS_PATH=path) as server:
        assert answered(server, 320) == 320
        wait_for(lambda: shown(server) == 320)
        assert len(set(re.findall(r"Booting worker with pid: (\d+)", server.log()))) >= 6


def test_workers_that_are_replaced_under_load_lose_nothing(folder: Path, path: str) -> None:
    """With jitter, as deployments have it; then HUP in the middle of the load."""
    options = ["-w4", "--max-requests=30", "--max-requests-jitter=20"]
    with serving(folder, "counting:app", *options, SQLMETRICS_PATH=path) as server, ThreadPoolExecutor(1) as pool:
        load = pool.submit(answered, server, 600)
        wait_for(lambda: server.log().count("Booting worker") >= 8)
        server.process.send_signal(signal.SIGHUP)
        assert load.result() == 600
        wait_for(lambda: shown(server) == 600)


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preload"])
def test_a_worker_that_hangs_and_is_killed_keeps_its_counts(folder: Path, path: str, options: list[str]) -> None:
    """gunicorn sends SIGABRT, then SIGKILL: what it had counted stays, its live gauges go."""
    with serving(folder, "counting:app", "-w1", "--timeout=2", *options, SQLMETRICS_PATH=path) as server:
        answered(server, 20)
        victim, cut_off = server.hold()
        os.kill(victim, signal.SIGSTOP)  # SIGABRT waits until it goes on, which it does not
        cut_off()
        wait_for(lambda: "WORKER TIMEOUT" in server.log() and server.workers(1))
        answered(server, 20)

        values = parse(server.get("/metrics").text)
        assert counted(values) == 40
        assert values["busy", ()] == 0
        assert ("last", (("pid", str(victim)),)) not in values


def test_an_upgrade_that_is_called_off_changes_nothing(folder: Path, path: str) -> None:
    """USR2, then TERM for the new master: the old one goes on as if nothing had been."""
    with serving(folder, "counting:app", "-w2", SQLMETRICS_PATH=path) as server:
        answered(server, 30)
        server.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: server.log().count("Listening at") == 2)
        answered(server, 30)
        os.kill(int(re.findall(r"\[(\d+)\] \[INFO\] Listening at", server.log())[1]), signal.SIGTERM)
        wait_for(lambda: "Shutting down: Master" in server.log())
        answered(server, 30)

        wait_for(lambda: shown(server) == 90)


@pytest.mark.parametrize("persist", ["0", "1"])
def test_a_start_remembers_who_ended_before(folder: Path, path: str, shell: Shell, persist: str) -> None:
    """An app that crashed with all its workers, and that a supervisor has started again."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_PERSIST": persist}
    killed: list[int] = []
    for number in range(3):
        with serving(folder, "counting:app", "-w2", **environment) as server:
            workers = server.workers(2)
            assert shell.value("SELECT ifnull(sum(ended), 0) FROM ended_count") == 2 * number
            assert {row["os_pid"] for row in shell("SELECT os_pid FROM deaths")} == set(killed)
            assert {row["noticed"] for row in shell("SELECT noticed FROM deaths")} <= {"start"}
            for pid in (server.process.pid, *workers):
                os.kill(pid, signal.SIGKILL)
            killed += workers
    sqlmetrics.reset(path, force=True)  # a killed worker may not be gone yet
    assert shell("SELECT * FROM deaths") == []


def test_sums_persist_over_starts_and_gauges_begin_anew(folder: Path, path: str) -> None:
    """With SQLMETRICS_PERSIST=1 counters and histograms go on over starts and a killed master; gauges begin anew."""
    for runs in range(1, 4):
        with serving(folder, "counting:app", "-w2", SQLMETRICS_PATH=path, SQLMETRICS_PERSIST="1") as server:
            living = server.workers(2)
            answered(server, 25)
            for values in server.scrapes(living):
                assert counted(values) == values["latency_seconds_count", (("path", "/"),)] == 25 * runs
                assert {int(dict(labels)["pid"]) for name, labels in values if name in ("ever", "last")} <= living
            if runs == 2:
                os.killpg(server.process.pid, signal.SIGKILL)
                server.process.wait()
                break
    with serving(folder, "counting:app", "-w1", SQLMETRICS_PATH=path, SQLMETRICS_PERSIST="yes") as server:
        assert shown(server) == 50
    with serving(folder, "counting:app", "-w1", SQLMETRICS_PATH=path, SQLMETRICS_PERSIST="0") as server:
        assert shown(server) == 0


def test_a_reset_by_hand_is_refused_while_the_server_runs(folder: Path, path: str) -> None:
    """Refused while the server runs, also in a moment in which no worker has a part of the store; then done."""
    with serving(folder, "counting:app", "-w1", SQLMETRICS_PATH=path) as server:
        answered(server, 10)
        with pytest.raises(sqlmetrics.StoreInUseError, match=r"1 living process.*stop them first, or force it"):
            sqlmetrics.reset(path)
        assert shown(server) == 10
    assert sum(count for (name, _), count in scrape(path).items() if name == "requests_total") == 10
    sqlmetrics.reset(path)
    assert scrape(path) == {}


def test_batch_jobs_one_after_the_other_add_up(path: str) -> None:
    """Without a launcher nobody resets: they add up."""
    job = """
        import sys, sqlmetrics
        from prometheus_client import Counter
        sqlmetrics.install(sys.argv[1])
        Counter("rows", "Rows").inc(int(sys.argv[2]))
    """
    for number in range(1, 5):
        python(job, path, str(number))

    assert scrape(path) == {("rows_total", ()): 1 + 2 + 3 + 4}


def test_a_second_gunicorn_resets_nothing_after_the_store_was_deleted(folder: Path, path: str) -> None:
    """The first master holds its lock on the new files too, though it counts nothing itself."""
    options = ["-w1", "--max-requests=20"]
    with serving(folder, "counting:app", *options, SQLMETRICS_PATH=path) as server:
        answered(server, 10)
        for suffix in FILES:
            os.unlink(path + suffix)
        wait_for(lambda: os.path.exists(path + "-cells") and shown(server) == 10)
        answered(server, 30)  # the worker's end is what makes the master look
        wait_for(lambda: shown(server) == 40)
        with serving(folder, "counting:app", "-w1", SQLMETRICS_PATH=path) as other:
            assert shown(other) == 40


@as_root
@readable_by_all
@pytest.mark.parametrize("options", [[], ["--preload"], ["--group=nogroup"]], ids=["", "preload", "group"])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_workers_of_another_user_share_roots_files(folder: Path, path: str, options: list[str], umask: int) -> None:
    """Root's files, that the workers' group may write, and nobody else; it all works, also when they are made anew."""
    folder.chmod(0o1777)
    before = os.umask(umask)
    try:
        with serving(folder, "counting:app", "-w2", "--user=nobody", *options, SQLMETRICS_PATH=path) as server:
            _use_as_another_user(server, path)
    finally:
        os.umask(before)


def _use_as_another_user(server: Server, path: str) -> None:
    victim = min(server.workers(2))
    assert os.stat(f"/proc/{victim}").st_uid == NOBODY
    answered(server, 20)
    assert {_rights(path + suffix) for suffix in FILES} == {(0, os.stat(f"/proc/{victim}").st_gid, 0o660)}
    os.kill(victim, signal.SIGKILL)
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.log().count("Booting worker") >= 4)
    answered(server, 20)
    wait_for(lambda: shown(server) == 40)
    for suffix in FILES:
        os.unlink(path + suffix)
    wait_for(lambda: os.path.exists(path + "-cells") and answered(server, 1) and shown(server) > 0)
    assert {_rights(path + suffix)[2] for suffix in FILES} == {0o660}


def _rights(name: str) -> tuple[int, int, int]:
    status = os.stat(name)
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_who_comes_while_a_launcher_empties_the_store_keeps_its_counts(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment after the launcher has seen that nobody uses it."""
    jobs = Counter("jobs", "Jobs done", ["by"])
    with child(count=lambda: jobs.labels("newcomer").inc()) as newcomer:
        refuse = resets._refuse_if_used

        def then_count(*args: Any) -> None:
            refuse(*args)
            newcomer.do("count")

        monkeypatch.setattr(resets, "_refuse_if_used", then_count)
        store.begin_run(uid=os.geteuid(), gid=os.getegid())

        assert value("jobs_total", by="newcomer") == 1
        store.flush()
        assert value("jobs_total", by="newcomer") == 1
    assert value("jobs_total", by="newcomer") == 1
