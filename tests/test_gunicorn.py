"""The hooks under a real gunicorn, its newest release and 23.0.0, which runs `child_exit` in a signal handler."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from apps.serving import APPS, NEWEST, Installed, Server, Values, parse, serving
from helpers import Shell, wait_for

pytestmark = [pytest.mark.promise(2, 3), pytest.mark.slow]

_FOLDER_OF_23 = os.environ.get("SQLMETRICS_GUNICORN23", "")  # now: a fixture clears the variables for each test


@pytest.fixture(scope="session", params=["newest", "23.0.0"])
def gunicorn(request: pytest.FixtureRequest) -> Installed:
    """Each gunicorn that the tests of signals and deaths run under; 23.0.0 is in a folder of its own."""
    if request.param == "newest":
        return NEWEST
    if not _FOLDER_OF_23:
        pytest.skip("pip install --target FOLDER gunicorn==23.0.0, and set SQLMETRICS_GUNICORN23=FOLDER")
    installed = Installed(environment={"PYTHONPATH": _FOLDER_OF_23})
    assert installed.version() == (23, 0, 0)
    return installed


def work(server: Server, number: int) -> None:
    """Have a number of requests counted."""
    server.get_all(f"/?{n}" for n in range(number))


def kill(server: Server, *victims: int) -> None:
    """Kill workers at once, and wait until gunicorn has noticed."""
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    wait_for(lambda: all(f"(pid:{victim})" in server.log() for victim in victims))


def states(shell: Shell) -> dict[object, object]:
    """What the view `processes` says of each pid."""
    return {row["pid"]: row["state"] for row in shell("SELECT pid, state FROM processes")}


def pids(values: Values, name: str) -> set[int]:
    """The processes that a gauge of mode `all` or `liveall` shows."""
    return {int(dict(labels)["pid"]) for found, labels in values if found == name}


def masters(server: Server, options: list[str]) -> set[int]:
    """The master, if it loads the app too: then it is one of the processes that have gauges, as in the peer."""
    return {server.process.pid} if "--preload" in options else set()


def assert_exact(server: Server, workers: set[int], counted: int, others: Iterable[int], ended: Iterable[int]) -> None:
    """Every scrape of each of the server's workers shows all that was counted, who lives and who lived."""
    living = workers.union(others)
    for values in server.scrapes(workers):
        assert values["requests_total", (("path", "/"),)] == counted
        assert values["latency_seconds_count", (("path", "/"),)] == counted
        assert values["latency_seconds_bucket", (("le", "+Inf"), ("path", "/"))] == counted
        assert values["busy", ()] == 0
        assert pids(values, "last") == living
        assert pids(values, "ever") == living.union(ended)


def assert_tidy(folder: Path) -> None:
    """At most four files, and none that `prometheus_client` would read or an entrypoint would delete."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith("gunicorn-")]
    assert len(names) <= 4, names
    assert not [name for name in names if name.endswith(".db")]


def test_every_scrape_of_every_worker_is_exact_across_a_kill(folder: Path, path: str, gunicorn: Installed) -> None:
    """Four workers, a thousand requests, and a SIGKILL to one of them in the middle of another request."""
    with serving(folder, "counting:app", "-w4", gunicorn=gunicorn, SQLMETRICS_PATH=path) as server:
        first = server.workers(4)
        work(server, 500)
        assert_exact(server, first, 500, others=(), ended=())
        victim, cut_off = server.hold()
        assert parse(server.get("/metrics").text)["busy", ()] == 1

        kill(server, victim)
        cut_off()
        living = server.workers(4)
        assert living & first == first - {victim}
        assert_exact(server, living, 500, others=(), ended={victim})
        work(server, 500)
        assert_exact(server, living, 1000, others=(), ended={victim})
    assert_tidy(folder)


def test_two_workers_killed_at_once_leave_what_they_counted(folder: Path, path: str, gunicorn: Installed) -> None:
    """Their deaths are reported close to one another, so that one report can come in the middle of another."""
    with serving(folder, "counting:app", "-w4", gunicorn=gunicorn, SQLMETRICS_PATH=path) as server:
        first = server.workers(4)
        work(server, 100)
        victims = set(sorted(first)[:2])
        kill(server, *victims)
        living = server.workers(4)

        assert living & first == first - victims
        assert_exact(server, living, 100, others=(), ended=victims)
    assert_tidy(folder)


def test_child_exit_notes_a_death_at_once(folder: Path, path: str, shell: Shell, gunicorn: Installed) -> None:
    """With no scrape and no flush after it: only the hook can have told the shell."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_FLUSH_INTERVAL": "3600"}
    with serving(folder, "counting:app", "-w2", gunicorn=gunicorn, **environment) as server:
        work(server, 10)
        first = server.workers(2)
        wait_for(lambda: states(shell) == {str(pid): "unsettled" for pid in first})
        server.process.send_signal(signal.SIGTTOU)  # one worker less, and none in its place

        wait_for(lambda: sorted(states(shell).values()) == ["remembered", "unsettled"])
        assert shell.value("SELECT count(*) FROM samples WHERE metric = 'last'") == 1
        assert shell.value("SELECT count(*) FROM samples WHERE metric = 'ever'") == 2


