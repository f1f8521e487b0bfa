"""Debian's promtool likes all that is written, in every format.

``promtool check metrics`` reads the text format only, and lints it; it takes an exemplar for a broken timestamp. So
what is OpenMetrics goes through Prometheus's own parser of that, by ``promtool tsdb create-blocks-from openmetrics``:
each sample has to come out of the blocks again as it was written. That one wants a timestamp with each sample, which
is added. (`test_engines.py` has a Prometheus that scrapes OpenMetrics over HTTP.) Names that are written in UTF-8, as
a client may ask for, promtool 2.42 cannot read: what it is given is escaped in each of the other ways.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import exposed
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

pytestmark = [pytest.mark.promise(12), pytest.mark.row("engine", "promtool reads every format", "debian:prometheus")]

HERE = Path(__file__).parent
_HTTP = ("http", "client-http")
OWN = ["ours-own", "collector-own", "http", "http-newer"]
"""Those with what the store tells of itself."""
NAMES = ["ours-names", "collector-own-names", "http-names", "client-http-names", "registry-names"]
"""Those with the samples only that were asked for."""
TEXTS = [
    *("ours", "ours-modes", "ours-underscores"),
    *("registry", "collector", "collector-created", "collector-underscores"),
    *("client-http", "client-http-newer"),
    *OWN,
    *NAMES,
]
ESCAPED = ["dots", "values"]
"""Other ways to write names that promtool cannot read. What each text is called then."""
OPENMETRICS = [
    *(f"ours{kind}" for kind in ("", "-own", "-names", "-underscores", "-dots", "-values")),
    *("registry", "collector-created-own"),
    *(f"{name}{kind}" for name in _HTTP for kind in ("", "-names")),
]
_SAMPLE = re.compile(r'^(?P<series>\w+(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?) (?P<value>\S+)(?P<rest> # .*)?$')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SECOND = 1_700_000_000

Found = dict[tuple[tuple[str, str], ...], str]
"""Samples by their labels, the name among them."""


@pytest.fixture(scope="module")
def written() -> Iterator[Path]:
    """A folder with all texts, which another process has written."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="sqlmetrics-promtool-", dir=shm))
    path = str(folder / "metrics.sqlite3")
    try:
        subprocess.run([sys.executable, "-W", "error", str(HERE / "exposed.py"), str(folder), path], check=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def promtool(*arguments: str, given: bytes = b"") -> tuple[int, str]:
    """The exit status, and all that it says."""
    assert shutil.which("promtool"), "this test needs Debian's package prometheus"
    done = subprocess.run(
        ["promtool", *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    return done.returncode, done.stdout.decode()


def test_all_that_is_written_is_looked_at(written: Path) -> None:
    """No format is forgotten below."""
    escaped = [f"{one}-{escaping}" for one in ("ours", "collector") for escaping in ESCAPED]
    expected = {*(f"{name}.prom" for name in [*TEXTS, *escaped]), *(f"{name}.om" for name in OPENMETRICS)}

    assert {path.name for path in written.iterdir() if path.suffix in (".prom", ".om")} == expected


@pytest.mark.parametrize("name", TEXTS)
def test_promtool_finds_nothing_to_complain_of(written: Path, name: str) -> None:
    """Neither as a parser nor as a linter, of the app's metrics and of the store's own."""
    text = (written / f"{name}.prom").read_bytes()

    assert promtool("check", "metrics", given=text) == (0, "")
    assert b"orders_total{" in text
    assert (b"sqlmetrics_rows{" in text) == (name in OWN or name in ("ours-names", "collector-own-names", "http-names"))
    assert (b"http_requests_total" in text) == (name not in NAMES)


@pytest.mark.parametrize("escaping", ESCAPED)
def test_other_escapings_fare_no_worse_than_those_of_prometheus_client(written: Path, escaping: str) -> None:
    """They can be read. With dots its encoder makes `_bucket` `__bucket`, which promtool takes for another family."""
    ours, theirs = ((written / f"{one}-{escaping}.prom").read_bytes() for one in ("ours", "collector"))
    status, told = promtool("check", "metrics", given=ours)

    assert (status, told) == promtool("check", "metrics", given=theirs)
    assert [line for line in told.splitlines() if not re.fullmatch(r"\w+__(bucket|count|sum) no help text", line)] == []
    assert status == (3 if escaping == "dots" else 0)


@pytest.mark.parametrize(
    ("text", "status", "complaint"),
    [
        (b"# HELP orders Orders\n# TYPE orders counter\norders 1\n", 3, '"_total" suffix'),
        (b"# TYPE orders_total counter\norders_total 1\n", 3, "no help text"),
        (b'orders_total{path="/} 1\n', 1, "parsing error"),
        (b"# TYPE a gauge\na 1\n# TYPE a gauge\na 1\n", 1, "second TYPE line"),
    ],
)
def test_promtool_does_complain(text: bytes, status: int, complaint: str) -> None:
    """Of a lint and of a broken text; else the test above would show nothing."""
    found, told = promtool("check", "metrics", given=text)

    assert found == status
    assert complaint in told


def with_times(text: str) -> str:
    """The text with a timestamp for each sample."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            found = _SAMPLE.match(line)
            assert found, line
            lines[number] = f"{found['series']} {found['value']} {SECOND}{found['rest'] or ''}"
    return "\n".join(lines)


def in_blocks(folder: Path, text: str) -> Found:
    """What Prometheus has in its blocks after it has read a text."""
    source, blocks = folder / "with_times.om", folder / "blocks"
    source.write_text(with_times(text))
    shutil.rmtree(blocks, ignore_errors=True)
    status, told = promtool("tsdb", "create-blocks-from", "openmetrics", str(source), str(blocks))
    assert status == 0, told
    (blocks / "wal").mkdir()  # the dump looks for one
    status, told = promtool("tsdb", "dump", str(blocks))
    assert status == 0, told
    return dict(dumped(line) for line in told.splitlines())


def dumped(line: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """A line of the dump: ``{__name__="orders_total", path="/"} 1 1700000000000``."""
    labels, value, time = line.rsplit(" ", 2)
    assert int(time) == 1000 * SECOND
    return tuple(sorted((name, json.loads(f'"{text}"')) for name, text in _LABEL.findall(labels))), repr(float(value))


def samples(text: str) -> Found:
    """What prometheus_client's parser makes of each line. An empty label is as good as none."""
    lines = [found for line in text.split("\n") if (found := _SAMPLE.match(line))]
    families = [text_string_to_metric_families(f"{one['series']} {one['value']}\n# EOF\n") for one in lines]
    found = [sample for family in families for metric in family for sample in metric.samples]
    assert len(found) == len(lines)
    labels = [{"__name__": sample.name, **sample.labels} for sample in found]
    return {
        tuple(sorted((name, text) for name, text in one.items() if text)): repr(float(sample.value))
        for one, sample in zip(labels, found, strict=True)
    }


@pytest.mark.parametrize("name", OPENMETRICS)
def test_prometheus_reads_openmetrics_to_the_last_sample(written: Path, name: str) -> None:
    """All samples, with all labels and values; also where exemplars follow."""
    text = (written / f"{name}.om").read_text("utf-8")
    expected = samples(text)

    assert in_blocks(written, text) == expected
    assert len(expected) >= len(exposed.NAMES)
    assert ' # {trace_id="4bf9",what="/"} 1.0 ' in text
    assert text.endswith("\n# EOF\n")
