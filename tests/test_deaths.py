"""Death without a hook: the kernel drops a lock, whatever the end; the next scrape is right and folds the rows."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deaths_app import FOREVER, STARTS, STATUS, Metrics, Scraped, counted, gauged
from helpers import Child, Shell, child, scrape, value, wait_for
from outsiders import NOBODY, as_root, ended, python

import sqlmetrics

pytestmark = pytest.mark.promise(3)

_OF_PID = "FROM {} JOIN instance ON instance.id = {}.process WHERE instance.pid = '{}'"
PAIRS = [
    *[(start, end) for start in ("fork", "subprocess") for end in (*STATUS, "exec")],
    *[(start, end) for start in ("spawn", "forkserver", "executor") for end in ("return", "SIGKILL")],
    *[("os.fork", end) for end in ("os._exit", "SIGKILL", "SIGSEGV", "exec")],
]


def rows(shell: Shell, table: str, pid: object) -> object:
    """How many rows of `cell_copy` or `kept` a process has."""
    return shell.value("SELECT count(*) " + _OF_PID.format(table, table, pid))


def outside_scrape(path: str) -> Scraped:
    """What a process sees that was started just now, for this one scrape."""
    tests = os.path.dirname(__file__)
    printed = python(f"import sys; sys.path.insert(0, {tests!r}); import deaths_app; deaths_app.print_scrape({path!r})")
    return {(name, tuple(map(tuple, labels))): number for (name, labels), number in json.loads(printed)}


class Victim:
    """A process started in one way that will end in another."""

    def __init__(self, path: str, start: str, end: str):
        self._path, self._end = path, end
        self._status = STARTS[start](path, end)
        wait_for(lambda: os.path.exists(path + ".ready"), 30)
        with open(path + ".ready") as file:
            self.pid = int(file.read())

    def let_end(self) -> None:
        """Let it go on, and return when it has ended, or is another program."""
        open(self._path + ".looked_at", "w").close()
        if self._end == "exec":
            wait_for(lambda: os.path.exists(self._path + ".executed"))
        else:
            assert self._status() in (STATUS[self._end], None)

    def clean_up(self) -> None:
        """End the program that took its place."""
        if self._end == "exec":
            os.kill(self.pid, signal.SIGKILL)
            assert self._status() == -signal.SIGKILL


@contextlib.contextmanager
def victim(path: str, start: str, end: str) -> Iterator[Victim]:
    """One that is gone at the end, whatever it was told."""
    one = Victim(path, start, end)
    yield one
    one.clean_up()


def before(parent: int, dead: int) -> Scraped:
    """What a scrape shows while both live."""
    values = {parent: 6, dead: 4}
    return {**counted([6, 5, 4]), **gauged(values, False), **gauged(values, True)}


def after(parent: int, dead: int) -> Scraped:
    """What it shows when one has ended: all that it did, up to the last operation, but for the live modes."""
    lasting = {**gauged({parent: 6, dead: 7}, False), **gauged({dead: 9}, False, "last words")}
    return {**counted([6, 5, 4, 7]), **counted([9], "last words"), **lasting, **gauged({parent: 6}, True)}


@pytest.mark.parametrize(("start", "end"), PAIRS)
@pytest.mark.promise(6)
@pytest.mark.slow
def test_any_death_of_any_process_is_seen_by_the_first_scrape(path: str, shell: Shell, start: str, end: str) -> None:
    """Exactly: the live gauges go, all else stays, up to the operation before the end, and the rows are folded."""
    store = sqlmetrics.install(path, flush_interval=FOREVER)
    me = Metrics().use(6)
    store.flush()
    with victim(path, start, end) as one:
        assert scrape() == before(me, one.pid)
        one.let_end()

        assert scrape() == after(me, one.pid)
        assert rows(shell, "cell_copy", one.pid) == 0
        assert rows(shell, "kept", one.pid) == 2
        assert scrape() == after(me, one.pid)


def test_the_shell_sees_what_the_dead_left(path: str, shell: Shell) -> None:
    """In one row per series, written by the scrape: no flush came after the death."""
    sqlmetrics.install(path, flush_interval=FOREVER)
    with victim(path, "subprocess", "SIGKILL") as one:
        one.let_end()
        scrape()

    retired = (
        "SELECT name, variant, value FROM retired JOIN series ON series.id = series WHERE labels LIKE '%last words%'"
    )
    assert {(row["name"], row["variant"]): row["value"] for row in shell(retired)} == {
        ("requests_total", ""): 9,
        ("latency_bucket", "4.5"): 0,
        ("latency_bucket", "+Inf"): 1,
        ("latency_sum", ""): 9,
        ("size_count", ""): 1,
        ("size_sum", ""): 9,
        **{(mode, ""): 9 for mode in ("min", "max", "sum", "mostrecent")},
    }
    assert shell(f"SELECT value {_OF_PID.format('kept', 'kept', one.pid)} ORDER BY value") == [
        {"value": 7.0},
        {"value": 9.0},
    ]
    assert shell.value("SELECT count(*) FROM cell_copy") == 0
    assert shell(f"SELECT state FROM processes WHERE pid = '{one.pid}'") == [{"state": "remembered"}]


@pytest.mark.parametrize("end", ["SIGKILL", "return"])
@pytest.mark.slow
def test_a_scrape_by_a_process_that_never_counted_folds_the_dead(path: str, shell: Shell, end: str) -> None:
    """It is the only one left, made for this scrape, and it folds the dead nevertheless."""
    with victim(path, "subprocess", end) as one:
        values = {one.pid: 4}
        alone = {**counted([5, 4]), **gauged(values, False), **gauged(values, True)}
        assert outside_scrape(path) == alone
        one.let_end()
        lasting = {**gauged({one.pid: 7}, False), **gauged({one.pid: 9}, False, "last words")}
        last = {**counted([5, 4, 7]), **counted([9], "last words"), **lasting}

        assert outside_scrape(path) == last
        assert shell.value("SELECT count(*) FROM cell_copy") == 0
        assert outside_scrape(path) == last


@as_root
@pytest.mark.promise(5)
def test_a_scrape_by_a_user_who_may_only_read_is_right(folder: Path, path: str, shell: Shell) -> None:
    """What it shows is right; the rows wait for a process that may write."""
    folder.chmod(0o755)
    store = sqlmetrics.install(path, flush_interval=FOREVER, mode=0o644)
    me = Metrics().use(6)
    store.flush()

    def look() -> list[object]:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return [[name, labels, number] for (name, labels), number in scrape(path).items()]

    with victim(path, "subprocess", "SIGKILL") as one:
        one.let_end()
        with child(look=look) as reader:
            shown = reader.do("look")

        assert {(name, tuple(map(tuple, labels))): number for name, labels, number in shown} == after(me, one.pid)
        assert shell.value("SELECT count(*) FROM retired") == 0
        assert scrape() == after(me, one.pid)
        assert shell.value("SELECT count(*) FROM retired") != 0


# --- what is dead, and what is not ------------------------------------------------------------------------------


def test_a_zombie_is_dead(path: str, shell: Shell) -> None:
    """Its parent has not waited for it: it has a pid and an entry in /proc, but no lock."""
    sqlmetrics.install(path, flush_interval=FOREVER)
    metrics = Metrics()
    me = metrics.use(6)
    with child(use=metrics.use) as one:
        one.do("use", 5)
        os.kill(one.pid, signal.SIGKILL)
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        os.kill(one.pid, 0)  # it is there

        lasting = gauged({me: 6, one.pid: 5}, False)
        assert scrape() == {**counted([6, 5]), **lasting, **gauged({me: 6}, True)}
        assert rows(shell, "cell_copy", one.pid) == 0


def test_a_stopped_process_is_alive(path: str) -> None:
    """By SIGSTOP, for as long as it takes; scrapes and flushes of others do not change that, and it counts on."""
    store = sqlmetrics.install(path, flush_interval=FOREVER)
    metrics = Metrics()
    me = metrics.use(6)
    with child(use=metrics.use) as one:
        one.do("use", 5)
        os.kill(one.pid, signal.SIGSTOP)
        os.waitpid(one.pid, os.WUNTRACED)
        values = {me: 6, one.pid: 5}
        for _ in range(2):
            assert scrape() == {**counted([6, 5]), **gauged(values, False), **gauged(values, True)}
            store.flush()
        os.kill(one.pid, signal.SIGCONT)
        one.do("use", 7)

        values = {me: 6, one.pid: 7}
        assert scrape() == {**counted([6, 5, 7]), **gauged(values, False), **gauged(values, True)}


def orphaned(use: Callable[[float], int], pids: list[int]) -> Callable[[], int]:
    """A fork whose parent counts and then waits to be killed; its pid is put into the list."""

    def fork() -> int:
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            use(5)
            grandchild = os.fork()
            if grandchild == 0:
                return 0
            os.write(write, str(grandchild).encode())
            signal.pause()
        pids.append(middle)
        grandchild = int(os.read(read, 20))
        os.close(read)
        os.close(write)
        return grandchild

    return fork


@pytest.mark.parametrize("counts", ["before", "after"])
def test_a_parents_death_is_seen_while_its_child_lives_on(path: str, shell: Shell, counts: str) -> None:
    """The child holds all the descriptors and maps that its parent had: its life is not its parent's."""
    sqlmetrics.install(path, flush_interval=FOREVER)
    metrics = Metrics()
    me = metrics.use(6)
    pids: list[int] = []
    one = Child(orphaned(metrics.use, pids))
    if one.in_child:
        one.serve(use=metrics.use)
    (parent,) = pids
    if counts == "before":
        one.do("use", 7)
    os.kill(parent, signal.SIGKILL)
    assert ended(parent) == -signal.SIGKILL
    if counts == "after":
        live = gauged({me: 6}, True)
        assert scrape() == {**counted([6, 5]), **gauged({me: 6, parent: 5}, False), **live}
        one.do("use", 7)

    values = {me: 6, parent: 5, one.pid: 7}
    expected = {**counted([6, 5, 7]), **gauged(values, False), **gauged({me: 6, one.pid: 7}, True)}
    assert scrape() == expected
    assert rows(shell, "cell_copy", parent) == 0
    assert scrape() == expected
    os.kill(one.pid, signal.SIGKILL)
    wait_for(lambda: scrape() == {**counted([6, 5, 7]), **gauged(values, False), **gauged({me: 6}, True)})
    one.close()


