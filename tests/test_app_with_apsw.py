"""An app that uses `apsw` itself: what it tells `apsw` to do to each connection is not done to the store's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Shell, scrape

pytestmark = [pytest.mark.promise(12), pytest.mark.slow]

_HOOKS = {
    "raises": """
        def hook(connection):
            raise RuntimeError("the app's hook")
    """,
    "runs SQL": """
        def hook(connection):
            connection.execute("PRAGMA journal_mode = DELETE; PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("CREATE TABLE IF NOT EXISTS app (x)")
    """,
    "traces rows": """
        def hook(connection):
            connection.row_trace = lambda cursor, row: {"row": row}
            connection.exec_trace = lambda cursor, sql, bindings: "cell_copy" not in sql
            connection.cursor_factory = lambda connection: 1 / 0
    """,
    "forbids": """
        def hook(connection):
            connection.authorizer = lambda *_: apsw.SQLITE_DENY
            connection.limit(apsw.SQLITE_LIMIT_LENGTH, 100)
    """,
    "overrides functions": """
        def hook(connection):
            for name in ("json_extract", "json_array", "sum", "ifnull", "max"):
                connection.create_scalar_function(name, lambda *_: "the app's")
    """,
    "is apsw's own": """
        import apsw.bestpractice
        apsw.bestpractice.apply(apsw.bestpractice.recommended)
        def hook(connection): pass
    """,
}
_COUNT = """
import logging, os, signal, sys, threading, time
import prometheus_client, sqlmetrics
logging.basicConfig(level=logging.WARNING)
store = sqlmetrics.install({path!r}, flush_interval=0.05)
jobs = prometheus_client.Counter("jobs", "Jobs", ["by"])
jobs.labels("it").inc()
store.flush()
if os.fork() == 0:
    jobs.labels("it").inc()
    store.flush()
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
print(b'{{by="it"}} 2.0' in sqlmetrics.generate_latest(), store.get_sample_value("jobs_total", {{"by": "it"}}))
os.unlink({path!r})
deadline = time.monotonic() + 30
while not os.path.exists({path!r}) and time.monotonic() < deadline:
    jobs.labels("it").inc(0)
    time.sleep(0.01)
jobs.remove("it")
jobs.labels("other").inc()
store.flush()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A program to its end."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


def dedent(text: str) -> str:
    """A hook at the left."""
    return "\n".join(line.removeprefix(" " * 8) for line in text.splitlines())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", _HOOKS)
def test_a_connection_hook_of_the_app_is_not_called_with_the_store(
    kind: str, when: str, folder: Path, path: str, shell: Shell
) -> None:
    """Through a fork, a death, a scrape, a removal and new files; the app's own connections have it all along."""
    called = f"""
seen = []
apsw.connection_hooks += [hook, seen.append] if {kind != "raises"} else [seen.append, hook]
try:
    apsw.Connection({str(folder / "app")!r})
except RuntimeError:
    pass
print(len(seen))
"""
    hook = f"import apsw\n{dedent(_HOOKS[kind])}{called}"
    count = _COUNT.format(path=path)
    begin = f"import sqlmetrics; sqlmetrics.install({path!r}, flush_interval=0.05)\n"
    done = run(hook + count if when == "before" else begin + hook + count)

    assert done.stdout.splitlines() == ["1", "True 2.0"], done.stderr
    assert not any("Error" in line for line in done.stderr.splitlines())
    assert scrape(path) == {("jobs_total", (("by", "other"),)): 1}
    assert shell.value("PRAGMA journal_mode") == "wal"
    assert shell.value("SELECT count(*) FROM sqlite_schema WHERE name = 'app'") == 0


def test_the_apps_list_of_hooks_stays_the_apps_list(path: str) -> None:
    """Also for who has kept hold of it, or puts another in its place."""
    program = f"""
import apsw
kept, seen = apsw.connection_hooks, []
import sqlmetrics
sqlmetrics.install({path!r})
kept.append(seen.append)
apsw.Connection(":memory:")
print(len(seen), len(apsw.connection_hooks), apsw.connection_hooks == kept)
apsw.connection_hooks = [seen.append, seen.append]
sqlmetrics.generate_latest()
print(len(seen))
apsw.Connection(":memory:")
apsw.connection_hooks.clear()
apsw.Connection(":memory:")
print(len(seen))
"""
    assert run(program).stdout.splitlines() == ["1 1 True", "1", "3"]


def test_threads_that_open_connections_of_their_own_get_the_apps_hooks(path: str) -> None:
    """Each of them, while others of the store's are being opened."""
    program = f"""
import apsw, threading, sqlmetrics
called, hooked, wrong = [], 0, []
def hook(connection):
    called.append(0)
    if type(connection) is not apsw.Connection: wrong.append(type(connection))
apsw.connection_hooks.append(hook)
store = sqlmetrics.install({path!r})
end = threading.Event()
def ours():
    while not end.is_set():
        with store.writing.suspended(): pass
        with store.writing(): pass
threads = [threading.Thread(target=ours) for _ in range(2)]
[thread.start() for thread in threads]
for _ in range(2000): apsw.Connection(":memory:")
end.set()
[thread.join() for thread in threads]
print(len(called), wrong)
"""
    assert run(program).stdout == "2000 []\n"


def test_the_store_does_not_use_a_default_vfs_of_the_apps(folder: Path, path: str) -> None:
    """One that encrypts, say; other processes could not read the file."""
    program = f"""
import apsw
class File(apsw.VFSFile):
    def __init__(self, name, flags): super().__init__("unix", name, flags)
    def xRead(self, amount, offset): return bytes(byte ^ 0xA5 for byte in super().xRead(amount, offset))
    def xWrite(self, data, offset): super().xWrite(bytes(byte ^ 0xA5 for byte in data), offset)
class VFS(apsw.VFS):
    def __init__(self): super().__init__("app", "unix")
    def xOpen(self, name, flags): return File(name, flags)
vfs = VFS()
apsw.set_default_vfs("app")
apsw.Connection({str(folder / "app")!r}).execute("CREATE TABLE app (x)")
{_COUNT.format(path=path)}
"""
    done = run(program)

    assert done.stdout == "True 2.0\n", done.stderr
    assert scrape(path) == {("jobs_total", (("by", "other"),)): 1}
    assert (folder / "app").read_bytes()[:6] != b"SQLite"
