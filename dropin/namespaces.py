"""What a container is to the kernel, made by hand: namespaces of mounts and pids, another user, a read-only root.

``unshare`` and ``setpriv`` of util-linux do it; only root can ask for it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from disks import can_mount

_NEW_PIDS = 0x20000000


class Person(NamedTuple):
    """A user of a test: numbers, as there need not be names for them."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Volume(NamedTuple):
    """A folder of the host that a container sees somewhere."""

    host: Path
    is_read_only: bool = False


_OPEN = """
mkdir {held}
mount --bind {prefix} {held}
mount -t tmpfs -o mode=755 none {closed}
mkdir -p {prefix}
mount --move {held} {prefix}
"""
"""This Python may lie in a folder that only root may enter: here it lies in one that all may."""
_READ_ONLY = """
for place in $(cut -d' ' -f5 /proc/self/mountinfo); do
    case "$place" in /proc*|/dev|/dev/pts) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;; esac
done
"""
"""Volumes come after that."""
_BECOME = "exec setpriv --reuid {uid} --regid {gid} {groups} --no-new-privs --bounding-set=-all --inh-caps=-all"


def can_unshare() -> bool:
    """Whether this process may make such namespaces."""
    if not can_mount():
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(ctypes.CDLL(None).unshare(_NEW_PIDS) != 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def command(
    inner: Sequence[str],
    who: Person,
    scratch: Path,
    *,
    volumes: Mapping[str, Volume] | None = None,
    is_container: bool = False,
) -> list[str]:
    """What runs a command as somebody. scratch: an empty folder of the test. volumes: by the folder that shows them.

    is_container: with pids of its own, and nothing that can be written to but the volumes.
    """
    script = ["mount --make-rprivate /"]
    prefix = Path(os.path.realpath(sys.base_prefix))
    closed = [one for one in prefix.parents if not one.stat().st_mode & 0o001]
    if closed:
        script.append(_OPEN.format(held=scratch / "held", prefix=prefix, closed=closed[-1]))
    script += [_READ_ONLY] if is_container else []
    for place, volume in (volumes or {}).items():
        script.append(f"mount --bind {volume.host} {place}")
        script.append(f"mount -o remount,bind,{'ro' if volume.is_read_only else 'rw'} {place}")
    groups = f"--groups {','.join(map(str, who.groups))}" if who.groups else "--clear-groups"
    script.append(_BECOME.format(uid=who.uid, gid=who.gid, groups=groups) + ' -- "$@"')
    pids = ["--pid", "--fork", "--kill-child", "--mount-proc"] if is_container else []
    return ["unshare", "--mount", *pids, "sh", "-ec", "\n".join(script), "sh", *inner]


def child_of(pid: int) -> int | None:
    """The child of `unshare --fork`, which is process 1 of its namespace; None if there is none yet."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None