# --- gauges that outlive their process --------------------------------------------------------------------------


@pytest.mark.parametrize("settled", ["one by one", "at once"])
@pytest.mark.parametrize("dies_first", ["earlier", "later"])
def test_mostrecent_goes_by_who_set_it_last_and_not_by_who_died_last(
    path: str, shell: Shell, dies_first: str, settled: str
) -> None:
    """Who set it last wins, not who died last; the time is kept to the last bit."""
    store = sqlmetrics.install(path, flush_interval=FOREVER)
    metrics = Metrics()
    timestamp = "SELECT timestamp FROM samples WHERE metric = 'mostrecent' AND value = 2"
    with child(use=metrics.use) as earlier, child(use=metrics.use, flush=lambda: store.flush().name) as later:
        earlier.do("use", 1)
        later.do("use", 2)
        later.do("flush")
        set_at = shell.value(timestamp)
        for one in (earlier, later) if dies_first == "earlier" else (later, earlier):
            one.kill()
            if settled == "one by one":
                assert value("mostrecent", x="") == 2
        assert value("mostrecent", x="") == 2
        assert value("livemostrecent", x="") is None

    assert shell.value("SELECT count(*) FROM cell_copy") == 0
    assert shell.value(timestamp) == set_at
    metrics.use(3)
    assert value("mostrecent", x="") == 3


