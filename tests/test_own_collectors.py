"""`prometheus_client`'s own collectors: CPU, memory and garbage collection of each process."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from apps.serving import APPS, Values, parse, serving
from helpers import Shell, ask, child, names_of, value, wait_for
from launching import SQLMETRICS, run
from prometheus_client import (
    GC_COLLECTOR,
    PROCESS_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.parser import text_string_to_metric_families

import sqlmetrics

pytestmark = pytest.mark.promise(9, 12)
COUNTED = ("counter", "histogram", "summary")


def counters(text: str) -> Values:
    """What must never fall in a scrape."""
    families = [one for one in text_string_to_metric_families(text) if one.type in COUNTED]
    samples = [sample for one in families for sample in one.samples if not sample.name.endswith("_created")]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


@pytest.mark.slow
def test_no_counter_of_the_whole_text_ever_falls(folder: Path, path: str) -> None:
    """Thirty scrapes of the default registry, by whichever worker, while workers come and go and one is killed."""
    options = ["-w4", "--max-requests=40", "--max-requests-jitter=20"]
    seen: Values = {}
    cpus: set[str] = set()
    with serving(folder, "defaults:app", *options, SQLMETRICS_PATH=path) as server:

        def scraped() -> Values:
            now = counters(server.get("/metrics").text)
            fallen = {key: (seen[key], now[key]) for key in now.keys() & seen.keys() if now[key] < seen[key]}
            assert fallen == {}
            seen.update(now)
            cpus.update(labels[0][1] for name, labels in now if name == "process_cpu_seconds_total")
            return now

        wait_for(lambda: "process_cpu_seconds_total{" in server.get("/metrics").text)
        for number in range(30):
            server.get_all(["/work"] * 12)
            if number == 15:
                os.kill(server.get("/work").worker, signal.SIGKILL)
            assert scraped()["requests_total", (("path", "/work"),)] >= 12 * (number + 1)
        assert server.log().count("Booting worker") >= 8
        wait_for(lambda: scraped() and len(cpus) > 4)  # of the later ones, too
    assert all(name != "process_cpu_seconds_total" or labels for name, labels in seen)


@pytest.mark.slow
def test_gunicorns_hook_publishes_each_worker_and_not_the_master(folder: Path, path: str) -> None:
    """Each once, with its pid; the Python that they have in common once."""
    with serving(folder, "defaults:app", "-w2", SQLMETRICS_PATH=path) as server:
        workers = {str(pid) for pid in server.workers(2)}

        def shown() -> set[str]:
            values = parse(server.get("/metrics").text)
            return {labels[0][1] for name, labels in values if name == "process_resident_memory_bytes"}

        wait_for(lambda: shown() == workers)
        values = parse(server.get("/metrics").text)
        assert sum(name == "python_info" for name, _ in values) == 1
        assert all(values["process_resident_memory_bytes", (("pid", pid),)] > 1e6 for pid in workers)


@pytest.mark.parametrize(("said", "expected"), [(None, {"process", "python"}), ("gc", {"python"}), ("", set())])
def test_a_launched_program_publishes_what_is_said(path: str, said: str | None, expected: set[str]) -> None:
    """All three if it says nothing; none if it is set to nothing."""
    program = """if True:
        import os, prometheus_client
        text = prometheus_client.generate_latest().decode()
        print([line for line in text.splitlines() if f'pid="{os.getpid()}"' in line])
    """
    environment = {name: text for name, text in os.environ.items() if name != "SQLMETRICS_PUBLISH"}
    if said is not None:
        environment["SQLMETRICS_PUBLISH"] = said
    done = run(
        sys.executable,
        "-c",
        program,
        path=path,
        env=environment | ({} if said is None else {"SQLMETRICS_PUBLISH": said}),
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert {kind for kind in ("process", "python") if f"'{kind}_" in done.stdout} == expected


def test_install_publishes_what_the_environment_says(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing where it says nothing."""
    monkeypatch.setenv("SQLMETRICS_PUBLISH", "process, gc")
    sqlmetrics.install(path)
    me = str(os.getpid())

    assert value("process_resident_memory_bytes", pid=me) > 1e6
    assert value("python_gc_collections_total", generation="0", pid=me) is not None
    sqlmetrics.uninstall()
    monkeypatch.delenv("SQLMETRICS_PUBLISH")
    sqlmetrics.install(path)
    assert ask(REGISTRY, "process_resident_memory_bytes") > 1e6


