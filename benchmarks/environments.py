"""The rivals, each in a virtual environment of its own, made at the first run: their versions exclude one another."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parent / ".environments"
WANTED = {
    "mpmetrics": ("mpmetrics==0.1.0", "prometheus_client==0.17.*"),
    "distributed": ("prometheus-distributed-client==2.1.5",),
}
"""What pip is asked for, by side; the others run in the environment that this runs in."""


def python(side: str) -> str | None:
    """The interpreter of a side; None where its packages cannot be installed, and it says why."""
    if side not in WANTED:
        return sys.executable
    place = FOLDER / f"{side}-{sys.version_info[0]}.{sys.version_info[1]}"
    program = place / "bin" / "python"
    done = place / "done"
    if not done.exists():
        venv.create(place, with_pip=True, clear=True)
        command = [str(program), "-m", "pip", "install", "-q", "--disable-pip-version-check", *WANTED[side]]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"{side} is left out, pip says: {result.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        done.touch()
    return str(program)
