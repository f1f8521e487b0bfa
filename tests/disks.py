"""Small disks of their own: a tmpfs that can be filled."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from helpers import wait_for


def can_mount() -> bool:
    """Whether this process may mount a small tmpfs."""
    if os.geteuid() != 0:
        return False
    pid = os.fork()
    if pid == 0:  # in a mount namespace of its own, so that nothing is left of the trial
        works = ctypes.CDLL(None).unshare(0x00020000) == 0
        os._exit(not (works and os.system("mount -t tmpfs -o size=64k none /mnt 2>/dev/null") == 0))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Disk:
    """A tmpfs of a size that can be changed."""

    def __init__(self, folder: Path, size: str):
        self.folder = folder
        self.path = str(folder / "metrics.sqlite3")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)

    def resize(self, size: str) -> None:
        """Make it larger (or smaller)."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leave not a byte of room: another program's file takes it all."""
        fill = ["dd", "if=/dev/zero", f"of={self.folder}/filler", "bs=4096", "oflag=append", "conv=notrunc"]

        def is_full() -> bool:
            subprocess.run(fill, stderr=subprocess.DEVNULL)
            return os.statvfs(self.folder).f_bavail == 0  # or a WAL was cut off at this moment

        wait_for(is_full)

    def free(self) -> None:
        """Delete that file."""
        os.unlink(self.folder / "filler")

    def unmount(self) -> None:
        """Have it gone, whoever still uses it."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
