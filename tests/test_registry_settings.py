"""The app and its environment say which registries are private, and the log says which ones are taken for that."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from helpers import ask, in_child, scrape
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest, start_http_server
from registry_programs import shown, text, use_all_kinds

import sqlmetrics
from sqlmetrics.client import private

pytestmark = pytest.mark.promise(12)


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
    with pytest.raises(ValueError, match="SQLMETRICS_REGISTRIES='mine' cannot be used: expected auto, default or all"):
        sqlmetrics.install(path)
    assert CollectorRegistry.collect.__module__ == "prometheus_client.registry"


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
    assert "test_registry_settings.py" in record.getMessage()


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
