"""Whose numbers a registry shows: all processes', or those of its own metrics only.

Each program runs twice on one store, so the second one could show what the first has counted.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any

import pytest
from apps.serving import serving
from helpers import Shell, ask, child, in_child, scrape
from launching import write
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
    make_wsgi_app,
    start_http_server,
    write_to_textfile,
)

import sqlmetrics
from sqlmetrics.client import private

_MODULE = """
    import os
    import sqlmetrics
    sqlmetrics.install()
    from prometheus_client import *
    from prometheus_client import multiprocess

    def count(registry):
        jobs = Counter("jobs", "Jobs", registry=registry)
        jobs.inc()
        return jobs

    def show(registry):
        print(registry.get_sample_value("jobs_total"), flush=True)

    class Metrics:
        def __init__(self, registry=None):
            self.registry = registry or CollectorRegistry()
            count(self.registry)

    def use():
        registry = CollectorRegistry()
        count(registry)
        show(registry)
"""
ALL = {
    "of an imported module": ("import app", "registry = CollectorRegistry()\ncount(registry)\nshow(registry)"),
    "of an object that an imported module makes": ("import app", "show(Metrics().registry)"),
    "of an app factory that a module calls": ("import app", "use()"),
    "of the script": ("registry = CollectorRegistry()\ncount(registry)\nshow(registry)", ""),
    "of a class of the script": (
        "class M:\n    registry = CollectorRegistry()\n    count(registry)\nshow(M.registry)",
        "",
    ),
    "of a factory that uvicorn calls": (
        "import uvicorn\nuvicorn.Config('app:create_app', factory=True).load()",
        "def create_app():\n    use()\n    return lambda: None",
    ),
    "of the start of an ASGI app": (
        "import app, asyncio, uvicorn\nfrom uvicorn.lifespan.on import LifespanOn\n"
        "async def main():\n"
        "    config = uvicorn.Config(app.app, lifespan='on')\n    config.load()\n"
        "    await LifespanOn(config).startup()\n"
        "asyncio.run(main())",
        "async def app(scope, receive, send):\n"
        "    use()\n    await receive()\n    await send({'type': 'lifespan.startup.complete'})",
    ),
    "with a collector before its metrics": (
        "def view():\n    registry = CollectorRegistry()\n    multiprocess.MultiProcessCollector(registry)\n"
        "    count(registry)\n    show(registry)\nview()",
        "",
    ),
    "with a collector after its metrics": (
        "def view():\n    registry = CollectorRegistry()\n    count(registry)\n"
        "    multiprocess.MultiProcessCollector(registry)\n    show(registry)\nview()",
        "",
    ),
    "that is served": (
        "def main():\n    registry = CollectorRegistry()\n    count(registry)\n"
        "    start_http_server(0, '127.0.0.1', registry)\n    show(registry)\nmain()",
        "",
    ),
    "that is served before it has metrics": (
        "def main():\n    registry = CollectorRegistry()\n    start_http_server(0, '127.0.0.1', registry)\n"
        "    count(registry)\n    show(registry)\nmain()",
        "",
    ),
    "for metrics of the default registry": (
        "jobs = count(REGISTRY)\ndef view():\n    registry = CollectorRegistry()\n    registry.register(jobs)\n"
        "    show(registry)\nview()",
        "",
    ),
    "for metrics that a module made for none": (
        "import app\ndef view():\n    registry = CollectorRegistry()\n    registry.register(app.jobs)\n"
        "    show(registry)\nview()",
        "jobs = count(None)",
    ),
}
OWN = {
    "of a request": ("use()", ""),
    "of an imported module's function": ("import app\napp.view()", "def view():\n    use()"),
    "of an object that a function makes": ("def f():\n    show(Metrics().registry)\nf()", ""),
    "of a thread": ("import threading\nt = threading.Thread(target=use)\nt.start()\nt.join()", ""),
    "of a coroutine": ("import asyncio\nasync def view():\n    use()\nasyncio.run(view())", ""),
    "of a task in a forked process": ("import os\nif not os.fork():\n    use()\n    os._exit(0)\nos.wait()", ""),
    "of a derived class": (
        "class Mine(CollectorRegistry):\n    def __init__(self):\n        super().__init__(auto_describe=True)\n"
        "def view():\n    registry = Mine()\n    count(registry)\n    show(registry)\nview()",
        "",
    ),
    "for metrics that were made for none": (
        "def view():\n    registry = CollectorRegistry()\n    jobs = Counter('jobs', 'Jobs', registry=None)\n"
        "    registry.register(jobs)\n    jobs.inc()\n    show(registry)\nview()",
        "",
    ),
    "that the app says is private": ("import app", "r = sqlmetrics.private(CollectorRegistry())\ncount(r)\nshow(r)"),
    "that the app says is private, with a collector": (
        "import app",
        "r = sqlmetrics.private(CollectorRegistry())\ncount(r)\nmultiprocess.MultiProcessCollector(r)\nshow(r)",
    ),
}


def shown(folder: Path, path: str, script: str, module: str, **environment: str) -> list[str]:
    """What a program prints that runs as a script and may import a module ``app``."""
    write(folder, "base.py", _MODULE)
    (folder / "app.py").write_text("from base import *\nfrom base import os, sqlmetrics, multiprocess\n" + module)
    (folder / "script.py").write_text("from base import *\nfrom base import sqlmetrics, multiprocess\n" + script)
    environment = {**os.environ, "SQLMETRICS_PATH": path, **environment}
    command = [sys.executable, str(folder / "script.py")]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


@pytest.mark.parametrize("registry", ALL)
def test_a_registry_of_the_app_shows_all_processes(folder: Path, path: str, registry: str) -> None:
    """It is made while the app is loaded, has a collector, or is served."""
    assert [shown(folder, path, *ALL[registry]) for _ in range(2)] == [["1.0"], ["2.0"]]
    assert scrape(path)["jobs_total", ()] == 2


@pytest.mark.parametrize("registry", OWN)
def test_a_registry_that_is_made_while_the_app_runs_shows_its_own_metrics(
    folder: Path, path: str, registry: str
) -> None:
    """From zero, whatever others count under that name, and the store does not have them."""
    assert [shown(folder, path, *OWN[registry]) for _ in range(2)] == [["1.0"], ["1.0"]]
    assert scrape(path).get(("jobs_total", ()), 0) == 0


# --- what a private registry shows --------------------------------------------------------------------------


def use_all_kinds(registry: CollectorRegistry) -> list[Any]:
    """One metric of each kind, with and without labels, all of them used; whoever holds them keeps them."""
    given: dict[str, Any] = {"registry": registry}
    counter = Counter("counter", "Counter", ["of"], **given)
    gauge, recent = Gauge("gauge", "Gauge", **given), Gauge("recent", "R", multiprocess_mode="mostrecent", **given)
    function, summary = Gauge("function", "Function", **given), Summary("summary", "Summary", ["of"], **given)
    histogram, info = Histogram("histogram", "Histogram", buckets=[1, 2], **given), Info("info", "Info", **given)
    task = Enum("task", "Task", states=["on", "off"], **given)
    unit = Counter("spent", "Spent", unit="seconds", **given)
    counter.labels("a").inc()
    counter.labels(of="b").inc(2.5)
    gauge.set(3)
    gauge.inc()
    gauge.dec(2)
    recent.set(4)
    function.set_function(lambda: 5)
    summary.labels("a").observe(6)
    histogram.observe(1.5)
    info.info({"version": "7"})
    task.state("off")
    unit.inc(8)
    return [counter, gauge, recent, function, summary, histogram, info, task, unit]


def text(registry: Any) -> list[str]:
    """A registry's text, without the times at which its metrics were made."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_every_kind_of_metric_shows_what_it_shows_without_a_store(path: str) -> None:
    """Without a label ``pid``, and no matter what another process has under the same names."""
    registry = CollectorRegistry()
    kept = use_all_kinds(registry)
    in_one_process = text(registry)
    del kept, registry
    store = sqlmetrics.install(path)
    in_child(lambda: len(use_all_kinds(REGISTRY)))

    for _ in range(2):
        registry = CollectorRegistry()
        metrics = use_all_kinds(registry)
        assert text(registry) == in_one_process
        assert text(registry.restricted_registry(["gauge"]))[-1] == "gauge 2.0"  # type: ignore[arg-type]
        assert len(metrics) == 9
    store.flush()
    assert store.get_sample_value("counter_total", {"of": "b"}) == 2.5