@pytest.mark.promise(8)
def test_workers_that_are_replaced_all_the_time_lose_nothing(folder: Path, path: str, gunicorn: Installed) -> None:
    """With --max-requests, as deployments have it; some ten workers come and go."""
    options = ("-w4", "--max-requests", "25", "--max-requests-jitter", "5")
    with serving(folder, "counting:app", *options, gunicorn=gunicorn, SQLMETRICS_PATH=path) as server:
        work(server, 300)

        assert parse(server.get("/metrics").text)["requests_total", (("path", "/"),)] == 300
    assert_tidy(folder)


def test_threads_of_one_worker_count_together(folder: Path, path: str) -> None:
    """The gthread worker answers several requests at once in one process."""
    with serving(folder, "counting:app", "-w2", "--threads=4", SQLMETRICS_PATH=path) as server:
        living = server.workers(2)
        work(server, 500)
        assert_exact(server, living, 500, others=(), ended=())


def test_a_start_drops_what_earlier_runs_left(folder: Path, path: str) -> None:
    """A deployment begins at zero, as with the peer's directory that is wiped, and no process of old is shown."""
    for _ in range(2):
        with serving(folder, "counting:app", "-w2", SQLMETRICS_PATH=path) as server:
            living = server.workers(2)
            work(server, 50)
            assert_exact(server, living, 50, others=(), ended=())
    assert_tidy(folder)


def test_a_second_gunicorn_drops_nothing_while_the_first_lives(folder: Path, path: str) -> None:
    """Both show what both count, and the end of one takes nothing away."""
    with serving(folder, "counting:app", "-w2", SQLMETRICS_PATH=path) as one:
        first = one.workers(2)
        work(one, 50)
        with serving(folder, "counting:app", "-w2", SQLMETRICS_PATH=path) as other:
            second = other.workers(2)
            work(other, 7)
            assert_exact(other, second, 57, others=first, ended=())
            assert_exact(one, first, 57, others=second, ended=())
        assert_exact(one, first, 57, others=(), ended=second)
    assert_tidy(folder)


def test_a_binary_upgrade_goes_on_counting(folder: Path, path: str) -> None:
    """After USR2 two masters share the store; the first leaves, and nothing was dropped."""
    with serving(folder, "counting:app", "-w2", SQLMETRICS_PATH=path) as server:
        first = server.workers(2)
        work(server, 50)
        server.process.send_signal(signal.SIGUSR2)
        second = server.workers(4, known=first) - first
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)

        assert_exact(server, second, 50, others=(), ended=first)
        work(server, 50)
        assert_exact(server, second, 100, others=(), ended=first)
    assert_tidy(folder)


