"""What a store tells of itself, on request: who is in it, how large it is, what its work costs, what went wrong."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import Child, Shell, child, flush_all, in_child, own, scrape, value, wait_for, watching
from outsiders import Operator
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser

import sqlmetrics
from sqlmetrics.cells.figures import FAMILIES, Figures
from sqlmetrics.process.trouble import Trouble
from sqlmetrics.rows.deaths import NOTICED
from sqlmetrics.store.flusher import Outcome

FILES = {"database": "", "wal": "-wal", "shm": "-shm", "cells": "-cells"}


def test_self_metrics_are_shown_on_request_only(store: sqlmetrics.Store, shell: Shell) -> None:
    """Neither in a scrape that did not ask for them nor in the views, which show what a scrape does."""
    Counter("requests", "Requests").inc()
    store.flush()
    Counter("others", "Others").inc()
    store.flush()  # this one brings how long the first took
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)

    assert b"sqlmetrics_" not in generate_latest(registry)
    assert b"sqlmetrics_" in generate_latest(watching())
    assert shell.value("SELECT count(*) FROM family WHERE name LIKE 'sqlmetrics!_%' ESCAPE '!'") != 0
    for view in ("samples", "metrics"):
        assert {row["metric"] for row in shell(f"SELECT metric FROM {view}")} == {"requests_total", "others_total"}


def test_self_metrics_are_well_formed(path: str) -> None:
    """In the stricter of the two formats, with a help text each, and units where a name promises one."""
    sqlmetrics.install(path, max_series=1)
    requests = Counter("requests", "Requests", ["path"])
    for number in range(2):
        requests.labels(f"/{number}").inc()
    families = list(parser.text_string_to_metric_families(openmetrics.generate_latest(watching()).decode()))
    mine = {family.name: family for family in families if family.name.startswith("sqlmetrics_")}
    assert {"sqlmetrics_processes", "sqlmetrics_bytes", *FAMILIES} <= set(mine)
    assert all(family.documentation.endswith(".") for family in mine.values())
    assert all(family.samples for family in mine.values())


def test_processes_are_counted_by_their_state(store: sqlmetrics.Store) -> None:
    """Living ones, one that ended until it is folded, and one that is remembered for its gauge."""
    Gauge("memory", "Memory").set(1)
    with child(work=lambda: Counter("requests", "Requests").inc()) as one:
        one.do("work")
        assert own("processes", state="alive") == 2
        os.kill(one.pid, signal.SIGSTOP)
        assert own("processes", state="alive") == 2
        one.kill()
        assert own("processes", state="alive") == 1
        wait_for(lambda: own("processes", state="dead") == 0)  # folded by then
        assert own("processes", state="remembered") == 1


def test_a_process_that_ended_is_seen_before_it_is_folded(store: sqlmetrics.Store) -> None:
    """By the scrape that sees it first."""
    jobs = Counter("jobs", "Jobs")
    jobs.inc()
    own("processes", state="dead")  # it flushes if tests before this one have had metrics that are gone by now
    with child(work=jobs.inc) as one:
        one.do("work")
        store.flusher.stop()  # it would fold it, sooner or later
        one.kill()
    assert own("processes", state="dead") == 1


def test_each_death_is_counted_once_by_what_noticed_it(store: sqlmetrics.Store, shell: Shell) -> None:
    """A hook's notice, a flush or a scrape; the view tells of each, the last one first."""
    jobs = Counter("jobs", "Jobs")
    jobs.inc()
    ended = {"notice": 0, "flush": 0, "scrape": 0}
    pids = []

    def check(noticed: str, one: Child) -> None:
        ended[noticed] += 1
        pids.insert(0, str(one.pid))
        wait_for(lambda: own("processes_ended_total", noticed=noticed) == ended[noticed])
        assert {how: own("processes_ended_total", noticed=how) for how in ended} == ended
        assert own("processes_started_total") == 1 + len(pids)
        assert [row["pid"] for row in shell("SELECT pid FROM deaths")] == pids
        assert shell("SELECT noticed FROM deaths")[0]["noticed"] == noticed

    store.flusher.stop()
    with child(work=jobs.inc) as one:
        one.do("work")
        one.kill()
        sqlmetrics.mark_process_dead(one.pid)
        check("notice", one)
    store.flusher.stop()
    with child(work=jobs.inc) as one:
        one.do("work")
        one.kill()
        jobs.inc()
        assert store.flush() is Outcome.DONE
        check("flush", one)
    store.flusher.stop()
    with child(work=jobs.inc) as one:
        one.do("work")
        one.kill()
        in_child(lambda: scrape(store.path) and None)
        check("scrape", one)
    store.reset(force=True, keep_own=True)
    assert own("processes_ended_total", noticed="flush") == 0
    assert shell("SELECT * FROM deaths") == []


