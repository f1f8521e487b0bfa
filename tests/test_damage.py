"""Whatever is done to the files while the app runs: operations go on, and the store heals with the right numbers."""

from __future__ import annotations

import gc
import itertools
import os
import traceback
import uuid
from collections.abc import Callable

import apsw
import pytest
import vandal
from helpers import FILES, Child, Shell, child, scrape, wait_for
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from outsiders import Operator
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.rows import checkup

pytestmark = pytest.mark.promise(4)

SETS = [files for count in (1, 2) for files in itertools.combinations(FILES, count)]
RESTORED = [
    pytest.param(files, in_place, id=" ".join(suffix or "main" for suffix in files) + " in place" * in_place)
    for files, in_place in itertools.product(SETS, (False, True))
    if not (in_place and "-cells" in files)  # overwriting mapped cells in place is the documented limit
]


@pytest.fixture(autouse=True)
def _checked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is too long for a test."""
    monkeypatch.setattr(checkup, "SECONDS", 0.3)
    monkeypatch.setattr(checkup, "SHARE", 1.0)


class App:
    """Two processes that count, and what the scrapes have to show of it."""

    def __init__(self, path: str):
        self.store = sqlmetrics.install(path, flush_interval=0.01)
        self.requests = Counter("requests", "Requests", ["by", "number"], registry=None)
        self.busy = Gauge("busy", "Busy", multiprocess_mode="livesum", registry=None)
        self.latency = Histogram("latency", "Latency", buckets=(1, 2), registry=None)
        self.counted: dict[str, int] = {}
        self.child: Child | None = None
        self.seen: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<App that counted {self.counted}, has a child: {self.child is not None}, and saw {self.seen}>"

    def use(self, who: str, first: int) -> None:
        """Every kind of operation, on known and on new children."""
        for number in range(first, first + 10):
            self.requests.labels(who, str(number)).inc()
            self.latency.observe(1.5)
        self.busy.set(1)

    def use_all(self, first: int) -> None:
        """In both processes."""
        self.use("parent", first)
        if self.child:
            self.child.do("use", "child", first)
        for who in ("parent", "child")[: 1 + bool(self.child)]:
            self.counted[who] = self.counted.get(who, 0) + 10

    def end_child(self) -> None:
        """What it counted stays."""
        assert self.child
        self.child.end()
        self.child = None
        self.store.flush()

    def shown(self) -> dict[str, float]:
        """What a scrape shows, {} if there is none."""
        try:
            found = scrape(self.store.path)
        except (sqlmetrics.SQLMetricsError, apsw.BusyError):
            return {}
        result = {name: number for (name, labels), number in found.items() if not labels}
        for (name, labels), number in found.items():
            if name == "requests_total":
                who = dict(labels).get("by", "")
                result[who] = result.get(who, 0) + number
        return result

    def is_exact(self) -> bool:
        """Whether all that living processes counted is shown, once."""
        shown = self.seen = self.shown()
        living = dict(self.counted) if self.child else {"parent": self.counted["parent"]}
        return (
            bool(shown)
            and all(shown.get(who) == count for who, count in living.items())
            and shown.get("busy") == len(living)
            and (not self.child or shown.get("latency_count") == sum(living.values()))
        )


def _damaged(path: str, app: App, damages: list[Callable[[str, int], None]], seed: int) -> None:
    with child(use=app.use) as one:
        app.child = one
        first = 0
        app.use_all(first)
        wait_for(app.is_exact)
        for damage in damages:
            if seed % 2:
                app.store.flush()
            vandal.have(damage, path, seed)
            for step in (5, 10, 15):
                app.use_all(first + step)
            first += 15
        wait_for(app.is_exact)
        app.child = None


@pytest.mark.parametrize("damage", vandal.DAMAGES)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
def test_the_numbers_are_back_after_any_damage(path: str, damage: Callable[[str, int], None], seed: int) -> None:
    """Of every kind: no operation raises, and all that two living processes counted is in the scrapes again."""
    _damaged(path, App(path), [damage], seed)


BEHIND_THE_INDEX = (
    "BEGIN IMMEDIATE",
    "PRAGMA writable_schema = ON",
    "CREATE TEMP TABLE hidden AS SELECT * FROM sqlite_schema WHERE name = 'gauge_cell'",
    "DELETE FROM sqlite_schema WHERE name = 'gauge_cell'",
    "PRAGMA writable_schema = RESET",
    "DELETE FROM cell_copy WHERE gauge",
    "PRAGMA writable_schema = ON",
    "INSERT INTO sqlite_schema SELECT * FROM hidden",
    "PRAGMA writable_schema = RESET",
    "COMMIT",
)
"""As damage to the WAL's index leaves it, when SQLite reads an older page of the table or of the index."""
UNNOTICED = {
    "a bucket's bound": "UPDATE series SET variant = '0.x' WHERE variant = '1.0'",
    "labels that are a list": "UPDATE series SET labels = '[1]' WHERE id IN (SELECT min(id) FROM series)",
    "a label that is a number": """UPDATE series SET labels = '{"by":1}' WHERE id IN (SELECT min(id) FROM series)""",
    "a column's name": """PRAGMA writable_schema = ON; UPDATE sqlite_schema
        SET sql = replace(sql, 'timestamp', 'timestomp') WHERE name = 'retired'""",
    "a pid that is no text": "UPDATE instance SET pid = CAST(x'ff' AS TEXT)",
    "rows that are in an index only": "; ".join(BEHIND_THE_INDEX),
}
"""What SQLite itself, or its `quick_check`, finds no fault with."""