def test_a_wsgi_app_of_a_private_registry(store: sqlmetrics.Store) -> None:
    """As a view may make one for its request."""
    in_child(lambda: Counter("jobs", "Jobs").inc(10))
    registry = CollectorRegistry()
    Counter("jobs", "Jobs", registry=registry).inc()
    body = make_wsgi_app(registry)({"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}, lambda *_: None)

    assert b"jobs_total 1.0\n" in b"".join(body)


def test_what_a_private_metric_removes_is_its_own(store: sqlmetrics.Store) -> None:
    """Others of that name keep their series, also those of the default registry of this process."""
    everybodys = Counter("jobs", "Jobs", ["of"])
    everybodys.labels("a").inc(10)
    registry = CollectorRegistry()
    own = Counter("jobs", "Jobs", ["of"], registry=registry)
    for removal in (lambda: own.remove("a"), lambda: own.remove_by_labels({"of": "a"}), own.clear):
        own.labels("a").inc()
        own.labels("b").reset()
        removal()
        assert [s for s in own.collect()[0].samples if s.labels["of"] == "a"] == []  # type: ignore[index]

    assert store.get_sample_value("jobs_total", {"of": "a"}) == 10


def test_a_private_registry_stays_so_when_the_store_is_uninstalled(store: sqlmetrics.Store, path: str) -> None:
    """And when it is installed again."""
    registry = CollectorRegistry()
    jobs = Counter("jobs", "Jobs", ["of"], registry=registry)
    jobs.labels("a").inc()
    sqlmetrics.uninstall()
    jobs.labels("a").inc()
    jobs.labels("b").inc()
    sqlmetrics.install(path)
    jobs.labels("b").inc()

    assert ask(registry, "jobs_total", of="a") == ask(registry, "jobs_total", of="b") == 2
    assert scrape() == {}


# --- what becomes of a registry -----------------------------------------------------------------------------


def test_a_registry_that_exists_at_a_fork_is_shared_with_the_children(store: sqlmetrics.Store) -> None:
    """It lives in several processes; what it had counted is not lost, and not counted twice."""
    registry = CollectorRegistry()
    metrics = use_all_kinds(registry)

    def show() -> float | None:
        return ask(registry, "counter_total", of="a")

    with child(count=lambda: metrics[0].labels("a").inc(10), show=show) as one:
        one.do("count")
        metrics[0].labels("a").inc(100)
        assert one.do("show") == show() == 111
    assert ask(registry, "histogram_bucket", le="2.0") == 1
    assert ask(registry, "task", task="off") == 1
    assert ask(registry, "info_info", version="7") == 1
    assert ask(registry, "function", pid=str(os.getpid())) == 5


def test_what_another_thread_is_at_during_a_fork_stays_private(store: sqlmetrics.Store) -> None:
    """A request, most likely."""
    registries: list[CollectorRegistry] = []

    def view() -> None:
        registries.append(CollectorRegistry())
        Counter("jobs", "Jobs", registry=registries[0]).inc()

    thread = threading.Thread(target=view)
    thread.start()
    thread.join()
    in_child(lambda: Counter("jobs", "Jobs").inc())

    assert ask(registries[0], "jobs_total") == 1


def test_a_family_that_comes_again_stays_private_at_a_fork(store: sqlmetrics.Store) -> None:
    """It would be added up with the earlier one's."""

    def task() -> float | None:
        registry = CollectorRegistry()
        rows = Counter("rows", "Rows", registry=registry)
        rows.inc()
        in_child(lambda: rows.inc(10))
        return ask(registry, "rows_total")

    assert [task(), task(), task()] == [11, 1, 1]


def test_a_script_that_makes_its_registry_in_a_loop(folder: Path, path: str) -> None:
    """Each has its own numbers, from zero, also from the first that the script has pushed."""
    loop = """
for _ in range(3):
    registry = CollectorRegistry()
    jobs = count(registry)
    jobs.inc()
    show(registry)
"""
    assert shown(folder, path, loop, "") == ["2.0", "2.0", "2.0"]
    with_collector = loop.replace("jobs = count", "multiprocess.MultiProcessCollector(registry)\n    jobs = count")
    assert shown(folder, path, with_collector, "") == ["4.0", "6.0", "8.0"]


def test_a_metric_that_is_used_after_its_registry_is_gone_counts_for_all(store: sqlmetrics.Store) -> None:
    """As one that was made for no registry: libraries make a registry only because a metric wants one (dramatiq)."""

    def boot() -> list[Any]:
        given: dict[str, Any] = {"registry": CollectorRegistry()}
        labelled, plain = Counter("labelled", "L", ["of"], **given), Counter("plain", "P", **given)
        gauge, summary = Gauge("gauge", "G", multiprocess_mode="max", **given), Summary("summary", "S", **given)
        histogram, task = Histogram("histogram", "H", **given), Enum("task", "T", states=["on", "off"], **given)
        labelled.labels("early").inc()
        return [labelled, plain, gauge, summary, histogram, task]

    def use() -> None:
        labelled, plain, gauge, summary, histogram, task = boot()
        labelled.labels("a").inc()
        labelled.labels("early").inc()
        plain.inc(2)
        plain.inc(2)
        gauge.set(3)
        summary.observe(4)
        histogram.observe(5)
        task.state("off")
        labelled.labels("b").inc()
        labelled.remove("b")

    in_child(use)
    use()

    assert {name: store.get_sample_value("labelled_total", {"of": name}) for name in ("a", "b", "early")} == {
        "a": 2,
        "b": None,
        "early": 4,
    }
    assert store.get_sample_value("plain_total") == 8
    assert store.get_sample_value("gauge") == 3
    assert store.get_sample_value("summary_sum") == 8
    assert store.get_sample_value("histogram_count") == 2
    assert store.get_sample_value("task", {"task": "off"}) == 1
    mine = Counter("mine", "Mine", registry=sqlmetrics.private(CollectorRegistry()))
    mine.inc()
    assert store.get_sample_value("mine_total") is None


# --- what the app says --------------------------------------------------------------------------------------


def test_private_returns_the_registry_and_can_be_said_again(path: str) -> None:
    """Before and after the store is installed, before and after the metrics are made."""
    early = sqlmetrics.private(CollectorRegistry())
    early_jobs = Counter("early", "Early", ["of"], registry=early)
    early_jobs.labels("a").inc()
    sqlmetrics.install(path)
    late = CollectorRegistry()
    metrics = [early_jobs.labels("a"), early_jobs.labels("b"), *use_all_kinds(late)]
    assert sqlmetrics.private(late) is late
    assert sqlmetrics.private(sqlmetrics.private(late)) is late
    for metric in metrics[:2]:
        metric.inc()

    in_child(lambda: metrics[0].inc())
    assert ask(early, "early_total", of="a") == 2
    assert ask(early, "early_total", of="b") == 1
    assert ask(late, "counter_total", of="b") == 2.5
    assert scrape() == {}


def test_private_takes_along_what_was_counted(path: str) -> None:
    """What the store has got of it by then it keeps; metrics that are in the default registry too stay everybody's."""
    late = CollectorRegistry()
    sqlmetrics.install(path)
    metrics = use_all_kinds(late)
    everybodys = Counter("everybodys", "Everybody's")
    late.register(everybodys)
    before = [line for line in text(late) if "pid=" not in line and not line.startswith("everybodys")]
    sqlmetrics.private(late)
    in_child(metrics[0].labels("a").inc)
    in_child(everybodys.inc)
    everybodys.inc()

    assert set(before) <= set(text(late))
    assert "gauge 2.0" in text(late)
    assert scrape()["counter_total", (("of", "a"),)] == 1
    assert scrape()["everybodys_total", ()] == 2


def test_private_refuses_what_it_cannot_mean(store: sqlmetrics.Store) -> None:
    """With a sentence that says what can be private."""
    for wrong in (None, "jobs", REGISTRY.restricted_registry(["jobs"]), Counter("jobs", "Jobs")):
        with pytest.raises(TypeError, match="CollectorRegistry can be private"):
            sqlmetrics.private(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="default registry shows all processes"):
        sqlmetrics.private(REGISTRY)


@pytest.mark.parametrize(
    ("setting", "expected"), [("default", ["1.0", "1.0"]), ("all", ["1.0", "2.0"]), ("auto", ["1.0", "2.0"])]
)
def test_the_environment_decides_about_a_registry_of_a_module(
    folder: Path, path: str, setting: str, expected: list[str]
) -> None:
    """Of the default one it does not."""
    module = "registry = CollectorRegistry()\ncount(registry)\nshow(registry)"
    program = "import app\nCounter('everybodys', '').inc()\nprint(REGISTRY.get_sample_value('everybodys_total'))"
    found = [shown(folder, path, program, module, SQLMETRICS_REGISTRIES=setting) for _ in range(2)]

    assert [first for first, _ in found] == expected
    assert [second for _, second in found] == ["1.0", "2.0"]


def test_the_environment_can_share_all(folder: Path, path: str) -> None:
    """Also what is made in a function, and what is written to a file."""
    script = f"""
def task():
    registry = CollectorRegistry()
    count(registry)
    show(registry)
    write_to_textfile({str(folder / "out.prom")!r}, registry)
task()
"""
    found = [shown(folder, path, script, "", SQLMETRICS_REGISTRIES="all") for _ in range(2)]
    assert found == [["1.0"], ["2.0"]]
    assert "jobs_total 2.0\n" in (folder / "out.prom").read_text()


def test_a_registry_of_before_install_can_be_private_by_the_environment(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a collector of the store cannot."""
    monkeypatch.setenv("SQLMETRICS_REGISTRIES", "default")
    registry = CollectorRegistry()
    jobs = Counter("jobs", "Jobs", ["of"], registry=registry)
    jobs.labels("a").inc()
    sqlmetrics.install(path)
    jobs.labels("a").inc()

    assert ask(registry, "jobs_total", of="a") == 2
    assert scrape() == {}


def test_the_environment_can_leave_only_the_default_registry_shared(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then neither a fork nor a server shares a registry; a collector of the store does."""
    monkeypatch.setenv("SQLMETRICS_REGISTRIES", "default")
    sqlmetrics.install(path)
    registry = CollectorRegistry()
    jobs = Counter("jobs", "Jobs", registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    server.shutdown()
    server.server_close()
    thread.join()
    in_child(jobs.inc)
    jobs.inc()
    assert ask(registry, "jobs_total") == 1
    sqlmetrics.MultiProcessCollector(registry)
    in_child(jobs.inc)

    assert ask(registry, "jobs_total") == 2


def test_an_environment_that_means_nothing_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That says what it may be; nothing is installed then."""
    monkeypatch.setenv("SQLMETRICS_REGISTRIES", "mine")
    with pytest.raises(ValueError, match="SQLMETRICS_REGISTRIES='mine' cannot be used: wanted is auto, default or all"):
        sqlmetrics.install(path)
    assert CollectorRegistry.collect.__module__ == "prometheus_client.registry"


# --- what is logged -----------------------------------------------------------------------------------------


def test_a_family_in_a_third_registry_is_told_once(store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture) -> None:
    """With the place where the registry was made."""
    for number in range(5):
        registry = CollectorRegistry()
        Counter("jobs", "Jobs", registry=registry).inc()
        if number == 1:
            assert caplog.messages == []

    (message,) = caplog.messages
    assert message.startswith("jobs is in a third registry of this process, made in test_a_family_in_a_third")


def test_a_filter_that_raises_is_in_no_metrics_way(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is lost, the metric is made."""

    def fail(record: logging.LogRecord) -> bool:
        raise LookupError(record)

    monkeypatch.setattr(logging.getLogger("sqlmetrics"), "filters", [fail])
    registries = [CollectorRegistry() for _ in range(4)]
    made = [Counter("jobs", "Jobs", registry=registry) for registry in registries]
    for jobs in made:
        jobs.inc()

    assert [jobs._value.get() for jobs in made] == [1, 1, 1, 1]


def test_a_registry_that_is_asked_again_later_is_told_once(
    store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not made for a request, and may show too little; one of a request is not told."""
    monkeypatch.setattr(private, "_LATER", -1.0)
    registry = CollectorRegistry()
    Counter("jobs", "Jobs", registry=registry).inc()
    quiet = sqlmetrics.private(CollectorRegistry())
    Counter("jobs", "Jobs", registry=quiet).inc()
    for _ in range(3):
        generate_latest(registry)
        generate_latest(quiet)
        scrape()

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "shows the metrics of this process only" in record.getMessage()
    assert "test_private_registries.py" in record.getMessage()


def test_a_scrape_of_the_store_tells_which_registry_it_goes_without(
    store: sqlmetrics.Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that is written for the multiprocess mode may expect all of its metrics there."""
    registry = CollectorRegistry()
    Counter("jobs", "Jobs", registry=registry).inc()
    scrape()
    assert caplog.messages == []
    monkeypatch.setattr(private, "_LATER", -1.0)
    scrape()
    scrape()

    assert len(caplog.messages) == 1


# --- nothing is left ----------------------------------------------------------------------------------------

_MANY = """
import gc, os, resource, sys
import sqlmetrics
store = sqlmetrics.install()
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, write_to_textfile
def task(number):
    registry = CollectorRegistry()
    Gauge("success", "Success", ["target"], registry=registry).labels(f"host {number}").set(1)
    Histogram("seconds", "Seconds", ["target"], registry=registry).labels(f"host {number}").observe(1)
    Counter("bytes", "Bytes", registry=registry).inc(number)
    write_to_textfile(sys.argv[1], registry)
    return generate_latest(registry)
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
for number in range(400):
    task(number)
before = resident()
for number in range(2000):
    lines = task(number).decode().splitlines()
store.flush()
print(resident() - before, len([line for line in lines if "host 1999" in line]), lines.count("bytes_total 1999.0"))
"""


def test_two_thousand_registries_leave_nothing_behind(folder: Path, path: str) -> None:
    """No series, row or cell in the store, and no memory in the process."""
    command = [sys.executable, "-c", _MANY, str(folder / "out.prom")]
    environment = {**os.environ, "SQLMETRICS_PATH": path}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    grown, lines, own = map(int, done.stdout.split())

    assert (lines, own) == (19, 1)
    assert grown < 1_000_000
    assert Shell(path)("SELECT * FROM samples") == []
    assert Shell(path).value("SELECT count(*) FROM series") == 0


def test_a_registry_goes_with_its_last_reference(store: sqlmetrics.Store) -> None:
    """Without a garbage collection, as ever."""
    gc.disable()
    try:
        registry = CollectorRegistry()
        metric = weakref.ref(Counter("jobs", "Jobs", registry=registry))
        watched = weakref.ref(registry)
        generate_latest(registry)
        del registry
        assert watched() is None
        assert metric() is None
    finally:
        gc.enable()


def test_a_file_is_this_processs_own_but_of_the_default_registry(store: sqlmetrics.Store, folder: Path) -> None:
    """Also of a registry that shows all processes in scrapes."""
    registry, file = CollectorRegistry(), folder / "out.prom"
    jobs = Counter("jobs", "Jobs", registry=registry)
    everybodys = Counter("everybodys", "Everybody's")
    with child(count=jobs.inc, count_for_all=everybodys.inc) as one:
        one.do("count", 10)
        one.do("count_for_all", 10)
        for counter in (jobs, everybodys):
            counter.inc()
        assert ask(registry, "jobs_total") == 11
        write_to_textfile(str(file), registry)
        assert "jobs_total 1.0\n" in file.read_text()
        write_to_textfile(str(file), REGISTRY)
        assert "everybodys_total 11.0\n" in file.read_text()
        sqlmetrics.MultiProcessCollector(registry)
        write_to_textfile(str(file), registry)
        assert "jobs_total 11.0\n" in file.read_text()


def test_what_uwsgi_does_before_it_forks_is_loading(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls an app factory without a frame of its own; in a worker, the same call is a request."""
    uwsgi = types.SimpleNamespace(has_threads=1, mule_id=lambda: 0, i_am_the_spooler=lambda: False)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    found = []

    def make() -> None:
        found.append(private.is_private_registry(CollectorRegistry()))

    for worker in (0, 1):
        uwsgi.worker_id = lambda worker=worker: worker
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
    assert found == [False, True]


@pytest.mark.parametrize("options", [["-w2"], ["-w2", "--threads", "2"], ["-w2", "--preload"]], ids=" ".join)
def test_an_app_factory_and_a_probe_under_gunicorn(folder: Path, path: str, options: list[str]) -> None:
    """The factory's registry is the app's, as gunicorn calls it to load the app; a view's are its own."""
    with serving(folder, "factory:create_app()", *options, SQLMETRICS_PATH=path) as server:
        server.workers(2)
        answers = server.get_all(f"/probe?{number}" for number in range(20))
        counted = [server.get("/metrics").text for _ in range(10)]
        for number, answer in enumerate(answers):
            lines = [line for line in answer.text.splitlines() if not line.startswith("#") and "_created" not in line]
            assert lines == [f'probe_success{{target="{number}"}} 1.0', "probe_bytes_total 10.0"]
        everything = server.get("/all").text

    assert len({line for text in counted for line in text.splitlines() if line.startswith("work_total")}) == 1
    assert "work_total" in everything
    assert "probe" not in everything
