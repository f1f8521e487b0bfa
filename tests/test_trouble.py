"""Promise 4: whatever the state of the store, operations neither raise nor wait, and trouble is logged once."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import child, in_child, scrape, value, wait_for
from outsiders import Operator, drop_rights, unprivileged
from prometheus_client import Counter, Gauge, Histogram, Summary

import sqlmetrics

pytestmark = pytest.mark.promise(4)

LONGEST_WAIT = 0.1
NEW_CHILDREN = 50


class Metrics:
    """One metric of each kind, and one operation of each kind on it."""

    def __init__(self) -> None:
        self.counter = Counter("requests", "Requests", ["path"])
        self.gauge = Gauge("busy", "Busy", ["path"], multiprocess_mode="livesum")
        self.newest = Gauge("newest", "Newest", ["path"], multiprocess_mode="mostrecent")
        self.summary = Summary("size", "Size", ["path"])
        self.histogram = Histogram("latency", "Latency", ["path"])

    def use(self, path: str) -> None:
        """inc, dec, set, observe and labels."""
        self.counter.labels(path).inc()
        self.gauge.labels(path).inc(3)
        self.gauge.labels(path).dec()
        self.newest.labels(path).set(7)
        self.summary.labels(path).observe(2)
        self.histogram.labels(path).observe(0.3)

    @staticmethod
    def shown(path: str) -> dict[str, float | None]:
        """What a scrape shows of them."""
        names = ("requests_total", "busy", "newest", "size_sum", "latency_count")
        return {name: value(name, path=path) for name in names}

    @staticmethod
    def expected(times: int) -> dict[str, float]:
        """What it should show after so many uses."""
        return {
            "requests_total": times,
            "busy": 2 * times,
            "newest": 7,
            "size_sum": 2 * times,
            "latency_count": times,
        }


@pytest.mark.slow
@pytest.mark.promise(2, 5)
def test_new_children_do_not_wait_for_another_programs_write_lock(path: str, shell) -> None:
    """For seconds: no call of any process waits for it, and all are in the next scrape; rows come when it is over."""
    store = sqlmetrics.install(path, flush_interval=0.1)
    latency = Histogram("latency", "Latency", ["child"])

    def slowest_call(prefix: str) -> float:
        calls = []
        start = time.monotonic()
        for number in range(NEW_CHILDREN):
            wait_for(lambda number=number: time.monotonic() >= start + 0.01 * number)
            before = time.perf_counter()
            latency.labels(f"{prefix}{number}").observe(1)
            calls.append(time.perf_counter() - before)
        return max(calls)

    def rows() -> object:
        return shell.value("SELECT count(*) FROM samples WHERE metric = 'latency_sum'")

    store.flush()
    with Operator(path, "BEGIN IMMEDIATE"):
        with child(work=slowest_call) as one:
            # A busy machine can stop any process for a while, but not three times in a row.
            here = min(slowest_call(f"parent {attempt} ") for attempt in range(3))
            there = min(float(str(one.do("work", f"child {attempt} "))) for attempt in range(3))
            shown = scrape()
            rows_while_locked = rows()
        assert here < LONGEST_WAIT
        assert there < LONGEST_WAIT

    counts = [count for (name, labels), count in shown.items() if name == "latency_count" and labels]
    assert counts == [1.0] * (6 * NEW_CHILDREN)
    assert rows_while_locked == 0
    latency.labels("parent 0 0").observe(1)
    wait_for(lambda: rows() == 6 * NEW_CHILDREN)


@pytest.mark.promise(5)
def test_a_known_child_counts_while_the_store_is_locked(path: str) -> None:
    """Its operations touch no SQLite, and are in every scrape."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    metrics = Metrics()
    metrics.use("/")
    store.flush()

    with Operator(path, "BEGIN IMMEDIATE"):
        for times in range(2, 50):
            metrics.use("/")
            assert metrics.shown("/") == metrics.expected(times)


def _make_garbage(path: str) -> None:
    Path(path + ".new").write_bytes(os.urandom(20_000))
    os.replace(path + ".new", path)


