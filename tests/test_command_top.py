"""`sqlmetrics top`: rates between two looks, on a terminal with keys, and as plain text."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from helpers import Child, delete, wait_for
from looking import command, worker

from sqlmetrics.commands.overview import Choice, Watch, families_table, processes_table, summary
from sqlmetrics.outside.look import Look
from sqlmetrics.outside.place import find

pytestmark = pytest.mark.slow

_PATIENCE = 60.0
TOP = [sys.executable, "-m", "sqlmetrics", "top"]


class Terminal:
    """`sqlmetrics top` on a terminal of its own; what it has written is kept."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        lines: int = 24,
        program: list[str] | None = None,
        term: str = "xterm-256color",
        **environment: str,
    ):
        self._master, self._slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self._slave)
        environment = {
            **os.environ,
            "TERM": term,
            "COLUMNS": "132",
            "LINES": "50",
            **environment,
        }  # of another terminal
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [*(program or TOP), *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=environment,
            start_new_session=True,
        )
        self.written = ""

    def resize(self, columns: int, lines: int) -> None:
        """Give it another size."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def read(self) -> str:
        """All that was written by now."""
        while select.select([self._master], [], [], 0)[0]:
            self.written += os.read(self._master, 65536).decode("utf-8", "replace")
        return self.written

    def shown(self) -> str:
        """What was drawn last, without colours."""
        last = self.read().rpartition("\x1b[H")[2]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)

    def until(self, pattern: str) -> str:
        """Wait until what was drawn last matches."""
        return str(wait_for(lambda: shown if re.search(pattern, shown := self.shown()) else "", _PATIENCE))

    def status(self) -> int:
        """Wait until it ends; the terminal must be as it was."""

        def is_over() -> bool:
            self.read()
            return self.process.poll() is not None

        wait_for(is_over, _PATIENCE)
        assert termios.tcgetattr(self._slave) == self.before
        if "\x1b[?1049h" in self.read():
            assert self.written.rfind("\x1b[?1049l") > self.written.rfind("\x1b[?1049h")  # the other screen is left
            assert self.written.rfind("\x1b[?25h") > self.written.rfind("\x1b[?25l")  # the cursor is shown
        return int(self.process.returncode)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@contextlib.contextmanager
def terminal(*arguments: str, **how: object) -> Iterator[Terminal]:
    """`top` on a terminal; it is gone at the end."""
    with contextlib.closing(Terminal(*arguments, **how)) as one:  # type: ignore[arg-type]
        yield one


def busy(one: Child) -> None:
    """Ten requests and three latencies."""
    for _ in range(10):
        one.do("count", "/", 1)
    one.do("observe", "/", 0.05, 0.2, 0.7)


def test_rates_are_what_was_counted_between_two_looks(path: str) -> None:
    """By family and by process; quantiles of what was observed meanwhile, and not of what was before."""
    with worker(path) as one, worker(path) as two:
        one.do("observe", "/", *[0.9] * 100)
        busy(two)
        watch = Watch(Look(find(path)))
        assert watch.look().is_first
        for _ in range(2):
            busy(one)
        found = watch.look()

    seconds = found.rates.seconds
    families = {one.name: one for one in found.rates.families}
    assert families["requests"].per_second == pytest.approx(20 / seconds)
    assert families["latency_seconds"].per_second == pytest.approx(6 / seconds)
    assert families["busy"].per_second is None
    spread = families["latency_seconds"].distribution
    assert spread
    assert spread.buckets[:3] == [(0.1, 2.0), (0.5, 4.0), (1.0, 6.0)]
    assert spread.total == pytest.approx(1.9)
    events = {one.process.pid: one.per_second for one in found.rates.processes}
    assert events == {str(one.pid): pytest.approx(26 / seconds), str(two.pid): 0.0}


def test_series_that_come_and_processes_that_begin_anew_count_from_zero(path: str) -> None:
    """A new child with all that it has; where the store was made anew, nothing is below zero."""
    with worker(path) as one:
        one.do("count", "/", 5)
        watch = Watch(Look(find(path)))
        watch.look()
        one.do("count", "/new", 7)
        found = watch.look()
        assert {f.name: f.per_second for f in found.rates.families}["requests"] == pytest.approx(
            7 / found.rates.seconds
        )
    delete(path)
    with worker(path) as one:
        one.do("count", "/", 2)
        wait_for(lambda: Look(find(path)).members())
        found = watch.look()
        assert {f.name: f.per_second for f in found.rates.families}["requests"] == pytest.approx(
            2 / found.rates.seconds
        )


def test_deaths_are_told(path: str) -> None:
    """Who was alive at a look, and at the next one was not."""
    with worker(path) as one, worker(path) as two:
        watch = Watch(Look(find(path)))
        watch.look()
        two.kill()
        found = watch.look()
        assert [death.pid for death in found.deaths] == [str(two.pid)]
        assert re.search(rf"died +{two.pid} 0\.0 s ago", "\n".join(summary(found)))
        assert processes_table(found, Choice())[1][0][:2] == [str(one.pid), "alive"]


def test_tables_are_sorted_and_filtered(path: str) -> None:
    """By each column that can be chosen, and by a part of a name."""
    with worker(path) as one:
        watch = Watch(Look(find(path)))
        busy(one)
        watch.look()
        busy(one)
        found = watch.look()
        choice = Choice()
        orders = {}
        for _ in range(4):
            orders[choice.sort] = [row[0] for row in families_table(found, choice)[1]]
            choice.next_sort()
        assert orders["rate"][:2] == ["requests", "latency_seconds"]
        assert orders["p99"][0] == "latency_seconds"
        assert orders["name"] == sorted(orders["name"])
        assert [row[0] for row in families_table(found, Choice(part="LATEN"))[1]] == ["latency_seconds"]
        assert len(processes_table(found, Choice(part=str(one.pid)))[1]) == 1


def test_once_prints_what_happened_between_two_looks(path: str) -> None:
    """As plain text, also without `rich`; a store that is not there is status 2."""
    with worker(path) as one:
        busy(one)
        done = command("top", "--once", "--interval", "0.1", "--path", path)
        assert (done.status, done.err) == (0, "")
        assert re.search(r"^latency_seconds +histogram +0\.0 ", done.out, re.MULTILINE)
        assert re.search(rf"^{one.pid} +alive +0\.0 +\d+ % +[\d.]+ MiB ", done.out, re.MULTILINE)
        assert "\x1b" not in done.out
        assert max(map(len, done.out.splitlines())) <= 80 + len(path)
    delete(path)
    assert command("top", "--once", "--path", path).status == 2


def test_json_has_what_happened_between_two_looks(path: str) -> None:
    """For programs, once."""
    with worker(path) as one:
        busy(one)
        found = command("top", "--json", "--interval", "0.1", "--path", path).json()
    families = {each["name"]: each for each in found["families"]}
    assert families["requests"] == {"name": "requests", "type": "counter", "series": 1, "per_second": 0.0}
    assert (families["latency_seconds"]["count"], families["latency_seconds"]["p99"]) == (0.0, "NaN")
    assert families["busy"]["per_second"] is None
    assert [each["pid"] for each in found["processes"]] == [str(one.pid)]
    assert found["seconds"] >= 0.1


def test_in_a_pipe_it_prints_again_and_again(path: str) -> None:
    """Without what only a terminal understands, until it is interrupted."""
    with worker(path) as one:
        busy(one)
        process = subprocess.Popen([*TOP, "--path", path, "--interval", "0.2"], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        with process.stdout as lines:
            heads = 0
            while heads < 3:
                line = lines.readline()
                assert "\x1b" not in line
                heads += line.startswith("FAMILY")
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_terminal_shows_it_and_is_left_as_it_was(path: str) -> None:
    """No larger than the screen, with keys to sort, to filter and to leave."""
    with worker(path) as one, terminal("--path", path, "--interval", "0.2") as top:
        assert wait_for(lambda: (busy(one), re.search(r"requests +counter +[1-9]", top.shown()))[1], _PATIENCE)
        lines = top.until("q leave").split("\n")
        assert len(lines) <= 24
        assert max(len(line.rstrip("\r")) for line in lines) <= 80
        top.press("s")
        top.until("families by p99")
        top.press("o")
        top.until("processes by cpu")
        top.press("/laten")
        top.until("filter: laten_")
        top.press("x\x7f\r")
        assert "requests" not in top.until(r"\[laten\]")
        top.press("\x1b")
        top.until("requests")
        top.press(" ")
        top.until("HELD")
        top.resize(60, 12)
        wait_for(lambda: max(len(line.rstrip("\r")) for line in top.until("q leave").split("\n")) <= 60, _PATIENCE)
        top.press("q")
        assert top.status() == 0


ENDS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), (signal.SIGINT, 0)]


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_a_signal_leaves_the_terminal_as_it_was(path: str, number: signal.Signals, status: int) -> None:
    """Whatever ends it."""
    with worker(path), terminal("--path", path) as top:
        top.until("q leave")
        top.process.send_signal(number)
        assert top.status() == status


def test_a_terminal_that_shows_ascii_only_will_do(path: str) -> None:
    """What it cannot show is replaced."""
    with worker(path) as one, terminal("--path", path, PYTHONIOENCODING="ascii") as top:
        one.do("count", "é", 1)
        top.until("q leave")
        top.press("/é\r")
        top.until(r"\[\?\]")
        top.press("q")
        assert top.status() == 0


def test_it_outlives_the_store(path: str) -> None:
    """It says that there is none, and goes on with the next one."""
    with worker(path) as one, terminal("--path", path, "--interval", "0.2") as top:
        top.until(str(one.pid))
        delete(path)
        one.do("stop")
        top.until("no store at")
        top.press("q")
        assert top.status() == 0


def test_without_rich_a_terminal_has_plain_text(path: str) -> None:
    """Again and again, with no keys."""
    code = "import sys; sys.modules['rich'] = None; from sqlmetrics.cli import main; sys.exit(main(sys.argv[1:]))"
    with (
        worker(path) as one,
        terminal("--path", path, "--interval", "0.2", program=[sys.executable, "-c", code, "top"]) as top,
    ):
        top.until(f"{one.pid} +alive")
        top.process.send_signal(signal.SIGINT)
        assert top.status() == 0
        assert "\x1b[?1049h" not in top.written


def test_a_dumb_terminal_has_plain_text(path: str) -> None:
    """With nothing that it would show as it is."""
    with worker(path) as one, terminal("--path", path, "--interval", "0.2", term="dumb") as top:
        wait_for(lambda: len(re.findall(rf"{one.pid} +alive", top.read())) >= 2, _PATIENCE)
        assert "\x1b" not in top.written
        top.process.send_signal(signal.SIGINT)
        assert top.status() == 0
