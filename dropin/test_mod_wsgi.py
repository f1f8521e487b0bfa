"""Debian's Apache with mod_wsgi: daemon processes, embedded mode, and several apps, as the page says."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from apache import PAGE, Apache, Site, apache
from deployment import parse
from exact import assert_all_shown, assert_tidy
from test_reloads import load, wait_for_others

pytestmark = pytest.mark.promise(3, 12)

SERVER = ("mod_wsgi", "debian:apache2-bin")
DAEMONS = Site(PAGE, "daemon processes")
EMBEDDED = Site(PAGE, "embedded mode", site="embedded.conf")
GROUPS = Site(PAGE, "a process group for each app", metrics="/one/metrics", site="groups.conf")

LIVE = {
    "import REGISTRY, Counter": "import REGISTRY, Counter, Gauge",
    "\n\n\ndef": '\nWORKERS = Gauge("workers", "Living", multiprocess_mode="livesum")\nWORKERS.set(1)\n\n\ndef',
}
"""A gauge that is the number of living processes which have loaded the app."""
IN_SUBINTERPRETERS = {" application-group=%{GLOBAL}": ""}
NOT_INSTALLED = {'import sqlmetrics\n\nsqlmetrics.install("/dev/shm/app/metrics.sqlite3")\n\n': ""}


@pytest.mark.parametrize("change", [{}, IN_SUBINTERPRETERS], ids=["main interpreter", "sub-interpreter"])
@pytest.mark.row("server", "mod_wsgi: daemon processes", *SERVER)
def test_daemon_processes_are_exact_across_a_death(change: dict[str, str], folder: Path) -> None:
    """With the app in the main interpreter, or in one of its own, whose flusher ends before it does."""
    with apache(DAEMONS, folder, LIVE | change) as server:
        assert_exact_when_one_is_killed(server)
        living = server.counting()
        assert [values["workers", ()] for values in server.scrapes()] == [2.0] * 16
    assert_tidy(server)
    assert living <= set(server.ended())


def assert_exact_when_one_is_killed(server: Apache) -> None:
    """Another takes its place, and every scrape is exact throughout."""
    server.until(lambda: len(server.counting()) == 2)
    assert_all_shown(server)
    before = server.counting()
    server.kill(min(before))
    assert_all_shown(server)
    server.until(lambda: server.counting() - before)
    assert_all_shown(server)
    assert "Traceback" not in server.log(), server.log()


@pytest.mark.row("server", "mod_wsgi: embedded mode", *SERVER)
def test_children_of_apache_are_exact_across_a_death(folder: Path) -> None:
    """They run the app themselves."""
    with apache(EMBEDDED, folder) as server:
        assert_exact_when_one_is_killed(server)
    assert_tidy(server)


@pytest.mark.parametrize("change", [{}, IN_SUBINTERPRETERS], ids=["main interpreter", "sub-interpreter"])
def test_processes_that_answer_a_few_requests_only_lose_nothing(change: dict[str, str], folder: Path) -> None:
    """By `maximum-requests`; gauges of those that have ended are gone."""
    limit = {"processes=2": "processes=2 maximum-requests=10"}
    with apache(DAEMONS, folder, LIVE | limit | change) as server:
        seen: set[int] = set()
        server.until(lambda: seen.update(server.counting()) or len(seen) > 3)
        ended = set(server.ended())
        assert_all_shown(server)
        assert all(values["workers", ()] <= 4 for values in server.scrapes(2))  # two begin while two end
    assert_tidy(server)
    assert len(ended & seen) >= 1


def test_a_graceful_restart_under_load_loses_nothing(folder: Path) -> None:
    """As `apachectl graceful` does it; a stop and a start go on with the same totals."""
    with apache(DAEMONS, folder, LIVE) as server:
        server.until(lambda: len(server.counting()) == 2)
        before = server.counting()
        with load(server):
            server.process.send_signal(signal.SIGUSR1)
            wait_for_others(server, before)
        assert_all_shown(server)
        assert before <= set(server.ended())
        server.stop()
        server.start()
        assert_all_shown(server)
    assert_tidy(server)


# --- several apps ----------------------------------------------------------------------------------------

ONE_GROUP = {"process-group=two": "process-group=one", "processes=2": "processes=1"}
OWN_STORES = {'"/dev/shm/app/metrics.sqlite3"': '__file__.replace(".wsgi", ".sqlite3")'}


def shown(server: Apache, app: str) -> dict[str, float]:
    """What a scrape of an app below /one or /two shows: requests by their paths, and the gauge."""
    status, text = server.ask(f"/{app}/metrics")
    assert status == 200, server.log()
    values = parse(text)
    paths = {labels[0][1]: value for (name, labels), value in values.items() if name == "requests_total"}
    return paths | {"workers": values["workers", ()]}


def asked(server: Apache, app: str) -> int:
    """The status of a request to an app."""
    return server.ask(f"/{app}/{app}")[0]


def test_a_second_app_in_an_interpreter_of_its_own_is_refused_with_a_way_out(folder: Path) -> None:
    """Apache's error log has it. The first app goes on, and its live gauge stays."""
    with apache(GROUPS, folder, LIVE | ONE_GROUP | IN_SUBINTERPRETERS) as server:
        first = [asked(server, "one") for _ in range(5)]
        second = [asked(server, "two") for _ in range(5)]
        scrape = server.ask("/two/metrics")[0]
        again = [asked(server, "one") for _ in range(5)]

        assert (set(first + again), set(second), scrape) == ({200}, {500}, 500)
        assert shown(server, "one") == {"/one": 10, "workers": 1}
        (line, *_) = [line for line in server.log().splitlines() if "errors.InstallError: " in line]
        assert "is in use by another Python interpreter of this process" in line
        for way_out in ("WSGIApplicationGroup %{GLOBAL}", "a WSGIDaemonProcess each", "a store of its own"):
            assert way_out in line
    assert_tidy(server)


