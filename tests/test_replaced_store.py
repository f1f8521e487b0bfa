"""A store that is deleted under its processes is made anew, with the values of those that live."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable

import apsw
import pytest
from helpers import FILES, child, delete, scrape, unflushed, value, wait_for
from interruption import Interruption
from outsiders import Operator, python
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.rows import database, renew, settle
from sqlmetrics.store.flusher import Outcome

pytestmark = pytest.mark.promise(4)

SETS = [files for count in (1, 2, 3, 4) for files in itertools.combinations(FILES, count)]
DELETED = {" ".join(suffix or "main" for suffix in files): files for files in SETS}
"""Each file, each pair of them, and so on."""


def shows(expected: dict[str, float]) -> Callable[[], bool]:
    """A condition: a scrape has these values; until the store is made anew a scrape may have none to read."""

    def is_shown() -> bool:
        try:
            found = {name: number for (name, _), number in scrape().items()}
        except sqlmetrics.SQLMetricsError:
            return False
        return all(found.get(name) == number for name, number in expected.items())

    return is_shown


@pytest.mark.parametrize("deleted", DELETED)
@pytest.mark.promise(7)
@pytest.mark.slow
def test_values_of_living_processes_come_back(path: str, shell, caplog: pytest.LogCaptureFixture, deleted: str) -> None:
    """Of all of them, with the next operation's flush, and it is logged once."""
    caplog.set_level(logging.WARNING, "sqlmetrics")
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
    latency = Histogram("latency", "Latency")

    def use() -> None:
        requests.inc(10)
        busy.inc()
        latency.observe(0.5)

    use()
    with child(use=use) as one:
        one.do("use")
        store.flush()
        shell.wait_for_row("SELECT 1 FROM metrics WHERE metric = 'requests_total' AND value = 20")

        store.flusher.stop()  # a busy machine may let it find one half deleted, and the other half of the new files
        delete(path, DELETED[deleted])
        store.flusher.allow()
        store.flusher.wake()
        use()
        one.do("use")

        wait_for(shows({"requests_total": 40, "busy": 4, "latency_count": 4, "latency_sum": 2}))
        shell.wait_for_row("SELECT 1 FROM metrics WHERE metric = 'requests_total' AND value = 40")
        assert sorted(os.listdir(os.path.dirname(path))) == sorted("metrics.sqlite3" + suffix for suffix in FILES)
        assert shell.value("PRAGMA integrity_check") == "ok"
        one.kill()

    assert shows({"requests_total": 40, "busy": 2, "latency_count": 4})()
    said = [record.getMessage() for record in caplog.records]
    # Twice, if the child's flusher came between two deletions: what it made anew was deleted with the rest.
    assert len([text for text in said if "deleted or replaced" in text]) in (1, 2)
    assert all(path in text for text in said)


@pytest.mark.parametrize("deleted", DELETED)
@pytest.mark.slow
def test_values_of_idle_processes_come_back(path: str, deleted: str) -> None:
    """Also of one that has nothing to do at the time: its values are in the scrapes again soon."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["by"])
    requests.labels("parent").inc()

    with child(use=lambda: requests.labels("child").inc()) as one:
        one.do("use")
        ten_intervals = time.monotonic() + 0.2
        wait_for(lambda: time.monotonic() > ten_intervals)
        store.flush()
        delete(path, DELETED[deleted])

        def both() -> bool:
            requests.labels("parent").inc()  # this process is busy, the child is not
            try:
                return value("requests_total", by="child") == 1
            except sqlmetrics.SQLMetricsError:
                return False

        wait_for(both)


@pytest.mark.parametrize("deleted", DELETED)
@pytest.mark.slow
def test_what_ended_processes_left_stays_and_is_counted_once(path: str, deleted: str) -> None:
    """It stays too, as long as a process has the files open, and is counted once."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc(1)
    with child(use=lambda: requests.inc(10)) as one:
        one.do("use")
        one.end()
    store.flush()

    delete(path, DELETED[deleted])
    requests.inc(100)

    wait_for(shows({"requests_total": 111}))
    sqlmetrics.uninstall()
    assert scrape(path)[("requests_total", ())] == 111


@pytest.mark.parametrize("deleted", ["main -wal -shm -cells", "main", "-wal", "-shm", "-cells", "-wal -shm"])
@pytest.mark.slow
def test_counts_are_exact_after_deletions_while_two_processes_count(path: str, deleted: str) -> None:
    """Again and again, in the middle of everything: what living processes counted is exact at the end."""
    store = sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests", ["path"])
    total = 0

    def use(times: int) -> int:
        for number in range(times):
            requests.labels(f"/{number % 40}").inc()
        return times

    with child(use=use) as one:

        def is_exact() -> bool:
            one.do("use", 0)
            store.flush()
            try:
                return sum(number for (name, _), number in scrape().items() if name == "requests_total") == total
            except sqlmetrics.SQLMetricsError:
                return False

        for _ in range(8):
            total += int(str(one.do("use", 500))) + use(500)
            delete(path, DELETED[deleted])
            total += int(str(one.do("use", 500))) + use(500)
            wait_for(is_exact)

    assert sum(scrape().values()) == total


