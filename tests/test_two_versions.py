"""A rolling upgrade: workers of this version and of the next one on one store, both alive."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import FILES, child, scrape, value, wait_for
from prometheus_client import Counter, Gauge

import sqlmetrics
from sqlmetrics.rows import schema

pytestmark = pytest.mark.promise(3)

NEXT = schema.schema_version() + 1
ADDS = "ALTER TABLE series ADD COLUMN unit TEXT NOT NULL DEFAULT '';"
REFUSES = f"{ADDS} UPDATE store SET min_writer = {NEXT};"
RENAMES = f"{REFUSES} ALTER TABLE cell_copy RENAME TO cell_image; ALTER TABLE instance RENAME TO being;"

_WORKER = """
import json, sys
import sqlmetrics
from prometheus_client import CollectorRegistry, Counter, Gauge
sqlmetrics.install(sys.argv[1], flush_interval=0.02)
requests, busy = Counter("requests", "Requests", ["by"]), Gauge("busy", "Busy", multiprocess_mode="livesum")
for line in sys.stdin:
    if line == "use\\n":
        requests.labels("newer").inc()
        busy.set(1)
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)
    print(json.dumps({f"{s.name} {s.labels.get('by', '')}".strip(): s.value
                      for metric in registry.collect() for s in metric.samples}), flush=True)
"""


class Newer:
    """A worker of the next version: this package with one more migration, in an interpreter of its own.

    Its statements have the names that the migration gives to tables.
    """

    def __init__(self, folder: Path, path: str, sql: str):
        package = folder / "newer" / "sqlmetrics"
        if not package.exists():
            shutil.copytree(Path(sqlmetrics.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.rmtree(package / "migrations", ignore_errors=True)
            (package / "migrations").mkdir()
            for number, text in [*schema.migrations(), (NEXT, sql)]:
                (package / "migrations" / f"{number:04}_x.sql").write_text(text, "utf-8")
            for former, name in re.findall(r"ALTER TABLE (\w+) RENAME TO (\w+)", sql):
                for module in [*package.glob("rows/*.py"), *package.glob("scrape/*.py"), *package.glob("store/*.py")]:
                    in_sql = rf"(?<=FROM |JOIN |INTO |main\.){former}\b|(?<=UPDATE ){former}\b|\b{former}(?=\.\w)"
                    in_sql += rf"|(?<=sqlite_autoindex_){former}(?=_\d)"  # SQLite renames these, too
                    module.write_text(re.sub(in_sql, name, module.read_text("utf-8")), "utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, path],
            cwd=package.parent,
            env={**os.environ, "PYTHONPATH": str(package.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, step: str) -> dict[str, float]:
        """Count or only look, and return what a scrape shows there."""
        assert self.process.stdin
        assert self.process.stdout
        print(step, file=self.process.stdin, flush=True)
        shown: dict[str, float] = json.loads(self.process.stdout.readline())
        return shown

    def __enter__(self) -> Newer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_both_versions_show_the_same_after_a_migration_that_adds(folder: Path, path: str, shell) -> None:
    """Both versions count and scrape the same numbers, also workers of the older one that start afterwards."""
    sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["by"])
    busy = Gauge("busy", "Busy", multiprocess_mode="livesum")

    def use() -> None:
        requests.labels("older").inc()
        busy.set(1)

    use()
    with Newer(folder, path, ADDS) as newer, child(use=use) as one:
        assert newer.do("use") == {"requests_total older": 1, "requests_total newer": 1, "busy": 2}
        assert shell.value("PRAGMA user_version") == NEXT
        use()
        one.do("use")
        assert newer.do("look") == {"requests_total older": 3, "requests_total newer": 1, "busy": 3}
        assert sum(scrape().values()) == 7
        one.kill()
    assert value("requests_total", by="newer") == 1
    assert value("busy") == 1
    wait_for(lambda: shell.value("SELECT sum(value) FROM metrics WHERE metric = 'requests_total'") == 4)


@pytest.mark.parametrize("sql", [REFUSES, RENAMES], ids=["adds", "renames"])
def test_an_older_worker_counts_on_after_a_migration_that_refuses_it(
    folder: Path, path: str, sql: str, shell, caplog: pytest.LogCaptureFixture
) -> None:
    """The older worker says so in one line and counts on; what its cells hold is in the newer one's scrapes.

    Where it misses its tables, and checks the files because of that, it leaves them as they are.
    """
    store = sqlmetrics.install(path, flush_interval=0.02)
    requests = Counter("requests", "Requests", ["by"])
    requests.labels("older").inc()
    store.flush()
    before = [os.stat(path + suffix).st_ino for suffix in FILES]
    with Newer(folder, path, sql) as newer:
        newer.do("look")
        store.file.doubt()
        for times in range(2, 30):
            requests.labels("older").inc()
            requests.labels(f"older {times}").inc()
            store.flush()
        shown = newer.do("use")
        assert shown["requests_total older"] == 29
        assert shown["requests_total older 7"] == 1

        with pytest.raises(sqlmetrics.SchemaError, match=f"knows {NEXT - 1}: upgrade it"):
            scrape()
        sqlmetrics.uninstall()
        after = newer.do("look")
        assert after["requests_total older"] == 29
    assert [os.stat(path + suffix).st_ino for suffix in FILES] == before
    (line,) = {text for text in caplog.messages if "upgrade it" in text}
    assert path in line


def test_an_older_worker_that_starts_later_counts_in_memory(
    folder: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its app starts, counts in memory, and one line says why."""
    with Newer(folder, path, REFUSES) as newer:
        newer.do("use")
        store = sqlmetrics.install(path, flush_interval=0.02)
        requests = Counter("requests", "Requests", ["by"])
        for _ in range(10):
            requests.labels("older").inc()
            store.flush()

        assert requests.labels("older")._value.get() == 10
        assert newer.do("look") == {"requests_total newer": 1, "busy": 1}
    lines = [text for text in caplog.messages if "upgrade it" in text]
    assert len(lines) == 1
    assert "counting in memory" in lines[0]


def test_rows_win_over_the_cells_of_an_earlier_boot(path: str, tmp_path: Path, shell) -> None:
    """Another boot id, in a mount namespace: rows win over the cells of the earlier boot, and count once."""
    if os.geteuid() != 0:
        pytest.skip("a boot id of one's own needs a mount namespace, and that root")
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("11111111-2222-3333-4444-555555555555\n")
    counts = (
        "import sqlmetrics, sys, os; from prometheus_client import Counter, Gauge;"
        "store = sqlmetrics.install(sys.argv[1]); Counter('requests', 'Requests').inc(10);"
        "Gauge('busy', 'Busy', multiprocess_mode='livesum').set(1); store.flush(); os.kill(os.getpid(), 9)"
    )
    other_boot = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    for boots in range(1, 4):
        before = ["unshare", "-m", "sh", "-c", other_boot, str(boot_id)] if boots == 2 else []
        done = subprocess.run([*before, sys.executable, "-c", counts, path], capture_output=True, text=True)
        assert done.returncode == -9, done.stderr
        rows = shell("SELECT pid, value FROM samples WHERE metric = 'requests_total'")
        assert sum(float(str(row["value"])) for row in rows) == 10 * boots
        assert len([row for row in rows if row["pid"] is None]) == (boots > 1)
    sqlmetrics.install(path)
    assert scrape() == {("requests_total", ()): 30.0, ("busy", ()): 0.0} or value("requests_total") == 30
    assert value("busy") in (None, 0)
