"""What other programs do to a store's files, each in a process of its own: opening them here would drop our locks."""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from helpers import FILES, in_child

from sqlmetrics.cells import layout

NAMES = re.compile(rb"requests\w*|latency\w*|busy\w*|" + rb'{"by":"\w+","number":"\d+"}')
"""In these texts another letter is not noticed (see the limits): SQLite has no checksums of what it stores."""


def flip(name: str, seed: int, count: int, end: int | None = None) -> None:
    """Give random bytes of a file, in place, random values; of its first `end` bytes if that is given."""
    choose = random.Random(seed)
    size = min(os.stat(name).st_size, end or 2**40)
    if not size:
        return
    with open(name, "r+b") as file:
        spared = {at for found in NAMES.finditer(file.read(size)) for at in range(*found.span())}
        for _ in range(count):
            if (at := choose.randrange(size)) not in spared:
                file.seek(at)
                file.write(bytes([choose.randrange(256)]))


def flip_in_database(path: str, seed: int) -> None:
    """A bit of rot all over the database."""
    flip(path, seed, 60)


def flip_in_first_page(path: str, seed: int) -> None:
    """The database's header and the root of its schema."""
    flip(path, seed, 20, 4096)


def flip_in_wal(path: str, seed: int) -> None:
    """Frames that are not checkpointed yet."""
    flip(path + "-wal", seed, 60)


def flip_in_wal_index(path: str, seed: int) -> None:
    """The index by which SQLite finds a page in the WAL."""
    flip(path + "-shm", seed, 60)


def flip_in_cells_directory(path: str, seed: int) -> None:
    """Header, slots, owners and generations, of which few bytes are in use; not the values, which nothing checks."""
    flip(path + "-cells", seed, 3000, layout.RESERVED)


def flip_in_cells_header(path: str, seed: int) -> None:
    """Whose it is and of which boot."""
    flip(path + "-cells", seed, 8, 128)


def truncate_database(path: str, seed: int) -> None:
    """To some length, nothing at all included."""
    os.truncate(path, random.Random(seed).choice([0, 100, 4096, os.stat(path).st_size // 2]))


def truncate_wal(path: str, seed: int) -> None:
    """To some length."""
    os.truncate(path + "-wal", random.Random(seed).choice([0, 32, os.stat(path + "-wal").st_size // 2]))


def fill_with_noise(path: str, seed: int) -> None:
    """The whole database, in place."""
    Path(path).write_bytes(random.Random(seed).randbytes(20_000))


def replace_by_noise(path: str, seed: int) -> None:
    """The database, by another file."""
    Path(path + ".other").write_bytes(random.Random(seed).randbytes(20_000))
    os.replace(path + ".other", path)


def delete_some(path: str, seed: int) -> None:
    """Any of the files."""
    choose = random.Random(seed)
    for suffix in choose.sample(FILES, choose.randint(1, 4)):
        Path(path + suffix).unlink(missing_ok=True)


def move_away_and_back(path: str, seed: int) -> None:
    """All files, for a moment in which others may be made, or not, or some of them."""
    for suffix in FILES:
        with suppress(FileNotFoundError):
            os.replace(path + suffix, path + ".away" + suffix)
    time.sleep(random.Random(seed).choice([0, 0.01, 0.03, 0.1]))
    for suffix in FILES:
        with suppress(FileNotFoundError):
            os.replace(path + ".away" + suffix, path + suffix)


DAMAGES = (
    flip_in_database,
    flip_in_first_page,
    flip_in_wal,
    flip_in_wal_index,
    flip_in_cells_header,
    truncate_database,
    truncate_wal,
    fill_with_noise,
    replace_by_noise,
    delete_some,
    move_away_and_back,
)


def back_up(path: str) -> None:
    """Copy all files to a folder beside them."""
    folder = os.path.dirname(path) + "/backup"
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    for suffix in FILES:
        shutil.copy(path + suffix, folder)


def restore(path: str, suffixes: tuple[str, ...], *, in_place: bool) -> None:
    """Put copies back that `back_up` made, into the files or in their place."""
    for suffix in suffixes:
        copy = os.path.dirname(path) + "/backup/" + os.path.basename(path) + suffix
        if in_place:
            shutil.copyfile(copy, path + suffix)
        else:
            shutil.copyfile(copy, path + suffix + ".copy")
            os.replace(path + suffix + ".copy", path + suffix)


def have(action: object, *arguments: object, **keywords: object) -> None:
    """Have it done in another process; that a file is being made anew at this moment is no reason to fail."""
    assert callable(action)

    def act() -> None:
        with suppress(FileNotFoundError):
            action(*arguments, **keywords)

    in_child(act)
