"""What an import of the package loads: next to nothing by itself, and with its first name all that is ever needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import sqlmetrics

_LOADED = """
import json, sys
before = set(sys.modules)  # a .pth file, or a measurement of coverage, may have loaded more
import sqlmetrics
print(json.dumps(sorted(set(sys.modules) - before)))
"""
_USE = """
import asyncio, json, os, sys
import sqlmetrics
store = sqlmetrics.install(sys.argv[1])
before = set(sys.modules)
import prometheus_client as peer
peer.Counter("c", "C", ["x"]).labels("").inc(exemplar={"trace": "1"})
peer.Histogram("h", "H").observe(1)
gauge = peer.Gauge("g", "G", ["x"], multiprocess_mode="mostrecent")
gauge.labels("").set(1)
peer.Info("i", "I").info({"a": "b"})
peer.Enum("e", "E", states=["a", "b"]).state("b")
store.flush()
pid = os.fork()
if pid == 0:
    gauge.labels("in a child").set(2)
    os._exit(0)
os.waitpid(pid, 0)
sqlmetrics.mark_process_dead(pid)
sqlmetrics.generate_latest(self_metrics=True)
peer.generate_latest()
peer.REGISTRY.get_sample_value("c_total", {"x": ""})
store.get_sample_value("c_total", {"x": ""})
registry = peer.CollectorRegistry()
sqlmetrics.MultiProcessCollector(registry, self_metrics=True)
list(registry.restricted_registry(["g"]).collect())
b"".join(sqlmetrics.make_wsgi_app()({"REQUEST_METHOD": "GET"}, lambda *_: None))

async def receive(): return {}
async def send(message): pass
asyncio.run(sqlmetrics.make_asgi_app()({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send))
gauge.remove("")
sqlmetrics.reset(force=True)
sqlmetrics.uninstall()
loaded = set(sys.modules) - before
print(json.dumps(sorted(name for name in loaded if name.partition(".")[0] in ("sqlmetrics", "apsw"))))
"""


def _run(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    found: list[str] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


_EACH_FIRST = """
import json, os, sys
from pathlib import Path
import sqlmetrics
here = Path(sqlmetrics.__file__).parent
files = [file for file in here.rglob("*.py") if file.stem not in ("__init__", "__main__", "gunicorn")]
files = [file for file in files if file.parent.name != "bootstrap"]
names = [".".join((here.name, *file.relative_to(here).with_suffix("").parts)) for file in files]
failed = []
for name in names:
    pid = os.fork()
    if pid == 0:
        __import__(name)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        failed.append(name)
print(json.dumps([len(names), *failed]))
"""


def test_an_import_of_the_package_loads_neither_sqlite_nor_prometheus_client() -> None:
    """Nor the modules that only some apps need, and nothing else of the package."""
    loaded = _run(_LOADED)
    assert [name for name in loaded if name.startswith("sqlmetrics")] == ["sqlmetrics", "sqlmetrics.version"]
    assert not {"apsw", "prometheus_client", "asyncio", "ctypes", "logging", "threading"}.intersection(loaded)


def test_after_install_nothing_of_the_package_is_read_from_the_disk_any_more(path: str) -> None:
    """A worker that has given up its rights may be unable to; what it does from then on is in memory."""
    assert _run(_USE, path) == []


@pytest.mark.parametrize("name", ["install", "Store", "NoStoreError", "make_asgi_app", "values", "errors"])
def test_each_public_name_can_be_the_first_that_is_used(name: str) -> None:
    """As an attribute, or imported by name."""
    assert _run(f"import sqlmetrics; sqlmetrics.{name}; from sqlmetrics import {name}; print([])") == []


@pytest.mark.slow
def test_each_module_of_the_package_can_be_the_first_that_is_imported() -> None:
    """None relies on another one having been loaded before it."""
    count, *failed = _run(_EACH_FIRST)
    assert failed == []
    assert int(count) > 90


def test_the_names_are_listed_before_they_are_loaded() -> None:
    """For completion in a shell; what is no name of the package is an AttributeError, as for every module."""
    listed = _run("import json, sqlmetrics; print(json.dumps(dir(sqlmetrics)))")
    assert {*sqlmetrics.__all__, "__version__", "values"} <= set(listed)
    with pytest.raises(AttributeError, match="has no attribute 'instal'"):
        sqlmetrics.instal  # type: ignore[attr-defined]
