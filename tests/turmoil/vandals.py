"""What is done to the store: locks, deletions, a full disk."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from pathlib import Path

from helpers import FILES

from .ledger import Ledger


class Lockers:
    """Shells that hold a lock for a while."""

    def __init__(self, path: str, ledger: Ledger):
        self._path, self._ledger = path, ledger
        self._shells: list[subprocess.Popen[bytes]] = []

    def lock(self) -> None:
        """Have a shell take a lock, or read, for 0.1 to 3 s; beside the others."""
        self._shells = [shell for shell in self._shells if shell.poll() is None]
        seconds = round(0.1 + 2.9 * random.random() ** 3, 2)
        begin = random.choice(["BEGIN IMMEDIATE;", "BEGIN EXCLUSIVE;", "BEGIN; SELECT count(*) FROM cell_copy;"])
        script = f".timeout 3000\n{begin}\n.shell sleep {seconds}\nROLLBACK;\n"
        options = ["-readonly"] if "SELECT" in begin else []
        shell = subprocess.Popen(
            ["sqlite3", *options, self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert shell.stdin
        shell.stdin.write(script.encode())
        shell.stdin.close()
        self._shells.append(shell)
        self._ledger.say("shell", begin, seconds)

    def end(self) -> None:
        """Wait for all of them."""
        for shell in self._shells:
            shell.wait(timeout=30)
        self._shells.clear()


def identities(path: str) -> list[int]:
    """Of the database and of the cells, as far as they are there and are not empty."""
    found = []
    for name in (path, path + "-cells"):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name)
            found += [status.st_ino] if status.st_size else []
    return found


def spoil(path: str, choose: random.Random, ledger: Ledger) -> None:
    """Delete all files or some, or put empty ones in their place."""
    suffixes = FILES if choose.random() < 0.4 else choose.sample(FILES, choose.randint(1, 4))
    puts_empty = choose.random() < 0.25
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            if puts_empty:
                Path(path + ".empty").touch()
                os.replace(path + ".empty", path + suffix)
            else:
                os.unlink(path + suffix)
        time.sleep(choose.choice([0, 0, 0.001]))
    ledger.say("spoilt", "emptied" if puts_empty else "deleted", *suffixes)
