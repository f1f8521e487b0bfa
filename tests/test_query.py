"""The query: one text for the views and for scrapes, whatever is in rows, in cells and in journals."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import Shell, child, flush_all, in_child, scrape, value, wait_for
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary

import sqlmetrics
from sqlmetrics.rows import schema
from sqlmetrics.scrape import query, tables
from sqlmetrics.store.flusher import Outcome

pytestmark = pytest.mark.promise(9)

MODES = ("all", "min", "max", "sum", "mostrecent", "liveall", "livemin", "livemax", "livesum", "livemostrecent")
PAGE = Path(__file__).parent.parent / "docs" / "design.md"
_COUNTS = """
import json, sys
import sqlmetrics
from prometheus_client import Counter, Gauge
store = sqlmetrics.install(sys.argv[1], flush_interval=600)
Counter("requests", "Requests").inc(3)
Gauge("level", "Level", multiprocess_mode="max").set(4)
store.flush()
text = sqlmetrics.generate_latest().decode()
print(json.dumps({line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line and line[0] != "#"}))
"""


def _use_everything() -> None:
    """All types and modes, in this process and in ones that have ended, with values that SQL has no literals for."""
    requests, sizes = Counter("requests", "Requests", ["path"]), Summary("sizes", "Sizes", ["path"])
    latency = Histogram("latency", "Latency", ["path"])
    gauges = [Gauge(f"level_{mode}", "Level", ["path"], multiprocess_mode=mode) for mode in MODES]
    build, task = Info("build", "Build"), Enum("task", "Task", ["job"], states=["off", "on"])

    def use(number: int) -> None:
        for path in ("/", '/"quoted"\\', "/\N{SNOWMAN}"):
            requests.labels(path).inc(0.1 * number)
            sizes.labels(path).observe(number)
            latency.labels(path).observe(number / 7)
            for gauge in gauges:
                gauge.labels(path).set(-number)
        build.info({"number": f"{number}"})
        task.labels("a").state("on" if number % 2 else "off")
        gauges[0].labels("odd").set(math.inf)
        gauges[1].labels("odd").set(math.nan if number == 2 else number)

    in_child(lambda: use(1))
    in_child(lambda: use(2))
    use(3)
    gauges[4].labels("never set")


def _shown(rows: list[dict[str, object]]) -> dict[tuple[object, object], object]:
    """Rows of the view `metrics` as `scrape` has samples; the shell writes Inf as a large number, and NaN as null."""
    found = {}
    for row in rows:
        labels = tuple(sorted(json.loads(str(row["labels"])).items()))
        found[row["metric"], labels] = math.nan if row["value"] is None else float(str(row["value"]))
    return found


def _same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)


@pytest.mark.promise(7)
def test_the_page_shows_the_query_and_the_shell_answers_as_a_scrape(store: sqlmetrics.Store) -> None:
    """The text on the page is the view's, and what the shell makes of it after a flush is what a scrape shows."""
    _use_everything()
    store.flush()
    written = re.search(r"```sql\n(WITH part AS.*?);?\n```", PAGE.read_text("utf-8"), re.DOTALL)
    assert written
    assert written[1] == query.view()

    shell = Shell(store.path)
    pasted = shell(written[1])
    assert len(pasted) > 60
    assert str(pasted) == str(shell("SELECT * FROM totals"))
    shown, samples = _shown(shell("SELECT metric, labels, value FROM metrics")), scrape()
    assert shown.keys() == samples.keys()
    assert {key: (shown[key], one) for key, one in samples.items() if not _same(shown[key], one)} == {}


