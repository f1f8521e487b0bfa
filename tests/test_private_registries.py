"""Whose numbers a registry shows: all processes', or those of its own metrics only.

Each program runs twice on one store, so the second one could show what the first has counted.
"""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path

import pytest
from apps.serving import serving
from helpers import ask, child, in_child, scrape
from prometheus_client import REGISTRY, CollectorRegistry, Counter, make_wsgi_app, write_to_textfile
from registry_programs import shown, text, use_all_kinds

import sqlmetrics
from sqlmetrics.client import private

pytestmark = pytest.mark.promise(12)

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


@pytest.mark.parametrize("registry", ALL)
@pytest.mark.slow
def test_a_registry_of_the_app_shows_all_processes(folder: Path, path: str, registry: str) -> None:
    """It is made while the app is loaded, has a collector, or is served."""
    assert [shown(folder, path, *ALL[registry]) for _ in range(2)] == [["1.0"], ["2.0"]]
    assert scrape(path)["jobs_total", ()] == 2


@pytest.mark.parametrize("registry", OWN)
@pytest.mark.slow
def test_a_registry_that_is_made_while_the_app_runs_shows_its_own_metrics(
    folder: Path, path: str, registry: str
) -> None:
    """From zero, whatever others count under that name, and the store does not have them."""
    assert [shown(folder, path, *OWN[registry]) for _ in range(2)] == [["1.0"], ["1.0"]]
    assert scrape(path).get(("jobs_total", ()), 0) == 0


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


def test_a_wsgi_app_of_a_private_registry_shows_its_own_metrics(store: sqlmetrics.Store) -> None:
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
@pytest.mark.slow
def test_gunicorn_shares_an_app_factorys_registry_and_not_a_views(folder: Path, path: str, options: list[str]) -> None:
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
