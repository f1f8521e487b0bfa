"""A store that this process writes to: its files, this process's part, its connection and its flusher."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import apsw

from .. import config
from ..cells import exact, layout, locks, ownership
from ..cells.part import Part
from ..errors import ForeignFileError, JournalModeError, SQLMetricsError, StoreError, StoreInUseError
from ..process import fork, interpreters, under_uwsgi, waits
from ..process.trouble import Trouble
from ..process.wiped import wiped_bytes
from ..rows import files, wal
from ..rows.damage import is_damage
from ..rows.renew import Pair
from ..scrape import readers
from ..scrape.reader import Finish, Reader
from ..scrape.wanted import Wanted, wanted
from . import erasure, flush, resets
from .flusher import Flusher, Outcome
from .follow import Follower
from .opened import Opened

T = TypeVar("T")


_has_told_of_sqlite = False


class Store(Opened, fork.ForkAware):
    """A store that this process writes to. Get it with `install`."""

    def __init__(self, path: str, settings: config.Settings, *, create: bool = True):
        super().__init__(path, settings)
        if settings.group is not None:
            ownership.share(path, settings.gid())
        self._launched = False
        self.follower = Follower(self)
        self.rounds = flush.Rounds(self, self.follower)
        self.flusher = self._new_flusher()
        self._begin(self._try_to_open if create else lambda: self.enter(files.open_for_notices(path)))
        fork.register(self)
        interpreters.at_end(self.close)

    @staticmethod
    def _begin(enter: Callable[[], None]) -> None:
        """Enter the files; try again if another thread forks in the middle."""
        while True:
            try:
                return enter()
            except (fork.GaveWayError, apsw.InterruptError):
                fork.let_pass()

    def _try_to_open(self) -> None:
        """Open the store. A full disk or a newer schema must not stop the app, but a wrong path must."""
        try:
            self.open()
        except (ForeignFileError, JournalModeError):
            raise
        except StoreError as error:
            self.trouble.report("closed", f"{error}; counting in memory until it can be opened")
        self.rounds.admission.begin()
        self._tell_of_sqlite()
        self.trouble.write_log()

    def _tell_of_sqlite(self) -> None:
        """Warn of a SQLite with a known bug, once per process."""
        global _has_told_of_sqlite
        if not _has_told_of_sqlite and (warning := wal.warning()):
            self.trouble.remark(warning)
        _has_told_of_sqlite = True

    def enter(self, pair: Pair) -> None:
        """Use these files from now on."""
        super().enter(pair)
        self.follower.note(pair)
        if self._launched:
            self._hold_run_lock()

    def _new_flusher(self, *, forked: bool = False) -> Flusher:
        interval = self.settings.flush_interval
        return Flusher(
            interval,
            flush=lambda: flush.flush(self.rounds, pause=interval),
            before=lambda: flush.ask(self),
            after=lambda: self.trouble.write_log(),  # a child has a `trouble` of its own
            forked=forked,
        )

    # --- flushes, scrapes and calls of the app ------------------------------------------------------------

    def flush(self) -> Outcome:
        """Write this process's changed values to rows now; wait a second at most for the write lock.

        Never raises; returns the outcome.
        """
        flush.ask(self)
        for _ in waits.tries(waits.CALL):
            outcome = flush.flush(self.rounds)
            if outcome is not Outcome.BUSY:
                break
        self.trouble.write_log()
        return outcome

    def get_sample_value(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        """Return the value of one sample in a scrape, over all processes; None if there is no such sample.

        It is like `prometheus_client.CollectorRegistry.get_sample_value`, for tests and health checks.
        name: of the sample, such as ``requests_total``. labels: all of them, including a bucket's ``le`` and a ``pid``.
        Raises NoStoreError, StoreError or apsw.Error.
        """
        reader = readers.reader(self.path, self.settings)
        for shown in self.scrape(reader, wanted([name]), lambda families, _: families):
            for sample in shown.samples():
                if sample.name == name and sample.labels == (labels or {}):
                    return float(sample.value)
        return None

    def scrape(self, reader: Reader, asked: Wanted, finish: Finish[T]) -> T:
        """Scrape in this process, with all that it has counted; see `Reader.scrape`."""
        self.flusher.start_again()
        self.come_along()
        flush.ask(self)
        self._write_given_back()
        return reader.scrape(asked, finish, self.figures)

    def _write_given_back(self) -> None:
        """Flush children that were given back, so that the scrape does not show them; but wait for a moment only."""
        given_back = self.rounds.given_back
        if given_back and not self.follower.is_held():
            count = len(given_back)
            for _ in waits.tries(waits.SCRAPE):
                if flush.flush(self.rounds) is not Outcome.BUSY:
                    del given_back[:count]
                    break

    def come_along(self) -> None:
        """Move this process's values to new files, if there are any, before a scrape. Never raises.

        The flusher does that, too, but an idle process may have no flusher, and the scrape must show its counts. It
        takes two looks at the files (see `files`). So a scrape waits for it 100 ms at most, and only if files were
        deleted or replaced a moment ago.
        """
        if self.follower.is_held():
            return
        for _ in waits.tries(waits.SCRAPE):
            try:
                if not self.follower.is_behind():
                    if self.part.is_moving():
                        self.part.move_in()
                    return
                self.follower.follow()
            except fork.GaveWayError:
                pass
            except (apsw.Error, OSError, SQLMetricsError):
                break
            time.sleep(waits.WRITE_LOCK)
        self.flusher.wake()  # the flusher reports what is wrong, and goes on trying

    def mark_process_dead(self, pid: object) -> None:
        """See `notices.mark_process_dead`."""
        fork.notice()
        self.rounds.notices.append(exact.name(str(pid)))
        if self.follower.is_held():
            # In a signal handler, with a lock of ours held: waiting here might be for ever.
            self.flusher.wake()
            return
        try:
            self.follower.patiently(self.rounds.act_on_notices)
        except (apsw.Error, OSError, SQLMetricsError) as error:
            # A server's hook must not get this error: the next scrape or flush finds the death by itself.
            self.home.report("notice", f"the end of process {pid} could not be noted yet ({error!r})")
            self.flusher.wake()

    def reset(self, *, force: bool, keep_own: bool) -> None:
        """See `notices.reset`. Raises StoreInUseError, apsw.BusyError."""
        fork.notice()
        resets.reset(self, force=force, keep_own=keep_own)
        self.rounds.admission.begin()

    def begin_run(self, *, uid: int, gid: int) -> None:
        """Be a launcher as long as this process lives; empty the store of earlier runs if nobody else uses it.

        A second launcher (gunicorn's binary upgrade, say) finds the first, and changes nothing.
        uid, gid: of the workers. If this process is root, the workers are not, and no group is configured, the files
        are shared with the workers' group. Root still owns them, so that no worker can make itself their owner.
        """
        self._launched = True
        if not self.is_open():
            return
        if os.geteuid() == 0 != uid and self.settings.group is None:
            self.share(gid)
        if locks.try_lock(self.file.fd, layout.RUN_LOCK_AT):
            self._drop_earlier_runs()
            self.rounds.admission.begin()
        self.join_run(30)
        self.trouble.write_log()

    def _drop_earlier_runs(self) -> None:
        """Empty the store, unless others use it. If the disk is full or the store locked, the app starts all the same.

        What earlier runs left then stays, and their sums go on.
        """
        try:
            resets.begin_with_sums(self) if self.settings.persist else resets.begin_at_zero(self)
        except StoreInUseError:
            pass
        except Exception as error:  # whatever it is: it is no reason to stop an app
            self.trouble.remark(f"{self.path}: what earlier runs left cannot be removed now ({error!r}), so it stays")
            if is_damage(error):
                self.file.doubt()

    def join_run(self, seconds: int = 1) -> None:
        """Belong to a run as long as this process lives; wait so many seconds for a launcher that empties the store."""
        self._launched = True
        for _ in waits.tries(seconds) if self.is_open() else ():
            if self._hold_run_lock():
                break
            time.sleep(waits.WRITE_LOCK)

    def share(self, gid: int) -> None:
        """Let a group read and write the store's files: that of this process's children, which have another user.

        It uses names, and no descriptors, because closing these would drop locks. Raises OSError.
        """
        self.settings = replace(self.settings, mode=self.settings.mode | 0o060, group=gid)
        ownership.share(self.path, gid)
        ownership.check(self.path)
        self._share_folder(gid)
        for suffix in ownership.SUFFIXES:
            os.chown(self.path + suffix, -1, gid, follow_symlinks=False)
            os.chmod(self.path + suffix, self.settings.mode)

    def _share_folder(self, gid: int) -> None:
        """Share the folder, too, if it is the store's own: below one such as ``/dev/shm``, and private until now."""
        folder = os.path.dirname(self.path)
        status = os.stat(folder)
        is_own = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
        if is_own and config.is_open_to_all(os.path.dirname(folder)):
            config.share_folder(folder, gid)

    def _hold_run_lock(self) -> bool:
        return locks.try_share(self.file.fd, layout.RUN_LOCK_AT)

    # --- forks and the end --------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """End the thread and close the connection before the fork."""
        self._flusher_ran = self.flusher.stop(for_fork=True)
        self.writing.before_fork()
        self._part.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on; the next operation starts the flusher again."""
        news = self._part.after_fork_in_parent(suspended=self._flusher_ran)
        self.writing.after_fork_in_parent()
        self.flusher.allow()
        if news or self.rounds.has_notices():  # a signal handler may have noted one during the fork
            self.flusher.wake()

    def after_fork_in_child(self) -> None:
        """Begin without cells: the parent keeps its own. Called later in a child of a fork from C."""
        writers = self._part.writers.copy().values() if self.flusher.is_awaited and under_uwsgi.has_master() else ()
        self._part = Part(self.home, self._part)
        self.follower.after_fork_in_child()
        self.rounds.after_fork_in_child(writer.shared for writer in writers if writer.shared)
        if self.is_open():
            self.file.forget_own()
        wiped_bytes.wipe()
        if self.trouble.is_any():
            self.home.trouble = Trouble()
        self.writing = self.writing.after_fork_in_child()
        self.flusher = self._new_flusher(forked=True)

    def close(self) -> None:
        """Flush for the last time and close the connection; the values stay in the store."""
        fork.notice()
        if self.follower.is_held():
            return  # uWSGI ends its processes in a signal handler, in the middle of anything
        self.flusher.stop()
        if self.part.writers or self.rounds.has_notices():
            self.flush()
        if self.is_open() and not self.file.truncating.is_done():
            with contextlib.suppress(apsw.Error, OSError, SQLMetricsError):
                erasure.finish(self)
        self.writing.close()

    def leave(self) -> None:
        """Close for good, and give up all slots and cells, as if this process had ended."""
        interpreters.not_at_end(self.close)
        self.close()
        self.part.leave()