def test_a_reload_goes_on_counting(folder: Path, path: str, gunicorn: Installed) -> None:
    """After HUP new workers take the place of the old, under the same master and in the same run."""
    with serving(folder, "counting:app", "-w2", gunicorn=gunicorn, SQLMETRICS_PATH=path) as server:
        first = server.workers(2)
        work(server, 50)
        server.process.send_signal(signal.SIGHUP)
        second = server.workers(4, known=first) - first
        wait_for(lambda: pids(parse(server.get("/metrics").text), "last") == second)

        assert_exact(server, second, 50, others=(), ended=first)


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preload"])
def test_the_hooks_can_be_imported_into_a_configuration(folder: Path, path: str, options: list[str]) -> None:
    """The user's own settings and hooks stay in force; that the second start begins at zero shows `on_starting`."""
    config = str(APPS / "hooks.py")
    for _ in range(2):
        with serving(folder, "counting:app", *options, config=config, SQLMETRICS_PATH=path) as server:
            first = server.workers(2)
            work(server, 50)
            kill(server, victim := min(first))
            living = server.workers(2)

            assert_exact(server, living, 50, others=masters(server, options), ended={victim})
            assert "a hook of the user's own ran too" in server.log()


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preload"])
@pytest.mark.promise(7)
def test_the_peers_variable_names_the_store(
    folder: Path, options: list[str], gunicorn: Installed, shell: Shell
) -> None:
    """With PROMETHEUS_MULTIPROC_DIR no mmap file appears, also where the app is loaded before any hook is called."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with serving(folder, "counting:app", "-w2", *options, gunicorn=gunicorn, **environment) as server:
        first = server.workers(2)
        work(server, 50)
        kill(server, victim := min(first))
        living = server.workers(2)

        assert_exact(server, living, 50, others=masters(server, options), ended={victim})
        assert shell("SELECT * FROM metrics WHERE metric = 'ever'")
        assert_tidy(folder)
    assert_tidy(folder)


def delete(path: str) -> None:
    """What a start script does that wipes the folder."""
    for file in Path(path).parent.glob("metrics*"):
        file.unlink()


def delete_folder(path: str) -> None:
    """What a cleaner of temporary folders does."""
    shutil.rmtree(Path(path).parent)


def replace_by_garbage(path: str) -> None:
    """What a restored backup that is damaged does."""
    garbage = Path(path + ".garbage")
    garbage.write_bytes(b"no database" * 1000)
    garbage.rename(path)


@pytest.mark.parametrize("harm", [delete, delete_folder, replace_by_garbage])
def test_gunicorn_survives_what_is_done_to_its_store(folder: Path, harm: Callable[[str], None]) -> None:
    """A death that cannot be noted ends neither the master nor the requests of those that live."""
    path = folder / "store" / "metrics.sqlite3"
    path.parent.mkdir()
    with serving(folder, "counting:app", "-w2", SQLMETRICS_PATH=str(path)) as server:
        first = {server.get("/").worker for _ in range(10)}
        harm(str(path))
        kill(server, min(first))

        wait_for(lambda: {answer.worker for answer in server.get_all(["/"] * 8)} - first)
        assert server.process.poll() is None, server.log()


def has_all(server: Server, workers: set[int]) -> bool:
    """Whether there is a store, and these workers are in it."""
    answer = server.ask("/metrics")
    return answer.status == 200 and pids(parse(answer.text), "last") == workers


def test_a_death_after_the_store_was_replaced_changes_no_count(folder: Path, path: str, gunicorn: Installed) -> None:
    """The master, which never counts, has to note it in the new store and not by the old store's cells."""
    with serving(folder, "counting:app", "-w2", gunicorn=gunicorn, SQLMETRICS_PATH=path) as server:
        first = server.workers(2)
        work(server, 50)
        delete(path)
        wait_for(lambda: work(server, 1) or has_all(server, first))
        counted = parse(server.get("/metrics").text)["requests_total", (("path", "/"),)]
        kill(server, min(first))

        living = server.workers(2)
        assert_exact(server, living, counted, others=(), ended=first - living)
