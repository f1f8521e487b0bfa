"""The processes of a store as commands show them: by the kernel's word, with what they take of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from ..cells import layout
from ..scrape.members import Member
from .usage import usage


@dataclass(frozen=True)
class Process:
    """A process of a store.

    pid: what its process identifier gave. os_pid: in its own pid namespace. seen_pid: in this one, None if the kernel
    does not show it here. state: `alive` or `dead` by the kernel's word (dead ones are settled by the next flush or
    scrape), or `remembered`: dead, settled, and kept for its gauges of mode `all`. Times in seconds since the epoch;
    flushed: all that it had counted by then is in rows; unflushed: whether there is more by now. series: how many
    samples it has. bytes: of the cells file that it holds. program, cpu_seconds, rss_bytes: None where ``/proc`` does
    not show it. is_stopped: by SIGSTOP, a terminal or a debugger, as far as ``/proc`` shows it.
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
        """Whether it lives, by the kernel's word."""
        return self.state == "alive"


def processes(members: list[Member]) -> list[Process]:
    """What is known of each, now."""
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