def test_rows_of_one_store_are_not_written_to_another(folder, path: str) -> None:
    """A flush that finds another store's database at the path, replaced a moment ago, changes nothing there."""
    other = str(folder / "other.sqlite3")
    python("import sys, sqlmetrics; sqlmetrics.install(sys.argv[1])", other)
    store = sqlmetrics.install(path, flush_interval=1000)
    Counter("requests", "Requests").inc()

    with contextlib.closing(database.connect(other)) as connection:
        with (
            pytest.raises(database.CutOffError, match="not those of the cells"),
            settle.settling(connection, store.file),
        ):
            connection.execute("DELETE FROM store")
        assert connection.execute("SELECT count(*) FROM store").get == 1


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_rows_come_along_when_a_shell_opens_the_database_while_it_is_replaced(
    path: str, shell, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """It makes `-wal` and `-shm` again where they were just unlinked; the rows in the old WAL come along."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["by"])
    with child(use=lambda: (requests.labels("dead").inc(5), store.flush())[0]) as one:
        one.do("use")
        one.kill()
    requests.labels("here").inc(2)
    store.flush()
    unlink, operators = renew._unlink, []

    def unlink_and_open(name: str) -> None:
        unlink(name)
        if name == path + suffix and not operators:
            operators.append(Operator(path))
            operators[0].run("SELECT count(*) FROM sqlite_master")

    monkeypatch.setattr(renew, "_unlink", unlink_and_open)
    delete(path, ("-cells",))
    requests.labels("here").inc(2)
    wait_for(lambda: store.flush() and shows_by({"dead": 5, "here": 4}))

    assert len(operators) == 1
    with operators[0]:
        assert store.trouble.counts["flush"] == 0
    assert shell.value("PRAGMA integrity_check") == "ok"


def shows_by(expected: dict[str, float]) -> bool:
    """Whether a scrape shows these counts."""
    return {dict(labels)["by"]: count for (_, labels), count in scrape().items()} == expected


@pytest.mark.parametrize("times", [1, 3])
def test_files_that_are_moved_away_and_back_have_what_was_counted_meanwhile(
    folder, path: str, shell, times: int
) -> None:
    """By somebody who meant others: what is counted meanwhile is in the old files afterwards, once."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
    highest = Gauge("highest", "Highest", multiprocess_mode="max")
    away = str(folder / "away.sqlite3")

    def use(number: int) -> None:
        requests.inc(10)
        busy.set(1)
        highest.set(number)

    def move(source: str, target: str) -> None:
        for suffix in FILES:
            os.replace(source + suffix, target + suffix)

    def use_both(number: int) -> None:
        use(number)
        one.do("use", number + 1)
        wait_for(shows({"requests_total": 20 * number + 5, "busy": 2, "highest": number + 1}))

    with child(use=lambda: requests.inc(5)) as gone:
        gone.do("use")
    with child(use=use, flush=lambda: store.flush().name) as one:
        use_both(1)
        first = shell.value("SELECT id FROM store")
        for time_ in range(1, times + 1):
            one.do("flush")  # else it may have nothing open of the old files, and be the one that makes new ones
            store.flush()
            move(path, away)
            use(2 * time_)
            one.do("use", 2 * time_ + 1)
            wait_for(shows({"requests_total": 40 * time_ + 5, "busy": 2}))
            move(away, path)
            wait_for(shows({"requests_total": 40 * time_ + 5, "busy": 2, "highest": 2 * time_ + 1}))
            use_both(2 * time_ + 1)
        assert shell.value("SELECT id FROM store") == first
        wait_for(lambda: shell.value("SELECT count(*) FROM processes WHERE state = 'unsettled'") == 2)
        one.kill()
    wait_for(shows({"requests_total": 40 * times + 25, "busy": 1, "highest": 2 * times + 2}))


@pytest.mark.parametrize("deleted", ["main", "-cells", "main -wal -shm -cells"])
@pytest.mark.slow
def test_threads_that_flush_while_the_store_is_gone_go_over_once(path: str, deleted: str) -> None:
    """One of them goes over to the new files, once."""
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["number"])
    ended = threading.Event()

    def flush_on() -> None:
        while not ended.is_set():
            store.flush()

    def shown() -> float:
        try:
            return sum(number for (name, _), number in scrape().items() if name == "requests_total")
        except (sqlmetrics.SQLMetricsError, apsw.BusyError):
            return -1

    threads = [threading.Thread(target=flush_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for round_ in range(1, 21):
        for number in range(10):
            requests.labels(number).inc()
        delete(path, DELETED[deleted])
        wait_for(lambda: shown() == 10 * round_)  # noqa: B023 - called in this round
    ended.set()
    for thread in threads:
        thread.join()

    assert shown() == 200


def test_a_process_that_starts_makes_a_store_that_is_gone_anew(path: str) -> None:
    """It makes the store anew, and those that were there before join it."""
    sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc(10)
    delete(path)

    python(
        """
        import sys
        import prometheus_client, sqlmetrics
        sqlmetrics.install(sys.argv[1])
        prometheus_client.Counter("requests", "Requests").inc(100)
        """,
        path,
    )
    requests.inc()

    wait_for(shows({"requests_total": 111}))


def test_operations_go_on_while_the_folder_is_deleted(folder, path: str) -> None:
    """Operations go on, new children and forks included; when the folder is there again, so are their values."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()
    shutil.rmtree(folder)

    def use() -> None:
        requests.labels("/").inc()
        requests.labels("/new").inc()
        store.flush()

    use()
    with child(use=use) as one:
        one.do("use")
        folder.mkdir()

        def is_back() -> bool:
            try:
                return value("requests_total", path="/") == 3 and value("requests_total", path="/new") == 2
            except sqlmetrics.SQLMetricsError:
                return False

        wait_for(lambda: store.flush() and is_back())


def test_the_log_names_a_folder_that_was_deleted(folder, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing works again before somebody makes it."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    Counter("requests", "Requests").inc()
    shutil.rmtree(folder)

    wait_for(lambda: store.trouble.counts["flush"])

    wait_for(lambda: f"the folder {str(folder)!r} does not exist" in caplog.text)


def test_a_reader_follows_the_new_store(path: str) -> None:
    """A collector that was made before reads the store that is there now."""
    sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests")
    requests.inc()
    collector = sqlmetrics.MultiProcessCollector(None)

    def shown() -> list[float]:
        try:
            return [sample.value for metric in collector.collect() for sample in metric.samples]
        except sqlmetrics.SQLMetricsError:
            return []

    for times in range(2, 5):
        delete(path)
        requests.inc()
        wait_for(lambda times=times: shown() == [times])


@pytest.mark.parametrize("pause", [1, 8])
@pytest.mark.parametrize("order", [FILES, FILES[::-1]], ids=["database first", "database last"])
@pytest.mark.slow
def test_files_that_come_back_while_new_ones_are_made_are_counted_once(
    folder, order: tuple[str, ...], pause: int
) -> None:
    """At each third line of it; and not all at once: the others some lines after the first."""
    line = at_the_end = 0
    while not at_the_end:
        line += 3
        path, away = (str(folder / name / f"{line}.sqlite3") for name in ("there", "away"))
        at_the_end = _moved_back_at_a_line(path, away, line, pause, order)
    assert line > 100


def _moved_back_at_a_line(path: str, away: str, line: int, pause: int, order: tuple[str, ...]) -> bool:
    """Whether new files were made before that line."""
    for name in (path, away):
        os.makedirs(os.path.dirname(name), exist_ok=True)
    store = unflushed(path)
    requests = Counter("requests", "Requests", ["by"], registry=None)

    gone = [*order]

    def bring_back() -> None:
        for suffix in gone[:1] if pause and len(gone) == len(FILES) else gone[:]:
            gone.remove(suffix)
            os.replace(away + suffix, path + suffix)

    def interrupted() -> bool:
        watch = Interruption({line, line + pause}, [renew], bring_back)
        with watch.watching():
            wait_for(lambda: store.flush() is not Outcome.BUSY or watch.where)
        while gone:
            bring_back()
        return not watch.where

    def flush() -> None:
        store.flusher.stop()  # else the first flush after the fork may make the files, in a thread that is not watched
        store.flush()

    with child(count=lambda: requests.labels("ended").inc(5)) as ended:
        ended.do("count")
    with child(count=lambda: requests.labels("living").inc(3), flush=flush, interrupted=interrupted) as one:
        one.do("count")
        one.do("flush")
        requests.labels("here").inc(1)
        store.flush()
        for suffix in FILES:
            os.replace(path + suffix, away + suffix)
        requests.labels("here").inc(1)
        is_over = bool(one.do("interrupted"))
        living = {"living": 3, "here": 2}
        for _ in range(2):
            wait_for(lambda: (store.flush(), one.do("flush"), shows_by({"ended": 5} | living) or shows_by(living))[2])
    sqlmetrics.uninstall()
    return is_over


def test_a_wal_of_another_database_is_not_read(folder, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """As when somebody copies some of the files of two stores to one place; SQLite would read pages of both."""
    other = str(folder / "other.sqlite3")
    for name, count in ((path, 5), (other, 7)):
        code = f"sqlmetrics.install({name!r}).flush(); Counter('requests', 'R', ['by']).labels('{count}').inc({count})"
        python(f"import sqlmetrics; from prometheus_client import Counter; {code}")
    with Operator(path) as operator:
        operator.run("PRAGMA wal_checkpoint(TRUNCATE)")
    delete(path, ("-shm",))
    shutil.copy(other + "-wal", path + "-wal")
    assert os.path.getsize(path + "-wal") > 0

    caplog.set_level(logging.WARNING, "sqlmetrics")
    sqlmetrics.install(path).flush()

    assert shows_by({"5": 5})
    assert "-wal belongs to another database" in caplog.text