@pytest.mark.slow
def test_the_view_of_deaths_keeps_the_newest_hundred(store: sqlmetrics.Store, shell: Shell) -> None:
    """And the counter all of them."""
    jobs = Counter("jobs", "Jobs")
    jobs.inc()
    for _ in range(130):
        pid = os.fork()
        if not pid:
            jobs.inc()
            os._exit(0)
        os.waitpid(pid, 0)
    wait_for(lambda: sum(own("processes_ended_total", noticed=how) or 0 for how in NOTICED) == 130)
    assert shell.value("SELECT count(*) FROM deaths") == 100
    assert shell("SELECT os_pid FROM deaths")[0]["os_pid"] == pid


def test_versions_and_series_are_told(store: sqlmetrics.Store) -> None:
    """Of the process that answers, and by family without those of the store itself."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(3):
        requests.labels(str(number)).inc()
    registry = watching()
    (info,) = [one for metric in registry.collect() for one in metric.samples if one.name == "sqlmetrics_info"]
    assert info.labels["version"] == sqlmetrics.__version__
    assert set(info.labels) == {"version", "sqlite_version", "schema"}
    wait_for(lambda: own("series", family="requests") == 3)
    assert own("series", family="sqlmetrics_errors") is None


def test_of_two_processes_of_one_name_one_is_shown(path: str) -> None:
    """There should be no such two; a figure counts them."""
    sqlmetrics.install(path, process_identifier=lambda: "web")
    requests = Counter("requests", "Requests")
    requests.inc()
    assert own("pid_clashes") == 0
    with child(work=requests.inc) as one:
        one.do("work")
        assert own("pid_clashes") == 1


def test_sizes_are_what_the_shell_and_the_file_system_see(store: sqlmetrics.Store, shell: Shell, path: str) -> None:
    """As the shell and the file system see them."""
    requests = Counter("requests", "Requests", ["path"])
    for number in range(2000):
        requests.labels(str(number)).inc()
    store.flush()
    store.flusher.stop()  # nobody writes while it is looked at twice
    for table in ("family", "series", "instance", "cell_copy", "retired", "kept", "orphan", "exemplar"):
        assert own("rows", table=table) == shell.value(f"SELECT count(*) FROM {table}"), table
    assert (own("rows", table="cell_copy") or 0) >= 2000
    for name, suffix in FILES.items():
        assert own("bytes", file=name) == os.stat(path + suffix).st_blocks * 512, name
    disk = os.statvfs(path)
    assert abs((own("free_bytes") or 0) - disk.f_bavail * disk.f_frsize) < 2**30
    assert own("used_ratio", limit="processes") == 1 / 4096
    assert own("used_ratio", limit="cell blocks") == 4 / 16384  # 512 cells each


def test_the_work_of_all_processes_is_added_up(store: sqlmetrics.Store) -> None:
    """Flushes and scrapes are added up, also those of processes that have ended."""
    requests = Counter("requests", "Requests")

    def work() -> None:
        for _ in range(5):
            requests.inc()
            store.flush()

    work()
    flushes, scrapes = own("flush_seconds_count"), own("scrape_seconds_count")
    assert flushes
    assert flushes >= 5
    assert scrapes == 1  # each asks what has been before it
    with child(work=work, look=lambda: own("flush_seconds_count")) as one:
        one.do("work")
        one.do("look")
        one.end()
    assert (own("flush_seconds_count") or 0) >= flushes + 5
    # What the child did last it took along, unless its flusher came by in that moment.
    assert own("scrape_seconds_count") in (3, 4)
    assert 0 < (own("flush_seconds_sum") or 0) < 60
    assert 0 < (own("scrape_seconds_sum") or 0) < 60


def test_a_process_that_only_scrapes_tells_of_its_scrapes(path: str) -> None:
    """It has no part of the store, and tells of its own scrapes nevertheless."""
    store = sqlmetrics.install(path)
    Counter("requests", "Requests").inc()
    store.flush()

    def scrapes() -> list[float | None]:
        sqlmetrics.uninstall()
        registry = watching(path)
        return [registry.get_sample_value("sqlmetrics_scrape_seconds_count") for _ in range(3)]

    with child(scrapes=scrapes) as one:
        assert one.do("scrapes") == [0, 1, 2]
    assert own("scrape_seconds_count") == 0


def test_a_process_that_is_asked_late_has_forgotten_nothing() -> None:
    """However many flushes or scrapes there were before."""
    figures = Figures(Trouble())
    for _ in range(1500):
        figures.took("scrape", 0.5)

    found = figures.bring()

    assert found["sqlmetrics_scrape_seconds", "_count", ""] == 1500
    assert found["sqlmetrics_scrape_seconds", "_sum", ""] == 750


@pytest.mark.promise(8)
def test_workers_that_have_counted_nothing_yet_agree(store: sqlmetrics.Store) -> None:
    """Whichever of them is asked, no counter goes back; what they did is told when they count."""
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()

    def scrapes() -> float | None:
        return own("scrape_seconds_count")

    def work() -> None:
        requests.labels("/").inc()

    with child(scrapes=scrapes, work=work) as one, child(scrapes=scrapes, work=work) as other:
        assert [worker.do("scrapes") for worker in (one, other, one, one, other)] == [0] * 5
        one.do("work")
        assert one.do("scrapes") == 3
        assert other.do("scrapes") in (3, 4)  # a flush may have told of the first one's fourth by now


def test_figures_alone_cause_no_flush(path: str) -> None:
    """Or else each flush would be the cause of the next, in every idle process for ever."""
    store = sqlmetrics.install(path, flush_interval=1000)
    Counter("requests", "Requests").inc()
    store.flush()
    value("requests_total")
    assert [store.flush() for _ in range(3)] == [Outcome.NOTHING_CHANGED] * 3


@pytest.mark.promise(4)
def test_errors_are_counted_by_cause(path: str) -> None:
    """Of whichever process; every cause is there from the start, so that its rate is known."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc()
    assert own("errors_total", cause="replaced") == 0

    with child(work=requests.inc) as one:
        one.do("work")
        store.flush()
        for suffix in FILES.values():
            Path(path + suffix).unlink()

        def both_have_told() -> bool:
            with suppress(sqlmetrics.SQLMetricsError):  # a scrape may meet the files in the making
                # More often than twice where one has to wait for the other, which makes the files, and tries again.
                return Path(path).exists() and (own("errors_total", cause="replaced") or 0) >= 2
            return False

        wait_for(both_have_told)
        assert own("errors_total", cause="damaged") == 0
    assert value("requests_total") == 2