WAYS_OUT = {
    "a process group for each app": {},
    "one interpreter for all apps": ONE_GROUP,
    "a process group for each app, sub-interpreters": IN_SUBINTERPRETERS,
}


@pytest.mark.row("server", "mod_wsgi: several apps", *SERVER)
@pytest.mark.parametrize("change", WAYS_OUT.values(), ids=WAYS_OUT)
def test_apps_that_do_not_share_a_process_in_two_interpreters_share_a_store(
    change: dict[str, str], folder: Path
) -> None:
    """Each scrape shows what both have counted."""
    with apache(GROUPS, folder, LIVE | {"processes=2": "processes=1"} | change) as server:
        assert {asked(server, app) for app in ("one", "two") * 5} == {200}
        processes = 1 if change == ONE_GROUP else 2

        assert shown(server, "one") == shown(server, "two") == {"/one": 5, "/two": 5, "workers": processes}
    assert "Traceback" not in server.log(), server.log()
    assert_tidy(server)


def test_apps_with_a_store_each_work_side_by_side_in_one_process(folder: Path) -> None:
    """In an interpreter each, with scrapes of both at the same time."""
    with apache(GROUPS, folder, LIVE | ONE_GROUP | IN_SUBINTERPRETERS | OWN_STORES) as server:
        for number in range(1, 21):
            assert {asked(server, "one"), asked(server, "two")} == {200}
            assert shown(server, "one") == {"/one": number, "workers": 1}
            assert shown(server, "two") == {"/two": number, "workers": 1}
    assert "Traceback" not in server.log(), server.log()
    assert len(server.ended()) == 2  # the one that has both, and one that has none


def test_under_the_launcher_a_second_app_goes_on_without_the_store_and_says_so(folder: Path) -> None:
    """In the error log; the first one is exact."""
    row = Site(PAGE, "With the launcher", metrics="/one/metrics", site="groups.conf", launched=True)
    with apache(row, folder, LIVE | ONE_GROUP | IN_SUBINTERPRETERS | NOT_INSTALLED) as server:
        assert {asked(server, app) for app in ("one", "two") * 5} == {200}

        assert shown(server, "one") == {"/one": 5, "workers": 1}
        assert shown(server, "two") == {"/two": 5, "workers": 1}
        (line,) = [line for line in server.log().splitlines() if "counts in its own memory" in line]
        assert "WSGIApplicationGroup %{GLOBAL}" in line
    assert_tidy(server)
