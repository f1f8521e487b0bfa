"""Starts, stops and ends the processes, lets the vandals loose, and says at the end what was wrong."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
from disks import Disk

import sqlmetrics

from . import ledger as accounts
from . import readers, work
from .audit import Auditor, Values, differences, parse
from .ledger import BEGINS, ENDS, GROUPS, NOBODY, PER_GROUP, THREADS, Ledger
from .vandals import Lockers, identities, spoil

MENDED_SECONDS = 60.0
"""The limit for what should take a second or two, on a machine that is busy with other things, too."""
_PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Process:
    """One that the coordinator has forked."""

    kind: str
    group: int | None = None
    stopped_until: float = 0.0
    is_told_to_end: bool = False


@dataclass
class Plan:
    """What is to happen."""

    seconds: float
    workers: int = 3
    deletions: bool = False
    disk: Disk | None = None


class StuckError(Exception):
    """Something has not happened in time; the account says it, and what comes after it would tell nothing new."""


class Coordinator:
    """The parent of all; it counts nothing and only reads the store."""

    def __init__(self, path: str, ledger: Ledger, seed: int, plan: Plan):
        self.path, self.ledger, self.plan, self.seed = path, ledger, plan, seed
        self.choose = random.Random(seed)
        self.processes: dict[int, Process] = {}
        self._auditor = Auditor(ledger, "coordinator")
        self._lockers = Lockers(path, ledger)
        self._started = 0
        self._quiet_seats: list[int] = []
        self._first: list[Callable[[], None]] | None = None
        self._dead = [2**22 + 1]  # no pid is as great

    def run(self) -> None:
        """All of it."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a killed worker has forked is waited for, too
        work.keep_log(self.ledger)
        try:
            self._begin()
            until = time.monotonic() + self.plan.seconds
            while time.monotonic() < until:
                self._let_something_happen()
                self._tend()
                time.sleep(self.choose.random() * 0.2)
            self._end()
        except StuckError:
            self._ask_where_they_are()
        finally:
            self._lockers.end()
            for pid in list(self.processes):
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _ask_where_they_are(self) -> None:
        """Have all processes write their stacks to the file `stderr`; what they say from now on does not count."""
        self.ledger.words[accounts.FILES] |= 1
        for pid in self.processes:
            self.ledger.say("asked for its stack", pid)
            os.killpg(pid, signal.SIGUSR1)
        time.sleep(1)

    # --- processes -------------------------------------------------------------------------------------------

    def _fork(self, process: Process, what: Callable[[], object]) -> None:
        self._started += 1
        if process.group is not None:
            self.ledger.live(process.group, BEGINS)
        pid = os.fork()
        if pid == 0:
            work.run(self.ledger, what, at_exit=self.choose.random() < 0.8)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self.processes[pid] = process
        self.ledger.say("started", process.kind, process.group, pid)

    def _free_groups(self) -> list[int]:
        taken = {process.group for process in self.processes.values()}
        return [group for group in range(GROUPS) if group not in taken]

    def _start_worker(self, kind: str = "worker", gate: int = 0) -> None:
        group = self._free_groups()[0]
        threads = 1 if kind == "burst" else THREADS
        seed = f"{self.seed} {self._started}"
        worker = work.Worker(self.path, self.ledger, group, seed, threads=threads, forks=kind == "worker")
        serve = worker.serve_http if kind == "server" else lambda: worker.serve(gate)
        self._fork(Process(kind, group), serve)

    def _start_readers(self) -> None:
        path, ledger = self.path, self.ledger
        for kind, read, pause in (
            ("reads", lambda: readers.text_of_store(path), 0.05),
            ("reads fresh", lambda: readers.text_of_fresh_process(path), 1.5),
            ("asks", lambda: readers.text_of_endpoint(ledger), 0.2),
        ):
            if not any(process.kind == kind for process in self.processes.values()):
                again = functools.partial(readers.read_again_and_again, ledger, kind, read, pause)
                self._fork(Process(kind), again)

    def _begin(self) -> None:
        self._start_worker("server")
        self._start_worker("anchor")
        self._wait_until("the first processes count", lambda: self.ledger.words[accounts.PORT] and self._is_whole())
        if not self.plan.deletions:  # a process that moves to new files may bring a series back: see the limits
            path, ledger, seed = self.path, self.ledger, str(self.seed)
            self._fork(Process("removes"), lambda: work.remove_again_and_again(path, ledger, seed))
        self._tend()

    def _tend(self) -> None:
        """Start what is missing, wake what has been stopped for long enough, and look after the dead."""
        now = time.monotonic()
        for pid, process in list(self.processes.items()):
            if process.stopped_until and process.stopped_until < now:
                self._go_on(pid)
            self._reap(pid, os.WNOHANG)
        self._resolve()
        kinds = [process.kind for process in self.processes.values() if not process.is_told_to_end]
        for _ in range(kinds.count("worker"), self.plan.workers):
            self._start_worker()
        self._start_readers()

    def _resolve(self) -> None:
        """Find out what of the last operations of those that have ended has counted."""
        if self._quiet_seats:
            work.resolve(self.ledger, self._auditor, lambda: readers.text_of_store(self.path), self._quiet_seats)
        self._quiet_seats = []

    def _go_on(self, pid: int) -> None:
        self.processes[pid].stopped_until = 0.0
        os.killpg(pid, signal.SIGCONT)

    def _reap(self, pid: int, options: int) -> bool:
        """Wait for a process and for what it has forked."""
        found, status = os.waitpid(pid, options)
        if not found:
            return False
        process = self.processes.pop(pid)
        self._dead = [pid, *self._dead][:10]
        if process.stopped_until:
            os.killpg(pid, signal.SIGCONT)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-pid, 0)
        self.ledger.say("ended", process.kind, process.group, pid, os.waitstatus_to_exitcode(status))
        if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL, -signal.SIGTERM):
            self.ledger.say("WRONG", "ended by itself", process.kind, process.group, pid, status)
        if process.group is not None:
            self.ledger.note_fork(process.group, False)
            self.ledger.live(process.group, NOBODY)
            first = PER_GROUP * process.group
            self._quiet_seats += range(first, first + PER_GROUP)
        return True

    # --- what happens ----------------------------------------------------------------------------------------

    def _let_something_happen(self) -> None:
        """Each thing once, in any order, then what chance will have."""
        chances: dict[Callable[[], None], float] = {
            self._stop: 6,
            self._lockers.lock: 3,
            self._report_dead: 3,
            self._kill: 8,
            self._end_one: 4,
            self._start_many: 1.5,
            self._delete: 2 if self.plan.deletions else 0,
            self._fill_disk: 2 if self.plan.disk else 0,
        }
        possible = [what for what, chance in chances.items() if chance]
        if self._first is None:
            self._first = self.choose.sample(possible, len(possible))
        happens = (
            self._first.pop() if self._first else self.choose.choices(possible, [chances[one] for one in possible])[0]
        )
        happens()

    def _chosen(self, *kinds: str) -> int | None:
        found = [pid for pid, one in self.processes.items() if one.kind in kinds and not one.is_told_to_end]
        return self.choose.choice(found) if found else None

    def _stop(self) -> None:
        pid = self._chosen(*{process.kind for process in self.processes.values()})
        if pid and not self.processes[pid].stopped_until:
            self.processes[pid].stopped_until = time.monotonic() + 0.1 + 1.9 * self.choose.random() ** 2
            os.kill(pid, signal.SIGSTOP)
            self.ledger.say("stopped", self.processes[pid].kind, pid)

    def _kill(self) -> None:
        if pid := self._chosen("worker", "burst", "burst", "reads", "reads fresh", "asks"):
            self._end_with(pid, signal.SIGKILL)

    def _end_one(self) -> None:
        if pid := self._chosen("worker", "burst"):
            self._end_with(pid, signal.SIGTERM)

    def _end_with(self, pid: int, number: signal.Signals) -> None:
        """It is waited for later."""
        process = self.processes[pid]
        if process.group is not None:
            self.ledger.live(process.group, ENDS)
        process.is_told_to_end = True
        self.ledger.say("ends", number.name, process.kind, process.group, pid)
        os.kill(pid, number)
        if process.stopped_until:
            self._go_on(pid)

    def _has_ended(self, *pids: int) -> bool:
        """Whether all of these have, and are waited for."""
        for pid in set(pids) & set(self.processes):
            self._reap(pid, os.WNOHANG)
        return not set(pids) & set(self.processes)

    def _start_many(self) -> None:
        """At once: they wait for each other before they install the store."""
        former = [pid for pid, one in self.processes.items() if one.kind == "burst" and not one.is_told_to_end]
        self._resolve()  # before their seats are taken again
        for pid in former if not self.ledger.words[accounts.CALM] else ():
            self._end_with(pid, signal.SIGKILL if self.choose.random() < 0.7 else signal.SIGTERM)
        count = min(self.choose.randint(8, 12), len(self._free_groups()) - self.plan.workers)
        gate = self.ledger.words[accounts.GATE] + 1
        for _ in range(count):
            self._start_worker("burst", gate)
        self.ledger.say("many start", count)
        self.ledger.words[accounts.GATE] = gate

    def _report_dead(self) -> None:
        """One that is dead, or one that lives: that one's gauge may be missing for a while."""
        pid = self._chosen("worker", "burst") if self.choose.random() < 0.3 else self.choose.choice(self._dead)
        if pid in self.processes:
            self.ledger.live(self.processes[pid].group or 0, ENDS)
        self.ledger.say("reported dead", pid)
        sqlmetrics.mark_process_dead(pid or 0, self.path)

    @contextlib.contextmanager
    def _calm(self, trouble: int) -> Iterator[None]:
        """Nobody stands still, ends or is killed meanwhile, and it ends when the store is whole again."""
        words = self.ledger.words
        words[accounts.CALM] = 1
        for pid, process in self.processes.items():
            if process.stopped_until:
                self._go_on(pid)
        ending = [pid for pid, process in self.processes.items() if process.is_told_to_end]
        self._wait_until("what ends has ended", lambda: self._has_ended(*ending) and self.ledger.forked() == 0)
        words[trouble] += 1
        began = time.monotonic()
        yield
        words[accounts.STILL] = 1
        self._wait_until("the store is whole", self._is_whole)
        words[accounts.STILL] = 0
        self.ledger.say("whole again", time.monotonic() - began)
        words[trouble] += 1
        words[accounts.CALM] = 0

    def _delete(self) -> None:
        with self._calm(accounts.FILES):
            if self.choose.random() < 0.3:
                self._start_many()
            before = identities(self.path)
            spoil(self.path, self.choose, self.ledger)
            # Until they notice it, all is as before.
            self._wait_until("both files are others", lambda: self._are_others(before))
            # Who is killed before that loses what it counts; and the store may look whole, by what it had flushed.
            self._wait_until("all have moved to them", self._have_moved)

    def _fill_disk(self) -> None:
        assert self.plan.disk
        with self._calm(accounts.ROOM):
            if self.choose.random() < 0.5:
                self._start_many()
            self.plan.disk.fill()
            self.ledger.say("full")
            time.sleep(0.2 + self.choose.random())
            self.plan.disk.free()
            self.ledger.say("room")

    def _are_others(self, before: list[int]) -> bool:
        now = identities(self.path)
        return len(now) == 2 and not set(now) & set(before)

    def _have_moved(self) -> bool:
        """Whether each process that counts has mapped the new cells."""
        try:
            inode = os.stat(self.path + "-cells").st_ino
            counting = [pid for pid, process in self.processes.items() if process.group is not None]
            return all(f" {inode} " in Path(f"/proc/{pid}/maps").read_text() for pid in counting)
        except OSError:  # deleted again, or somebody has just ended
            return False

    # --- whether it is right ---------------------------------------------------------------------------------

    def _values(self) -> Values | None:
        try:
            return parse(readers.text_of_store(self.path))
        except (sqlmetrics.SQLMetricsError, apsw.BusyError):
            return None

    def _is_whole(self) -> bool:
        before = self.ledger.snapshot()
        values = self._values()
        return values is not None and not list(differences(values, before, self.ledger.snapshot(), is_calm=True))

    def _wait_until(self, what: str, condition: Callable[[], object]) -> None:
        until = time.monotonic() + MENDED_SECONDS
        while not condition():
            if time.monotonic() > until:
                self.ledger.say("WRONG", "waited in vain until", what, self._wrong_now())
                raise StuckError(what)
            time.sleep(0.02)

    def _wrong_now(self) -> list[object]:
        before = self.ledger.snapshot()
        values = self._values()
        return (
            ["no scrape"]
            if values is None
            else list(differences(values, before, self.ledger.snapshot(), is_calm=True))[:5]
        )

    def _end(self) -> None:
        """All end, most of them in order."""
        self._lockers.end()
        for pid, process in list(self.processes.items()):
            if process.stopped_until:
                self._go_on(pid)
        for kinds in (("removes", "reads", "reads fresh", "asks"), ("burst", "worker"), ("anchor", "server")):
            ending = [pid for pid, process in self.processes.items() if process.kind in kinds]
            for pid in ending:
                self._end_with(pid, signal.SIGTERM)
            self._wait_until("all have ended", lambda ending=ending: self._has_ended(*ending))
        self._resolve()
