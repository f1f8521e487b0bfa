"""One store as one process sees it: the files, this process's writers, its connections and its flusher."""

from __future__ import annotations

import atexit
import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace

import apsw

from .. import config
from ..cells import given, layout, locks, trust
from ..cells.cellsfile import CellsFile
from ..cells.figures import Figures
from ..cells.home import Home
from ..cells.part import Part
from ..errors import ForeignFileError, JournalModeError, SQLMetricsError, StoreError, StoreInUseError
from ..process import fork, under_uwsgi
from ..process.wiped import wiped_bytes
from ..rows import database, files, fold, settle, wal_reset
from ..rows.connections import Access
from ..rows.making import SET_UP_SECONDS
from ..rows.renew import Pair
from ..trouble import Trouble
from . import admission, erasure, flush, resets
from .conflicts import Conflicts
from .flusher import Flusher
from .follow import Follower
from .remover import Remover
from .wards import Wards

_PATIENCE = 50
"""How often a call that may wait for another's write lock tries again, 20 ms each: one second."""
_LOOKS = 5
"""How often a scrape looks whether this process is on the files that it reads, 20 ms each."""


_has_told_of_sqlite = False


class Store(fork.ForkAware):
    """A store that this process writes to. Get it with `install`.

    path: the main file, absolute. settings: see `config.Settings`.
    """

    def __init__(self, path: str, settings: config.Settings, *, create: bool = True):
        self.path = path
        self.settings = settings
        self.home = Home(path)
        self.conflicts = Conflicts(self)
        self.admission = admission.Admission(self)
        if settings.group is not None:
            trust.share(path, settings.gid())
        self._follower = Follower(self)
        self._launched = False
        self._part = Part(self.home)
        self._figures = Figures(self.trouble, self._part)
        self.writing = Access(path)
        self._notices: list[str] = []
        self.remover = Remover(self)
        self.wards = Wards()
        self.flusher = self._new_flusher()
        self._begin(self._try_to_open if create else lambda: self.enter(files.open_for_notices(path)))
        fork.register(self)
        atexit.register(self.close)

    @property
    def file(self) -> CellsFile:
        """The cells file. Raises NotOpenError."""
        return self.home.file

    @property
    def id(self) -> str:
        """The id in the files that are open, '' before there are any."""
        return self.home.id

    @property
    def trouble(self) -> Trouble:
        """What goes wrong with the store."""
        return self.home.trouble

    @property
    def part(self) -> Part:
        """What is this process's own; in the child of a fork from C, which ran no hook, not its parent's."""
        fork.notice()
        return self._part

    @property
    def part_of_attached(self) -> Part:
        """The same for who has seen that a value is attached: no fork has come by unnoticed."""
        return self._part

    @property
    def figures(self) -> Figures:
        """What this process notes of its own work."""
        if self._figures.part is not self._part:  # its parent has
            self._figures = Figures(self.trouble, self._part)
        return self._figures

    def is_open(self) -> bool:
        """Whether there is a store; False while it cannot be opened and this process counts in memory."""
        return self.home.is_open()

    def open(self, seconds: float = SET_UP_SECONDS) -> None:
        """Open the store, or make it; wait so long for others. Raises what `files.open_or_create` does."""
        self.enter(files.open_or_create(self.path, self.settings, self.trouble, seconds=seconds))
        self.trouble.over("closed", f"{self.path}: the store is open, the values of this process are in it")

    @staticmethod
    def _begin(enter: Callable[[], None]) -> None:
        """Do it, and again if another thread has forked in the midst of it."""
        while True:
            try:
                return enter()
            except (fork.GaveWayError, apsw.InterruptError):
                fork.let_pass()

    def _try_to_open(self) -> None:
        """A full disk or a newer schema is no reason to stop the app; a path that is wrong is one."""
        try:
            self.open()
        except (ForeignFileError, JournalModeError):
            raise
        except StoreError as error:
            self.trouble.report("closed", f"{error}; counting in memory until it can be opened")
        self.admission.begin()
        self._tell_of_sqlite()
        self.trouble.write_log()

    def _tell_of_sqlite(self) -> None:
        """Once per process."""
        global _has_told_of_sqlite
        if not _has_told_of_sqlite and (warning := wal_reset.warning()):
            self.trouble.remark(warning)
        _has_told_of_sqlite = True

    def enter(self, pair: Pair) -> None:
        """Use these files from now on."""
        self.home.enter(pair.cells, pair.store)
        self._follower.note(pair)
        if self._launched:
            self._hold_run_lock()

    def _new_flusher(self, *, forked: bool = False) -> Flusher:
        interval = self.settings.flush_interval
        return Flusher(
            interval,
            flush=lambda: flush.flush(self, pause=interval),
            before=lambda: flush.ask(self),
            after=lambda: self.trouble.write_log(),  # a child has a `trouble` of its own
            forked=forked,
        )

    # --- what the flusher and the set-up calls do ---------------------------------------------------------

    def flush(self) -> flush.Outcome:
        """Bring this process's changed values into rows now, waiting a second for another's write lock at most.

        Never raises; returns what it came to.
        """
        flush.ask(self)
        for _ in range(_PATIENCE):
            outcome = flush.flush(self)
            if outcome is not flush.Outcome.BUSY:
                break
        self.trouble.write_log()
        return outcome

    def get_sample_value(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        """What a scrape shows of one sample, aggregated over all processes; None if it is not there.

        As `prometheus_client.CollectorRegistry.get_sample_value`, for tests and health checks.
        name: the sample's, such as ``requests_total``. labels: all of them, a bucket's ``le`` and a ``pid`` too.
        Raises NoStoreError, StoreError or apsw.Error.
        """
        from ..scrape.answer import value  # here: it asks for the readers of stores

        return value(self.path, name, labels or {})

    def follow_replacement(self) -> bool:
        """See `follow.Follower.follow`."""
        return self._follower.follow()

    def come_along(self) -> None:
        """Before a scrape in this process: bring its values to new files, if there are some. Never raises.

        The flusher does that too, but an idle process may have none running, and what it has counted must be in the
        scrape. It takes two looks at the files (see `files`), so a scrape waits 100 ms for it at most, and that only
        where files were deleted or replaced a moment ago.
        """
        if self.is_held_here():
            return
        for _ in range(_LOOKS):
            try:
                if not self._follower.is_behind():
                    if self.part.is_moving():
                        self.part.move_in()
                    return
                self.follow_replacement()
            except fork.GaveWayError:
                pass
            except (apsw.Error, OSError, SQLMetricsError):
                break
            time.sleep(database.BUSY_MS / 1000)
        self.flusher.wake()  # it reports what is in the way, and goes on trying

    def mark_process_dead(self, pid: object) -> None:
        """See `notices.mark_process_dead`."""
        fork.notice()
        self._notices.append(given.name(str(pid)))
        if self.is_held_here():
            # In a signal handler, with a lock of ours held: waiting here might be for ever.
            self.flusher.wake()
            return
        try:
            self.patiently(self.act_on_notices)
        except (apsw.Error, OSError, SQLMetricsError) as error:
            # Not to be raised into a server's hook: whoever scrapes or flushes next sees the death by itself.
            self.trouble.report("notice", f"{self.path}: the end of process {pid} could not be noted yet ({error!r})")
            self.flusher.wake()

    def is_held_here(self) -> bool:
        """Whether this thread has a lock of this package (and was interrupted by a signal handler, say)."""
        return self.writing.held_here() or self.part.is_held_here() or self._follower.held_here()

    def patiently(self, act: Callable[[apsw.Connection], None]) -> None:
        """Do something with the connection, waiting a second for others. Raises what it raises, or BusyError."""
        for tries_left in reversed(range(_PATIENCE)):
            if not self.follow_replacement():
                time.sleep(database.BUSY_MS / 1000)
                continue
            try:
                with self.writing() as connection:
                    act(connection)
                    return
            except apsw.BusyError:
                if not tries_left:
                    raise
                fork.let_pass()
        raise database.CutOffError(f"{self.path}: the files are being replaced")

    def has_notices(self) -> bool:
        """Whether a process was reported dead and not settled yet, or a removal waits."""
        return bool(self._notices) or self.remover.has_work()

    def act_on_notices(self, connection: apsw.Connection) -> None:
        """Settle the processes that were reported dead, also those reported meanwhile. Raises apsw.Error."""
        while self._notices:
            pids = list(self._notices)
            with settle.settling(connection, self.file) as settled:
                noticed = [slot for pid in pids for slot in settle.mark_dead(connection, self.file, pid, settled)]
                fold.forget_oldest(connection, self.settings.keep_dead)
            del self._notices[: len(pids)]
            for slot in noticed:
                self.file.lapse(slot)

    def reset(self, *, force: bool, keep_own: bool) -> None:
        """See `notices.reset`. Raises StoreInUseError, apsw.BusyError."""
        fork.notice()
        resets.reset(self, force=force, keep_own=keep_own)
        self.admission.begin()

    def begin_run(self, *, uid: int, gid: int) -> None:
        """Be a launcher for as long as this process lives; drop what earlier runs left if nobody else uses the store.

        A second launcher (gunicorn's binary upgrade, say) finds the first and changes nothing.
        uid, gid: of the workers. If they are not root as this process is, and no group was configured, the files are
        shared with theirs: owned by root still, so that no worker can make itself their owner.
        """
        self._launched = True
        if not self.is_open():
            return
        if os.geteuid() == 0 != uid and self.settings.group is None:
            self.share(gid)
        if locks.try_lock(self.file.fd, layout.RUN_LOCK_AT):
            with contextlib.suppress(StoreInUseError):
                resets.begin_with_sums(self) if self.settings.persist else self.reset(force=False, keep_own=True)
            self.admission.begin()
        self.join_run(30)

    def join_run(self, seconds: int = 1) -> None:
        """Belong to a run while this process lives; wait so long for a launcher that is emptying the store."""
        self._launched = True
        for _ in range(_PATIENCE * seconds if self.is_open() else 0):
            if self._hold_run_lock():
                break
            time.sleep(database.BUSY_MS / 1000)

    def share(self, gid: int) -> None:
        """Let a group read and write the store's files; its processes are this one's children, under other users.

        By name, and not by descriptors, the closing of which would drop locks. Raises OSError.
        """
        self.settings = replace(self.settings, mode=self.settings.mode | 0o060, group=gid)
        trust.share(self.path, gid)
        trust.check(self.path)
        self._share_folder(gid)
        for suffix in trust.SUFFIXES:
            os.chown(self.path + suffix, -1, gid, follow_symlinks=False)
            os.chmod(self.path + suffix, self.settings.mode)

    def _share_folder(self, gid: int) -> None:
        """The folder too, if it is the store's own: below one such as ``/dev/shm``, and nobody else's business yet."""
        folder = os.path.dirname(self.path)
        status = os.stat(folder)
        is_own = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
        if is_own and config.is_open_to_all(os.path.dirname(folder)):
            config.share_folder(folder, gid)

    def _hold_run_lock(self) -> bool:
        return locks.try_share(self.file.fd, layout.RUN_LOCK_AT)

    # --- forks and the end --------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Have no thread and no connection at the moment of the fork."""
        self._flusher_ran = self.flusher.stop(for_fork=True)
        self.writing.before_fork()
        self._part.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on; the next operation starts the flusher again."""
        news = self._part.after_fork_in_parent(suspended=self._flusher_ran)
        self.writing.after_fork_in_parent()
        self.flusher.allow()
        if news or self.has_notices():  # the second from a signal handler that came during the fork
            self.flusher.wake()

    def after_fork_in_child(self) -> None:
        """Own nothing yet: the parent's cells are its own. Also called, late, in a child of a fork from C."""
        writers = self._part.writers.copy().values() if self.flusher.is_awaited and under_uwsgi.has_master() else ()
        if writers or self.wards:
            self.wards = Wards(writer.shared for writer in writers if writer.shared)
        self._part = Part(self.home, self._part)
        self._follower.after_fork_in_child()
        if self.is_open():
            self.file.forget_own()
        wiped_bytes.wipe()
        self._notices = []
        self.remover = Remover(self)
        if self.trouble.is_any():
            self.home.trouble = Trouble()
        self.writing = self.writing.after_fork_in_child()
        self.flusher = self._new_flusher(forked=True)

    def close(self) -> None:
        """Flush for the last time and close the connection; the values stay in the store."""
        fork.notice()
        if self.is_held_here():
            return  # uWSGI ends its processes from within a signal handler, in the middle of whatever it is
        self.flusher.stop()
        if self.part.writers or self.has_notices():
            self.flush()
        if self.is_open() and not self.file.truncating.is_done():
            with contextlib.suppress(apsw.Error, OSError, SQLMetricsError):
                erasure.finish(self)
        self.writing.close()

    def leave(self) -> None:
        """Close for good, and own nothing of the store any more, as if this process had ended."""
        atexit.unregister(self.close)
        self.close()
        self.part.leave()