SETTLERS: dict[str, Callable[[sqlmetrics.Store, int], object]] = {
    "a flush": lambda store, _pid: store.flush(),
    "a scrape": lambda _store, _pid: scrape(),
    "a notice": lambda _store, pid: sqlmetrics.mark_process_dead(pid),
}


@pytest.mark.parametrize("keep_dead", [0, 3])
@pytest.mark.parametrize("settler", SETTLERS)
@pytest.mark.promise(6)
def test_the_newest_dead_are_remembered(path: str, shell: Shell, settler: str, keep_dead: int) -> None:
    """As many as `keep_dead` says, whoever settles them: else the store grows with each death."""
    store = sqlmetrics.install(path, flush_interval=FOREVER, keep_dead=keep_dead)
    metrics = Metrics()
    pids = []
    for number in range(1, 7):
        with child(use=metrics.use) as one:
            pids.append(one.do("use", number))
            one.kill()
        SETTLERS[settler](store, one.pid)
    store.flush()

    shown = {labels: number for (name, labels), number in scrape().items() if name == "all"}
    newest = list(enumerate(pids, 1))[len(pids) - keep_dead :]
    assert shown == {(("pid", str(pid)), ("x", "")): number for number, pid in newest}
    assert len(shell("SELECT * FROM kept")) == keep_dead
    assert len(shell("SELECT * FROM instance")) == keep_dead
    assert value("requests_total", x="") == 21
    assert (value("min", x=""), value("max", x=""), value("sum", x="")) == (1, 6, 21)