def _write_garbage_into(path: str) -> None:
    """By another process: closing any descriptor of the file here would drop SQLite's locks."""
    subprocess.run(["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "count=5", "conv=notrunc"], check=True)


def _take_rights(path: str) -> None:
    _set_modes(path, 0o444)
    os.chmod(os.path.dirname(path), 0o555)


def _set_modes(path: str, mode: int) -> None:
    for suffix in ("", "-wal", "-shm", "-cells"):
        os.chmod(path + suffix, mode)


BREAK: dict[str, Callable[[str], object]] = {
    "nothing": lambda path: None,
    "read-only": _take_rights,
    "replaced by garbage": _make_garbage,
    "overwritten with garbage": _write_garbage_into,
    "cells replaced by garbage": lambda path: _make_garbage(path + "-cells"),
    "wal replaced by garbage": lambda path: _make_garbage(path + "-wal"),
    "main file deleted": os.unlink,
    "cells deleted": lambda path: os.unlink(path + "-cells"),
    "folder deleted": lambda path: shutil.rmtree(os.path.dirname(path)),
    "replaced by a folder": lambda path: (os.unlink(path), os.mkdir(path)),
}


@pytest.mark.parametrize("trouble", BREAK)
def test_operations_never_raise(folder: Path, trouble: str) -> None:
    """Neither on known nor on new children, nor in a child process, and their own counts go on."""
    folder.chmod(0o777)

    def work() -> list[float]:
        path = str(folder / "store" / "metrics.sqlite3")
        (folder / "store").mkdir()
        store = sqlmetrics.install(path, flush_interval=0.01)
        metrics = Metrics()
        metrics.use("/")
        store.flush()
        BREAK[trouble](path)

        def use(times: int) -> bool:
            for number in range(times):
                metrics.use("/")
                metrics.use(f"/{number}")
                store.flush()
            return True

        use(20)
        with child(use=use) as one:
            assert one.do("use", 20)
            assert one.end() == 0
        use(20)
        gone_back = metrics.counter.labels("/19")._value.get()
        return [metrics.gauge.labels("/")._value.get(), metrics.counter.labels("/new")._value.get(), gone_back]

    assert unprivileged(work) == [82, 0, 2]


def test_a_store_that_cannot_be_written_is_logged_once(
    folder: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per cause and not once per flush, by the logger of the package; when it works again, that is said too."""
    caplog.set_level(logging.INFO, "sqlmetrics")
    store = sqlmetrics.install(path, flush_interval=0.01)
    requests = Counter("requests", "Requests")
    requests.inc()
    store.flush()
    shutil.rmtree(folder)

    def flushes(more: int) -> None:
        limit = store.trouble.counts["flush"] + more

        def enough() -> bool:
            requests.inc()
            return store.trouble.counts["flush"] >= limit

        wait_for(enough)

    flushes(5)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == len(set(warnings)) <= 2
    assert len([text for text in warnings if "cannot flush" in text]) == 1
    assert all(path in text for text in warnings)
    assert {record.name for record in caplog.records} == {"sqlmetrics"}

    folder.mkdir()
    requests.inc()
    wait_for(lambda: any("work again" in record.getMessage() for record in caplog.records))

    assert value("requests_total") == requests._value.get()
    shutil.rmtree(folder)
    flushes(5)
    again = [record for record in caplog.records if "cannot flush" in record.getMessage()]
    assert len(again) == 2


def test_rows_come_when_a_read_only_store_is_writable_again(folder: Path, path: str, shell) -> None:
    """Trouble is mended by itself when its cause goes."""
    folder.chmod(0o755)
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["by"])
    requests.labels("parent").inc()
    store.flush()
    _set_modes(path, 0o444)

    def use() -> int:
        requests.labels("child").inc()
        return store.trouble.counts["flush"]

    def rows() -> object:
        return shell("SELECT value FROM samples WHERE json_extract(labels, '$.by') = 'child' AND value > 1")

    with child(drop_rights=drop_rights, use=use) as one:
        one.do("drop_rights")
        wait_for(lambda: int(str(one.do("use"))) > 2)
        assert rows() == []
        _set_modes(path, 0o666)

        wait_for(lambda: one.do("use") and rows())


def test_a_log_handler_may_count(path: str, folder: Path) -> None:
    """A handler that uses metrics itself is called with no lock of the store held."""
    store = sqlmetrics.install(path, flush_interval=0.01)
    lines = Counter("log_lines", "Log lines", ["level"])

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.labels(record.levelname).inc()
            store.flush()
            sqlmetrics.mark_process_dead(1234)

    handler = Handler()
    logging.getLogger("sqlmetrics").addHandler(handler)
    try:
        lines.labels("DEBUG").inc()
        store.flush()
        os.unlink(path)
        lines.labels("DEBUG").inc()
        store.flush()
        wait_for(lambda: lines.labels("WARNING")._value.get() == 1)
    finally:
        logging.getLogger("sqlmetrics").removeHandler(handler)

    wait_for(lambda: os.path.exists(path) and value("log_lines_total", level="DEBUG") == 2)


def test_damage_is_told_in_one_line_that_says_whose_it_is(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """A log is of many processes, and what was mended is neither to be moved away nor told of again."""
    caplog.set_level(logging.INFO, "sqlmetrics")
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["path"])
    requests.labels("/").inc()
    store.flush()
    in_child(lambda: Path(path).write_bytes(os.urandom(20_000)) and None)

    def is_back() -> bool:
        requests.labels("/").inc(0)  # and until it is told, the value may be that of pages that are in memory yet
        return value_or_none(path) == 1 and any("damaged" in text for text in caplog.messages)

    wait_for(is_back)
    (line,) = [text for text in caplog.messages if "damaged" in text]
    assert line == (
        f"{path}: the store was damaged (it is no SQLite database any more) and is moved to"
        f" {path}-damaged (pid {os.getpid()})"
    )


def value_or_none(path: str) -> float | None:
    """What a scrape shows; None while there is nothing to be read."""
    try:
        return scrape(path).get(("requests_total", (("path", "/"),)))
    except sqlmetrics.SQLMetricsError:
        return None
