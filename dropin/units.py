"""Units of systemd as a test needs them: read, with the places of this run in them, and run by hand as they say."""

from __future__ import annotations

import configparser
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from namespaces import Person, command
from pages import ROOT

UNITS = ROOT / "contrib" / "systemd"
BIN = "/srv/app/.venv/bin/"


APP = Person(20_001, 20_001)
READER = Person(20_003, 20_003, (20_002,))
SHARED_GROUP = 20_002


class Service:
    """The section `Service` of a unit. here: gives the places of this run to a text."""

    def __init__(self, name: str, here: Callable[[str], str]):
        text = (UNITS / name).read_text("utf-8")
        parser = configparser.RawConfigParser(strict=False, interpolation=None)
        parser.optionxform = str
        parser.read_string(text)
        self.settings = dict(parser["Service"])
        self.command = shlex.split(here(self.settings["ExecStart"]))
        lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("Environment=")]
        self.environment = dict(here(line).split("=", 1) for line in lines)

    @contextlib.contextmanager
    def running(
        self, who: Person, log: IO[bytes], folder: Path, *before: str, **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run it as systemd would: as this user, by SIGTERM to its main process in the end. before: what starts it."""
        scratch = Path(tempfile.mkdtemp(dir=folder))
        process = subprocess.Popen(
            command([*before, *self.command], who, scratch),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), **self.environment, **environment},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def programs() -> str:
    """The folder of the programs that this Python has installed."""
    return f"{os.path.dirname(sys.executable)}/"
