"""Run it by hand: `PYTHONPATH=tests python -m turmoil PATH SECONDS [--deletions] [--disk] …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from disks import Disk

from .coordinator import Coordinator, Plan
from .ledger import Ledger
from .report import report


def main() -> int:
    """Print what happened and what was wrong; the status is 1 if anything was."""
    parser = argparse.ArgumentParser(prog="turmoil")
    parser.add_argument("path", help="of the store")
    parser.add_argument("--account", help="a folder for the account and the log; else PATH.account")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--disk", metavar="SIZE", help="mount a tmpfs at the store's folder, and fill it now and then")
    parser.add_argument(
        "--deletions", action="store_true", help="delete files now and then; no series are removed then"
    )
    options = parser.parse_args()
    folder = options.account or options.path + ".account"
    os.makedirs(folder)
    ledger = Ledger(folder)
    disk = Disk(Path(options.path).parent, options.disk) if options.disk else None
    plan = Plan(options.seconds, options.workers, deletions=options.deletions, disk=disk)
    try:
        Coordinator(options.path, ledger, options.seed, plan).run()
        wrong, figures = report(ledger, options.path)
    finally:
        if disk:
            disk.unmount()
    print("\n".join(wrong))
    print(json.dumps({"seed": options.seed, "wrong": len(wrong), **figures}))
    return bool(wrong)


sys.exit(main())