def test_what_is_none_of_them_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is replaced, with what there is."""
    monkeypatch.setenv("SQLMETRICS_PUBLISH", "process,memory")
    with pytest.raises(ValueError, match=r"'memory' is none of process, gc, platform"):
        sqlmetrics.install(path)
    assert not os.path.exists(path)


def test_a_collector_that_the_app_takes_out_is_published_no_more(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before `install` or after it: an app that does not want it says so in this way."""
    monkeypatch.setenv("SQLMETRICS_PUBLISH", "process,gc")
    REGISTRY.unregister(GC_COLLECTOR)
    try:
        sqlmetrics.install(path)
        assert value("process_open_fds", pid=str(os.getpid())) > 0
        assert value("python_gc_collections_total", generation="0", pid=str(os.getpid())) is None
        REGISTRY.unregister(PROCESS_COLLECTOR)
        wait_for(lambda: value("process_open_fds", pid=str(os.getpid())) is None)
    finally:
        for one in (GC_COLLECTOR, PROCESS_COLLECTOR):
            if one not in REGISTRY._collector_to_names:
                REGISTRY.register(one)


@pytest.mark.slow
def test_a_registry_with_a_process_collector_of_its_own_shows_all(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many apps make it for each scrape, beside the collector of the store; one with another prefix is its own."""
    monkeypatch.setenv("SQLMETRICS_PUBLISH", "process")
    sqlmetrics.install(path, flush_interval=0.05)
    with child(nothing=lambda: None) as one:
        wait_for(lambda: value("process_open_fds", pid=str(one.pid)))
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        ProcessCollector("app", registry=registry)
        sqlmetrics.MultiProcessCollector(registry)

        for pid in (os.getpid(), one.pid):
            assert ask(registry, "process_open_fds", pid=str(pid)) > 0
        assert names_of(registry).count("process_open_fds") == 2
        assert names_of(registry).count("app_process_open_fds") == 1


def test_a_platform_collector_of_another_platform_is_its_own(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the platform that is published shows what is published."""

    class Platform:
        python_version = staticmethod(lambda: "1.2.3")
        python_version_tuple = staticmethod(lambda: ("1", "2", "3"))
        python_implementation = staticmethod(lambda: "another")
        system = staticmethod(lambda: "another")

    monkeypatch.setenv("SQLMETRICS_PUBLISH", "platform")
    store = sqlmetrics.install(path)
    store.flush()
    mine, another = CollectorRegistry(), CollectorRegistry()
    PlatformCollector(registry=mine)
    PlatformCollector(registry=another, platform=Platform())

    def implementations(registry: CollectorRegistry) -> list[str]:
        return [sample.labels["implementation"] for family in registry.collect() for sample in family.samples]

    assert implementations(mine) == [platform.python_implementation()]
    assert implementations(another) == ["another"]


@pytest.mark.slow
def test_a_forked_process_begins_after_a_second(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for a short job says nothing of itself, which would cost more than many a job."""
    monkeypatch.setenv("SQLMETRICS_PUBLISH", "process,gc,platform")
    sqlmetrics.install(path, flush_interval=0.05)
    assert value("process_open_fds", pid=str(os.getpid())) > 0
    forked = time.monotonic()
    with child(look=lambda: value("process_open_fds", pid=str(os.getpid()))) as one:
        wait_for(lambda: one.do("look") is not None)
        assert time.monotonic() - forked >= 1.0


@pytest.mark.slow
def test_self_metrics_by_the_environment(path: str) -> None:
    """At an endpoint of the default registry, and at those of this package; an argument goes first."""
    program = """if True:
        import prometheus_client, sqlmetrics
        assert "sqlmetrics_processes{" in prometheus_client.generate_latest().decode()
        assert "sqlmetrics_processes{" in sqlmetrics.generate_latest().decode()
        assert "sqlmetrics_" not in sqlmetrics.generate_latest(self_metrics=False).decode()
        registry = prometheus_client.CollectorRegistry()
        sqlmetrics.MultiProcessCollector(registry)
        assert registry.get_sample_value("sqlmetrics_processes", {"state": "alive"}) is not None
    """
    environment = os.environ | {"SQLMETRICS_SELF_METRICS": "1"}
    done = run(sys.executable, "-c", program, path=path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(sys.executable, "-c", program, path=path, env=environment | {"SQLMETRICS_SELF_METRICS": "maybe"})
    assert "SQLMETRICS_SELF_METRICS='maybe' cannot be used" in done.stderr


@pytest.mark.parametrize("setting", ["gunicorn-worker", "hostname-pid"])
def test_ready_made_names_of_processes(folder: Path, path: str, setting: str) -> None:
    """A worker's number stays when another takes its place; a host's name tells containers apart."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_PROCESS_IDENTIFIER": setting}
    with serving(folder, "counting:app", "-w2", **environment) as server:
        first = server.workers(2)

        def names() -> set[str]:
            values = parse(server.get("/metrics").text)
            return {labels[0][1] for name, labels in values if name == "last"}

        def expected(workers: set[int]) -> set[str]:
            return {"1", "2"} if setting == "gunicorn-worker" else {f"{os.uname().nodename}-{pid}" for pid in workers}

        server.get_all(["/"] * 20)
        wait_for(lambda: (server.get_all(["/"] * 4), names() == expected(first))[1])
        os.kill(next(iter(first)), signal.SIGKILL)
        wait_for(lambda: server.log().count("Booting worker") == 3)
        second = wait_for(lambda: (found := server.workers(2)) != first and found)
        wait_for(lambda: (server.get_all(["/"] * 4), names() == expected(second))[1])


@pytest.mark.parametrize("setting", ["", "hostname-pid"])
@pytest.mark.slow
def test_gunicorn_notes_the_end_of_a_worker_that_is_named_by_its_pid(
    folder: Path, path: str, shell: Shell, setting: str
) -> None:
    """At once, before anybody flushes or scrapes."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_PROCESS_IDENTIFIER": setting}
    with serving(folder, "counting:app", "-w2", **environment, SQLMETRICS_FLUSH_INTERVAL="1000") as server:
        os.kill(worker := next(iter(server.workers(2))), signal.SIGKILL)
        shell.wait_for_row(f"SELECT 1 FROM deaths WHERE noticed = 'notice' AND os_pid = {worker}")


def test_the_end_of_a_process_is_not_that_of_the_worker_with_its_number(path: str) -> None:
    """In a container pids are as small as the numbers of workers; those that are alive keep their gauges."""
    program = """if True:
        import types
        import sqlmetrics.gunicorn as hooks
        from prometheus_client import CollectorRegistry, Gauge
        hooks.post_fork(None, types.SimpleNamespace(sqlmetrics_number=7))
        Gauge("busy", "Busy", multiprocess_mode="livesum").set(1)
        hooks.child_exit(None, types.SimpleNamespace(pid=7, sqlmetrics_number=3))
        registry = CollectorRegistry()
        hooks.sqlmetrics.MultiProcessCollector(registry)
        print(registry.get_sample_value("busy"))
    """
    environment = os.environ | {"SQLMETRICS_PATH": path, "SQLMETRICS_PROCESS_IDENTIFIER": "gunicorn-worker"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1.0\n", "")


def test_without_our_pre_fork_a_worker_has_its_pid_for_a_name(folder: Path, path: str) -> None:
    """A configuration may have a hook of its own in its place."""
    environment = {"SQLMETRICS_PATH": path, "SQLMETRICS_PROCESS_IDENTIFIER": "gunicorn-worker"}
    with serving(folder, "counting:app", "-w1", config=str(APPS / "own_pre_fork.py"), **environment) as server:
        (worker,) = server.workers(1)
        assert f'last{{pid="{worker}"}}' in server.get("/metrics").text


def test_an_unknown_name_of_processes_is_refused(path: str) -> None:
    """With what there is."""
    environment = os.environ | {"SQLMETRICS_PROCESS_IDENTIFIER": "os:environ"}
    command = [*SQLMETRICS, "run", "--path", path, "--", sys.executable, str(APPS / "installed.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "hostname-pid, gunicorn-worker, uwsgi-worker" in done.stderr
