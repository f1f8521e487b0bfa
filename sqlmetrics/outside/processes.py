"""The processes of a store as commands show them: their states, as the kernel says, and their CPU and memory."""

from __future__ import annotations

from dataclasses import dataclass

from ..cells import layout
from ..scrape.members import Member
from .usage import usage


@dataclass(frozen=True)
class Process:
    """A process of a store.

    pid: the result of its process identifier. os_pid: its pid in its own pid namespace; seen_pid: in this one, None if
    it is not visible here. state: `alive`; `dead`, which the next flush or scrape settles; or `remembered`: dead,
    settled, and kept for its gauges of mode `all`. Times are seconds since the epoch; flushed: the rows have all that
    it had counted up to this time; unflushed: whether it has more now. series: how many samples it has. bytes: its
    share of the cells file. program, cpu_seconds, rss_bytes: None if ``/proc`` does not show the process. is_stopped:
    by SIGSTOP, a terminal or a debugger, as far as ``/proc`` shows it.
    """

    pid: str
    os_pid: int
    seen_pid: int | None
    state: str
    started: float | None
    died: float | None
    flushed: float | None
    unflushed: bool
    series: int
    bytes: int
    program: str | None
    cpu_seconds: float | None
    rss_bytes: int | None
    is_stopped: bool

    @property
    def is_alive(self) -> bool:
        """Whether the process is alive, as the kernel says."""
        return self.state == "alive"


def processes(members: list[Member]) -> list[Process]:
    """Return what is known of each process now."""
    return [_process(member) for member in members]


def _process(member: Member) -> Process:
    used = usage(member.seen_pid) if member.seen_pid else None
    return Process(
        pid=member.pid,
        os_pid=member.os_pid,
        seen_pid=member.seen_pid or None,
        state="alive" if member.alive else "dead" if member.died is None else "remembered",
        started=member.started,
        died=member.died,
        flushed=member.flushed,
        unflushed=member.unflushed,
        series=member.series,
        bytes=(member.blocks + member.extents) * layout.PAGE,
        program=used.name if used else None,
        cpu_seconds=used.cpu_seconds if used else None,
        rss_bytes=used.rss_bytes if used else None,
        is_stopped=used is not None and used.is_stopped,
    )
