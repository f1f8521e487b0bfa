"""Runs commands that look at a store, and workers that use it; the test process itself has no store installed."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import FILES, Child, child, in_child
from outsiders import drop_rights
from prometheus_client import Counter, Enum, Gauge, Histogram, Summary

import sqlmetrics
from sqlmetrics import cli

for _name in cli.COMMANDS:
    importlib.import_module(f"sqlmetrics.commands.{_name}")  # now: one without rights may not read the package


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the JSON that it printed."""
        assert self.err == "", self.err
        return json.loads(self.out)


def command(*arguments: str, nobody: bool = False, **environment: str) -> Said:
    """Run `sqlmetrics` with these arguments in another process. nobody: whether as a user without rights."""

    def run() -> list[object]:
        if nobody:
            drop_rights()
        os.environ.update(environment)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: object = cli.main(arguments)
            except SystemExit as left:
                status = left.code
        return [status, out.getvalue(), err.getvalue()]

    return Said(*in_child(run))  # type: ignore[misc]


def _begin(path: str, settings: dict[str, Any]) -> dict[str, Callable[..., object]]:
    metrics: dict[str, Any] = {}

    def begin() -> int:
        metrics["store"] = sqlmetrics.install(path, **{"mode": 0o644, **settings})
        metrics["requests"] = Counter("requests", "Requests served.", ["path"])
        metrics["busy"] = Gauge("busy", "Busy threads.", multiprocess_mode="livesum")
        metrics["each"] = Gauge("each", "A number of each.", multiprocess_mode="all")
        metrics["last"] = Gauge("last", "What was set last.", multiprocess_mode="mostrecent")
        metrics["state"] = Enum("state", "A state.", ["part"], states=["starting", "up"])
        metrics["latency"] = Histogram("latency_seconds", "Latency.", ["path"], buckets=(0.1, 0.5, 1))
        metrics["sizes"] = Summary("size_bytes", "Sizes.")
        return os.getpid()

    def count(label: str, amount: float) -> None:
        metrics["requests"].labels(label).inc(amount)

    def observe(label: str, *values: float) -> None:
        for value in values:
            metrics["latency"].labels(label).observe(value)

    return {
        "begin": begin,
        "count": count,
        "observe": observe,
        "set": lambda name, value: metrics[name].set(value),
        "state": lambda part, state: metrics["state"].labels(part).state(state),
        "size": lambda value: metrics["sizes"].observe(value),
        "flush": lambda: bool(metrics["store"].flush()),
        "stop": lambda: metrics["store"].flusher.stop(),
        "burst": lambda first, last: [metrics["requests"].labels(str(n)).inc() for n in range(first, last)] and None,
    }


@contextlib.contextmanager
def worker(path: str, **settings: Any) -> Iterator[Child]:
    """Fork a process of an app with metrics of several kinds in the store at `path`."""
    with child(**_begin(path, settings)) as one:
        one.do("begin")
        yield one


def values(path: str, *arguments: str, nobody: bool = False) -> dict[str, float]:
    """Return what `show` prints, by name and labels."""
    found = command("show", "--path", path, "--json", *arguments, nobody=nobody).json()
    return {
        series["name"] + json.dumps(series["labels"], sort_keys=True): series.get("value", series.get("count"))
        for family in found["families"]
        for series in family["series"]
    }


def as_they_are(path: str) -> dict[str, object]:
    """Return all about the files and their folder that a look could change, except access times."""
    names = [path + suffix for suffix in FILES if os.path.exists(path + suffix)]
    found: dict[str, object] = {"names": sorted(os.listdir(os.path.dirname(path)))}
    for name in names:
        status = os.stat(name)
        found[name] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid, status.st_gid)
        with open(name, "rb") as file:
            found[name + " content"] = hash(file.read())
    return found


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """Mount the folder at another place, read-only, as a container mounts another one's volume."""
    place = folder.with_name(folder.name + "-ro")
    place.mkdir()
    try:
        subprocess.run(["mount", "--bind", folder, place], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True, capture_output=True)
        yield str(place)
    finally:
        subprocess.run(["umount", place], check=False, capture_output=True)
        place.rmdir()


def _may_mount() -> bool:
    """Whether this machine lets the tests mount a folder at another place."""
    command = ["unshare", "-m", "mount", "--bind", "/tmp", "/tmp"]
    return (
        shutil.which("unshare") is not None and not subprocess.run(command, check=False, capture_output=True).returncode
    )


with_mounts = pytest.mark.skipif(not _may_mount(), reason="this user may mount nothing")
