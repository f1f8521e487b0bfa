"""A disk that is full, on a real tmpfs: nothing raises, scrapes go on, and when there is room nothing was lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from disks import Disk, can_mount
from helpers import Shell, child, own, scrape, value, wait_for
from launching import run, write
from outsiders import Operator
from prometheus_client import Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.rows import wal
from sqlmetrics.store import flush

pytestmark = [
    pytest.mark.promise(4),
    pytest.mark.skipif(not can_mount(), reason="mounting a small tmpfs needs root and CAP_SYS_ADMIN"),
]


@pytest.fixture
def mounted(folder: Path) -> Iterator[list[Disk]]:
    """Where tests note the disks that are to be unmounted."""
    disks: list[Disk] = []
    yield disks
    sqlmetrics.uninstall()
    for disk in disks:
        disk.unmount()


@pytest.mark.parametrize("size", ["4k", "64k", "200k", "360k"])
def test_an_app_that_starts_on_a_full_disk_counts_in_memory(
    folder: Path, mounted: list[Disk], size: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The app starts and counts in memory, says so once, and all of it is in the store when there is room."""
    disk = Disk(folder, size)
    mounted.append(disk)
    store = sqlmetrics.install(disk.path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["path"])
    sqlmetrics.MultiProcessCollector(None)
    for number in range(3000):
        requests.labels(f"/{number % 1000}").inc()
    store.flush()
    store.flush()

    disk.resize("32m")

    def all_is_shown() -> bool:
        with suppress(sqlmetrics.SQLMetricsError):  # a scrape may meet the files in the making
            return os.path.exists(disk.path + "-cells") and sum(scrape().values()) == 3000
        return False

    wait_for(all_is_shown)
    wait_for(lambda: Shell(disk.path).value("SELECT sum(value) FROM metrics") == 3000)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(warnings) == len(set(warnings)) <= 3
    assert all("memory" in text or "rows come later" in text for text in warnings)
    assert "-new" not in "".join(os.listdir(folder))