@pytest.mark.parametrize("statement", UNNOTICED.values(), ids=UNNOTICED)
def test_rows_that_sqlite_finds_no_fault_with_are_made_anew(path: str, shell: Shell, statement: str) -> None:
    """No scrape, or a wrong one, would be made of them."""
    app = App(path)
    with child(use=app.use) as one:
        app.child = one
        app.use_all(0)
        app.store.flush()
        before = shell.value("SELECT pair FROM store")
        with Operator(path) as operator:
            operator.run(statement)
        app.use_all(5)
        shell.wait_for_row(f"SELECT 1 FROM store WHERE pair <> '{before}'")
        wait_for(app.is_exact)
        app.child = None


def test_ids_of_lost_series_are_not_given_again(path: str, shell: Shell) -> None:
    """As after the same damage: rows that refer to them would be about others, and nobody could notice."""
    app = App(path)
    app.use("parent", 0)
    app.store.flush()
    last = shell.value("SELECT max(id) FROM series")
    with Operator(path) as operator:
        operator.run(f"DELETE FROM series WHERE id = {last}")
        operator.run(f"DELETE FROM cell_copy WHERE series = {last}")
    app.use("parent", 100)
    app.store.flush()
    assert shell.value("SELECT max(id) FROM series") > last + 10
    assert shell.value(f"SELECT count(*) FROM series WHERE id = {last}") == 0


def test_rows_that_have_forgotten_a_process_are_made_anew(path: str, shell: Shell) -> None:
    """As when a WAL is cut off behind a commit: what ended processes left may be there twice, so it is made anew."""
    app = App(path)
    with child(use=app.use) as one:
        app.child = one
        app.use_all(0)
        app.end_child()
    wait_for(lambda: shell("SELECT * FROM slot"))
    before = shell.value("SELECT pair FROM store")
    with Operator(path) as operator:
        operator.run("DELETE FROM slot")
    shell.wait_for_row(f"SELECT 1 FROM store WHERE pair <> '{before}'")
    app.use_all(5)
    wait_for(app.is_exact)
    assert app.shown()["child"] == 10


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(damages=st.lists(st.sampled_from(vandal.DAMAGES), min_size=1, max_size=4), seed=st.integers(0, 2**32))
@pytest.mark.slow
def test_the_numbers_are_back_after_one_damage_upon_another(
    folder, damages: list[Callable[[str, int], None]], seed: int
) -> None:
    """One after the other, in any order."""
    where = folder / f"{uuid.uuid4().hex}.sqlite3"
    gc.collect()  # metrics of the example before, which nobody has any more, would be taken over
    try:
        _damaged(str(where), App(str(where)), damages, seed)
    except AssertionError as error:  # or it would hold the metrics, and the same example, tried again, take them over
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        sqlmetrics.uninstall()


@pytest.mark.parametrize("seed", range(6))
def test_counts_go_on_after_the_directory_of_cells_was_garbled(path: str, seed: int) -> None:
    """Whose cells are whose is not written twice, so counts may be lost with it; but new ones count, once."""
    app = App(path)

    def grows_by_what_is_counted() -> bool:
        before = app.shown()
        app.use_all(0)
        after = app.shown()
        return bool(before) and all(after.get(who) == before.get(who, 0) + 10 for who in ("parent", "child"))

    with child(use=app.use) as one:
        app.child = one
        app.use_all(0)
        app.store.flush()
        vandal.have(vandal.flip_in_cells_directory, path, seed)
        for first in (5, 10, 15):
            app.use_all(first)
        wait_for(grows_by_what_is_counted)
        wait_for(grows_by_what_is_counted)
        app.child = None


@pytest.mark.parametrize(("restored", "in_place"), RESTORED)
@pytest.mark.slow
def test_files_restored_from_a_copy_count_nothing_twice(path: str, restored: tuple[str, ...], in_place: bool) -> None:
    """Of an earlier state, while one process that was in it has ended and another lives: nothing is counted twice."""
    app = App(path)
    with child(use=app.use) as one:
        app.child = one
        app.use_all(0)
        app.store.flush()
        vandal.have(vandal.back_up, path)
        app.use_all(5)
        app.end_child()
        ended = app.counted["child"]
        app.use_all(10)
        for _ in range(3):  # others take the cells that the ended one had
            with child(use=app.use) as another:
                another.do("use", "others", 0)
                another.end()
            app.store.flush()

        vandal.have(vandal.restore, path, restored, in_place=in_place)
        app.use_all(20)
        wait_for(app.is_exact)

    shown = app.shown()
    assert shown.get("child", 0) in (0, 10, ended)
    assert shown.get("others", 0) in (0, 10, 20, 30)
    assert len(os.listdir(os.path.dirname(path))) <= 6  # the backup is one