def test_a_child_does_not_tell_what_its_parent_did(store: sqlmetrics.Store) -> None:
    """What waits to be counted at a fork is the parent's."""
    requests = Counter("requests", "Requests")
    flush_all(store)  # or the next flush would tell it before the fork
    store.figures.took("scrape", 1000)
    with child(work=lambda: [requests.inc(), own("scrape_seconds_sum")]) as one:
        assert one.do("work") == [None, 0]
    requests.inc()
    assert 1000 <= (own("scrape_seconds_sum") or 0) < 1001


@pytest.mark.parametrize("name", ["sqlmetrics_rows", "sqlmetrics_flush_seconds_count", "sqlmetrics_errors_total"])
def test_a_restricted_registry_yields_the_self_metrics_asked_for(store: sqlmetrics.Store, name: str) -> None:
    """By a restricted registry."""
    Counter("requests", "Requests").inc()
    restricted = CollectorRegistry().restricted_registry([name])
    collector = sqlmetrics.MultiProcessCollector(restricted, self_metrics=True)
    assert {sample.name for metric in collector.collect() for sample in metric.samples} == {name}


def test_the_peers_class_imported_before_install_takes_self_metrics(path: str) -> None:
    """It takes the argument as ours does."""
    from prometheus_client.multiprocess import MultiProcessCollector

    sqlmetrics.install(path)
    Counter("requests", "Requests").inc()
    registry = CollectorRegistry()
    MultiProcessCollector(registry, self_metrics=True)
    assert registry.get_sample_value("sqlmetrics_processes", {"state": "alive"}) == 1


@pytest.mark.slow
def test_rows_are_behind_by_values_and_new_children_that_cannot_be_flushed(store: sqlmetrics.Store, path: str) -> None:
    """By values and by new children of processes that cannot flush; idle ones are not behind, however long."""
    requests = Counter("requests", "Requests", ["path"])
    known = requests.labels("/known")
    known.inc()
    with child(work=requests.labels("/other").inc) as other:
        known.inc()
        wait_for(lambda: own("rows_behind_seconds") == own("journal_bytes_behind") == 0)
        with Operator(path, "BEGIN IMMEDIATE"):
            known.inc()
            wait_for(lambda: (own("rows_behind_seconds") or 0) > 0.1)
            announced = own("journal_bytes_behind") or 0
            other.do("work")
            assert (own("journal_bytes_behind") or 0) > announced + 100
            assert (own("rows_behind_seconds") or 0) > 0.1
        wait_for(lambda: own("rows_behind_seconds") == own("journal_bytes_behind") == 0)


def test_a_process_that_does_not_flush_is_behind_since_it_announced_something(
    store: sqlmetrics.Store, path: str
) -> None:
    """Others flush meanwhile, and whoever asks for the first time knows it nevertheless."""
    requests = Counter("requests", "Requests", ["path"])

    def work() -> None:
        sqlmetrics.install(path).flusher.stop()
        requests.labels("/new").inc()

    with child(work=work) as other:
        begun = time.time()
        other.do("work")
        wait_for(lambda: time.time() > begun + 0.2)
        requests.labels("/own").inc()
        assert store.flush() is not Outcome.FAILED
        assert 0.1 < (own("rows_behind_seconds") or 0) < time.time() - begun + 0.1
        assert (own("journal_bytes_behind") or 0) > 100