def test_what_the_query_is_changed_to_changes_views_and_scrapes(folder: Path, path: str) -> None:
    """There is no second definition: a store made with other arithmetic shows its results everywhere."""
    package = folder / "changed" / "sqlmetrics"
    shutil.copytree(Path(sqlmetrics.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(package / "migrations", ignore_errors=True)
    (package / "migrations").mkdir()
    for number, text in schema.migrations():
        changed = text.replace("THEN sum(value) END", "THEN 1000 + sum(value) END").replace(
            "max(value)", "2 * max(value)"
        )
        (package / "migrations" / f"{number:04}_x.sql").write_text(changed, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    command = [sys.executable, "-c", _COUNTS, path]

    found = subprocess.run(
        command, cwd=package.parent, env=environment, check=True, capture_output=True, text=True, timeout=60
    )

    scraped = json.loads(found.stdout)
    assert (scraped["requests_total"], scraped["level"]) == (1003, 8)
    rows = Shell(path)("SELECT metric, value FROM metrics WHERE family IN ('requests', 'level')")
    assert {row["metric"]: row["value"] for row in rows} == {"requests_total": 1003, "level": 8}


@pytest.mark.parametrize("spread", [0.0, 1e6])
def test_cells_are_found_however_blocks_are_spread(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch, spread: float
) -> None:
    """In a row, or numbered block by block; with sums that only one rounding gets right, and gauges in between."""
    monkeypatch.setattr(tables, "_SPREAD", spread)
    chance = random.Random(7)
    counts, levels = (
        Counter("counts", "Counts", ["number"]),
        Gauge("levels", "Levels", ["number"], multiprocess_mode="sum"),
    )
    newest = Gauge("newest", "Newest", ["number"], multiprocess_mode="mostrecent")
    amounts = [[chance.choice([0.0, 1e-9, 0.1, 3.0, 1e15]) * chance.random() for _ in range(700)] for _ in range(4)]

    def use(some: list[float]) -> None:
        for number in chance.sample(range(700), 700):
            counts.labels(str(number)).inc(some[number])
            levels.labels(str(number)).set(-some[number])
            if number % 100 == 0:
                newest.labels(str(number)).set(some[number])

    with child(use=use) as one, child(use=use) as two:
        in_child(lambda: use(amounts[0]))
        one.do("use", amounts[1])
        in_child(lambda: use(amounts[2]))
        two.do("use", amounts[3])
        for _ in range(2):
            shown = scrape()
            for number in range(700):
                labels = (("number", str(number)),)
                assert shown["counts_total", labels] == math.fsum(some[number] for some in amounts)
                assert shown["levels", labels] == -math.fsum(some[number] for some in amounts)
            assert shown["newest", (("number", "100"),)] == amounts[3][100]
            store.flush()


@pytest.mark.parametrize("name", ['a"b', "a.b", "$", "a[0]", "a'b", "a b"])
def test_names_that_are_no_json_paths_are_shown_as_they_are(store: sqlmetrics.Store, shell: Shell, name: str) -> None:
    """The state of an Enum is a label of the metric's name, which may be any text; the views show it as it is."""
    Enum(name, "Odd", ["job"], states=["off", "on"]).labels("x").state("on")
    Counter("requests", "Requests", [name, "le"]).labels("y", "z").inc()
    store.flush()
    expected = {
        (name, tuple(sorted({"job": "x", name: state}.items()))): float(state == "on") for state in ("off", "on")
    } | {("requests_total", tuple(sorted({name: "y", "le": "z"}.items()))): 1.0}

    assert {key: one for key, one in scrape().items() if key in expected} == expected
    assert _shown(shell("SELECT metric, labels, value FROM metrics")) == expected
    assert len(shell("SELECT * FROM samples")) == 3


@pytest.mark.promise(1)
def test_a_nan_or_two_infinities_make_a_sum_nan(store: sqlmetrics.Store) -> None:
    """Whether the parts are in cells, in rows or in a journal."""
    counts = Counter("counts", "Counts", ["of"])
    levels = Gauge("levels", "Levels", ["of"], multiprocess_mode="livesum")

    def use(infinity: float) -> None:
        counts.labels("nan").inc(math.nan)
        counts.labels("inf").inc(math.inf)
        levels.labels("both").set(infinity)

    with child(use=use) as one:
        one.do("use", -math.inf)
        use(math.inf)
        for _ in range(2):
            assert math.isnan(value("counts_total", of="nan") or 0)
            assert math.isnan(value("levels", of="both") or 0)
            assert value("counts_total", of="inf") == math.inf
            store.flush()


def test_scrapes_follow_a_journal_whose_pages_were_given_back(store: sqlmetrics.Store) -> None:
    """Between two scrapes a process announces more than a page of its journal holds, and flushes it."""
    requests = Counter("requests", "Requests", ["path"])

    def use(first: int) -> None:
        for number in range(first, first + 200):
            requests.labels(f"/{'x' * 50}/{number}").inc(number)

    with child(use=use, flush=lambda: store.flush() is Outcome.NOTHING_CHANGED) as one:
        for first in range(0, 1000, 200):
            one.do("use", first)
            if first % 400:
                wait_for(lambda: one.do("flush"))
            shown = [value for (name, _), value in scrape().items() if name == "requests_total"]
            assert sorted(shown) == list(range(first + 200))


def test_a_reset_between_two_scrapes_shows_nothing_of_before(path: str) -> None:
    """Series that come after it get ids that others had: nothing that was known of those may be shown."""
    sqlmetrics.install(path)
    requests = Counter("requests", "Requests", ["path"])
    level = Gauge("level", "Level", ["path"], multiprocess_mode="livesum")
    sizes = Histogram("sizes", "Sizes", ["path"])

    def use(*names: str) -> None:
        for number, name in enumerate(names, 1):
            requests.labels(name).inc(number)
            level.labels(name).set(number)
            sizes.labels(name).observe(number)

    for names in (("a", "b", "c"), ("c", "d"), ("b",)):
        with child(use=use) as one:
            one.do("use", *names)
            expected = {(("path", name),): number for number, name in enumerate(names, 1)}
            for name in ("requests_total", "level", "sizes_sum"):
                assert {labels: value for (what, labels), value in scrape().items() if what == name} == expected
        sqlmetrics.reset(path, force=True)
        assert scrape() == {}


def test_a_wrong_death_notice_between_two_scrapes_takes_live_gauges_until_the_next_operation(path: str) -> None:
    """Its `live*` gauges are gone from the next scrape, and back after its next operation."""
    store = sqlmetrics.install(path, flush_interval=1000)
    level = Gauge("level", "Level", ["by"], multiprocess_mode="livesum")
    total = Gauge("total", "Total", ["by"], multiprocess_mode="sum")
    by = (("by", "child"),)

    def use() -> None:
        level.labels("child").set(2)
        total.labels("child").set(3)
        # What it counts of its own flushes is an operation, too.
        flush_all(store)

    with child(use=use) as one:
        one.do("use")
        assert scrape() == {("level", by): 2, ("total", by): 3}
        sqlmetrics.mark_process_dead(one.pid)
        assert scrape() == {("total", by): 3}
        one.do("use")
        assert scrape() == {("level", by): 2, ("total", by): 3}


@pytest.mark.parametrize("write", [sqlmetrics.generate_latest, lambda: list(map(str, scrape().items()))])
@pytest.mark.promise(5)
def test_threads_that_scrape_while_series_come_have_answers_of_their_own(
    store: sqlmetrics.Store, write: object
) -> None:
    """They share what is known of the store; each has its own answer."""
    requests = Counter("requests", "Requests", ["path"])
    sizes = Histogram("sizes", "Sizes", ["path"])
    errors: list[Exception] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                write()  # type: ignore[operator]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        requests.labels(f"/{number}").inc()
        sizes.labels(f"/{number}").observe(number)
    done.set()
    for thread in threads:
        thread.join()

    assert not errors
    assert sum(name == "requests_total" for name, _ in scrape()) == 300