@pytest.mark.parametrize("inodes", [2, 3, 4])
def test_an_app_starts_where_there_is_no_room_for_the_stores_folder(
    folder: Path, mounted: list[Disk], inodes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor for all of its files: it counts in memory, and makes the folder when there is room."""
    disk = Disk(folder, f"8m,mode=1777,nr_inodes={inodes}")
    mounted.append(disk)
    (folder / "filler").touch()
    path = str(folder / "app" / "metrics.sqlite3")

    store = sqlmetrics.install(path, flush_interval=0.02)
    Counter("requests", "Requests").inc()
    assert not store.is_open()
    assert store.trouble.counts["closed"] >= 1
    disk.resize("8m,nr_inodes=1000")

    wait_for(store.is_open)
    Counter("others", "Others").inc()
    assert scrape(path) == {("requests_total", ()): 1, ("others_total", ()): 1}
    assert len([record for record in caplog.records if "cannot be made or opened" in record.getMessage()]) == 1


def test_a_run_begins_on_a_full_disk_that_has_the_store_of_the_last_one(folder: Path, mounted: list[Disk]) -> None:
    """The app starts all the same, with the sums of the run before, and the log says why."""
    disk = Disk(folder, "4m")
    mounted.append(disk)
    count = """
        from prometheus_client import Counter
        requests = Counter("requests", "Requests", ["path"])
        for number in range(2000):
            requests.labels(f"/{number}").inc()
    """
    script = write(folder, "script.py", count)
    assert run(sys.executable, str(script), path=disk.path).returncode == 0
    disk.fill()

    done = run(sys.executable, "-c", "import prometheus_client; print('started')", path=disk.path)

    assert (done.stdout, done.returncode) == ("started\n", 0)
    assert "what earlier runs left cannot be removed now (FullError" in done.stderr
    assert sum(scrape(disk.path).values()) == 2000


@pytest.mark.promise(3)
@pytest.mark.slow
def test_a_full_disk_keeps_new_children_in_memory(
    folder: Path, mounted: list[Disk], caplog: pytest.LogCaptureFixture
) -> None:
    """Old and new children of three processes, one of which is killed meanwhile; scrapes show what has its place."""
    disk = Disk(folder, "8m")
    mounted.append(disk)
    store = sqlmetrics.install(disk.path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["by", "path"])
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")
    latency = Histogram("latency", "Latency", ["path"])

    def use(who: str, times: int) -> None:
        for number in range(times):
            requests.labels(who, f"/{number}").inc()
            latency.labels(f"/{number}").observe(1)
        busy.set(1)

    with child(use=use) as one, child(use=use) as two:
        use("parent", 5)
        one.do("use", "one", 5)
        two.do("use", "two", 5)
        store.flush()
        disk.fill()
        use("parent", 700)
        one.do("use", "one", 700)
        two.do("use", "two", 5)
        store.flush()
        shown = scrape()
        assert shown[("busy", ())] == 3
        assert (own("errors_total", cause="flush") or 0) + (own("errors_total", cause="cells") or 0) > 0
        assert own("free_bytes") == 0
        assert shown[("requests_total", (("by", "two"), ("path", "/3")))] == 2
        assert shown[("requests_total", (("by", "parent"), ("path", "/3")))] == 2
        two.kill()
        assert value("busy") == 2

        disk.free()

        wait_for(lambda: sum(count for (name, _), count in scrape().items() if name == "requests_total") == 1420)
        assert sum(count for (name, _), count in scrape().items() if name == "latency_count") == 1420
        total = "SELECT sum(value) FROM metrics WHERE metric = 'requests_total'"
        wait_for(lambda: Shell(disk.path).value(total) == 1420)
        assert Shell(disk.path).value("PRAGMA integrity_check") == "ok"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    # For want of room for cells, for the WAL, and for what the WAL has left: each is told once.
    assert 1 <= len(warnings) == len(set(warnings)) <= 3


def test_a_full_disk_does_not_use_up_slots_and_cells(folder: Path, mounted: list[Disk]) -> None:
    """A process that begins then, and tries again with each new child; what it counts is shown when there is room."""
    disk = Disk(folder, "8m")
    mounted.append(disk)
    store = sqlmetrics.install(disk.path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["path"])
    latency = Histogram("latency", "Latency", ["path"])
    requests.labels("/").inc()
    store.flush()

    def use(times: int) -> list[int]:
        for number in range(times):
            requests.labels(f"/{number}").inc()
            latency.labels(f"/{number}").observe(1)
        return [len(store.file.held_slots()), store.file.blocks.used(), store.file.extents.used()]

    disk.fill()
    with child(use=use) as one:
        for _ in range(3):
            slots, blocks, extents = one.do("use", 400)  # type: ignore[misc]
            assert slots <= 2
            assert blocks <= 2
            assert extents <= 3
        disk.free()
        wait_for(lambda: sum(count for (name, _), count in scrape().items() if name == "latency_count") == 1200)
        assert sum(count for (name, _), count in scrape().items() if name == "requests_total") == 1201
        assert store.file.blocks.used() <= 1 + 1 + 400 * 17 // 500
        one.kill()
    wait_for(lambda: store.flush() and len(store.file.held_slots()) == 1 and store.file.extents.used() == 1)


def test_a_disk_that_is_full_again_and_again_loses_nothing(folder: Path, mounted: list[Disk]) -> None:
    """Whatever step the room ends at, nothing is lost and nothing counted twice."""
    disk = Disk(folder, "3m")
    mounted.append(disk)
    store = sqlmetrics.install(disk.path, flush_interval=0.01)
    requests = Counter("requests", "Requests", ["path"])
    total = 0

    def use(first: int) -> None:
        for number in range(first, first + 120):
            requests.labels(f"/{number}").inc()

    with child(use=use) as one:
        for first in range(0, 2400, 240):
            if first:
                disk.fill()
            use(first)
            one.do("use", first + 120 * (first % 480 > 0))
            store.flush()
            disk.free() if first else None
            use(first)
            total += 360
            wait_for(lambda total=total: sum(scrape().values()) == total)
        one.kill()
    assert sum(scrape().values()) == total


@pytest.mark.promise(5)
@pytest.mark.slow
def test_a_reader_that_never_ends_does_not_let_the_wal_grow(
    path: str, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    """The WAL stays within its bound, scrapes are exact meanwhile, and the rows come when the reader has gone."""
    monkeypatch.setattr(wal, "WAL_LIMIT", 512 * 1024)
    store = sqlmetrics.install(path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["path"])
    children = [requests.labels(f"/{number}") for number in range(300)]
    store.flush()

    def work() -> None:
        requests.labels(str(os.getpid())).inc(300)
        store.flush()

    with Operator(path, "BEGIN", "SELECT count(*) FROM cell_copy"):
        for times in range(1, 150):
            for one in children:
                one.inc()
            flush.flush(store.rounds)
            if times % 5 == 0:
                with child(work=work) as other:  # registrations and folds are written for longer
                    other.do("work")
                    other.kill()
            assert os.stat(path + "-wal").st_size < 3 * 512 * 1024
        assert sum(scrape().values()) == 300 * 149 + 300 * 29
        assert os.stat(path + "-wal").st_size > 512 * 1024
    children[0].inc()
    wait_for(lambda: store.flush() and shell.value("SELECT sum(value) FROM metrics") == 300 * 149 + 300 * 29 + 1)
    assert os.stat(path + "-wal").st_size < 512 * 1024


@pytest.mark.promise(5)
@pytest.mark.slow
def test_a_wal_that_a_reader_keeps_leaves_room_on_a_small_disk(folder: Path, mounted: list[Disk], shell: Shell) -> None:
    """For new children meanwhile, and for the checkpoint when the reader has gone."""
    disk = Disk(folder, "16m")
    mounted.append(disk)
    store = sqlmetrics.install(disk.path, flush_interval=1000)
    requests = Counter("requests", "Requests", ["path"])
    children = [requests.labels(f"/{number}") for number in range(3000)]

    def count() -> None:
        for one in children:
            one.inc()
        store.flush()

    with Operator(disk.path, "BEGIN", "SELECT count(*) FROM cell_copy"):
        for _ in range(250):  # each writes some 80 KiB
            count()
        assert 2 << 20 < os.stat(disk.path + "-wal").st_size < 10 << 20
        for number in range(1000):
            requests.labels(f"new {number}").inc()
        assert store.trouble.counts["cells"] == 0
    count()

    total = 251 * len(children) + 1000
    assert sum(scrape().values()) == total
    wait_for(lambda: (store.flush(), shell.value("SELECT sum(value) FROM metrics"))[1] == total)
    assert os.stat(disk.path + "-wal").st_size <= 5 << 20
