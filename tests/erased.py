"""Whether a text is in the files of a store, and other programs that have the database open."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from helpers import wait_for

MARK = "erase-me-7f3a"
_SEARCH = """
import glob, os, sys
store, mark = sys.argv[1], bytes.fromhex(sys.argv[2])
def content(fd):
    at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        yield os.pread(fd, end - at, at)
        at = end
for name in glob.glob(glob.escape(store) + "*"):
    fd = os.open(name, os.O_RDONLY)
    found = sum(piece.count(mark) for piece in content(fd))
    if found:
        print(name[len(store):] or "database", found)
"""
READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM series").fetchall()
print("reads", flush=True)
sys.stdin.readline()
"""
WRITER = READER.replace('"BEGIN"', '"BEGIN IMMEDIATE"')
CARELESS = f"""
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA secure_delete = OFF")
connection.execute("INSERT INTO family (name, type, mode, help, made) VALUES ('a', 'gauge', '', '{MARK * 20}', 0)")
connection.execute("DELETE FROM family WHERE name = 'a'")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
print("reads", flush=True)
sys.stdin.readline()
"""


def places(path: str, mark: bytes = MARK.encode()) -> str:
    """Where bytes are in a store's files, and how often. Another process looks: here, SQLite's locks would be lost."""
    command = [sys.executable, "-S", "-c", _SEARCH, path, mark.hex()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def wait_until_erased(path: str) -> None:
    """Wait until the text is in none of the files."""
    wait_for(lambda: not places(path))


@contextlib.contextmanager
def program(text: str, path: str) -> Iterator[None]:
    """Another program that has the database open, by another SQLite, until the end."""
    one = subprocess.Popen([sys.executable, "-c", text, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert one.stdout
        assert one.stdout.readline() == "reads\n"
        yield
    finally:
        one.communicate("\n", timeout=30)
