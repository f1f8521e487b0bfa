"""`sqlmetrics show`: what it prints is what a scrape has, in every form."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from helpers import delete, wait_for
from looking import Said, command, values, worker
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import sqlmetrics
from sqlmetrics.commands import screen
from sqlmetrics.outside.values import Distribution


def show(path: str, *arguments: str) -> Said:
    """The command."""
    return command("show", "--path", path, *arguments)


def test_a_table_for_each_family(path: str) -> None:
    """With its type and help; plain, as the output is no terminal, and not cut."""
    with worker(path) as one:
        one.do("count", "/" + 90 * "x", 3)

        lines = show(path, "requests").out.splitlines()

    assert lines[0] == f"store  {path} (from --path)"
    assert lines[2] == "requests_total  counter  Requests served."
    assert lines[3].split() == ["SERIES", "VALUE"]
    assert lines[4].split() == [f'{{path="/{90 * "x"}"}}', "3"]


def test_openmetrics_is_what_a_scrape_gets(path: str) -> None:
    """To the byte."""
    with worker(path) as one:
        one.do("count", "/", 3.5)
        one.do("observe", "/", 0.2)
        one.do("size", 10)

        assert show(path, "--openmetrics").out == sqlmetrics.generate_latest(path, openmetrics=True).decode()
        families = list(text_string_to_metric_families(show(path, "--openmetrics", "latency*{path=/}").out))

    assert [(one.name, one.type) for one in families] == [("latency_seconds", "histogram")]


def test_csv_has_a_line_for_each_sample(path: str) -> None:
    """The same samples and values as a scrape."""
    with worker(path) as one:
        one.do("count", 'a"b,\n', 3.5)
        one.do("observe", "/", 0.2, 0.7)
        one.do("set", "each", 4)

        rows = list(csv.DictReader(io.StringIO(show(path, "--csv").out)))
        registry = CollectorRegistry()
        sqlmetrics.MultiProcessCollector(registry, path)
        scraped = [sample for family in registry.collect() for sample in family.samples]

    found = {(row["name"], row["labels"], float(row["value"])) for row in rows}
    assert found == {(one.name, json.dumps(one.labels, sort_keys=True), one.value) for one in scraped}
    assert len(rows) == len(scraped) > 8


def test_json_has_a_histogram_as_one_thing(path: str) -> None:
    """Its count, sum, mean, quantiles and buckets."""
    with worker(path) as one:
        one.do("observe", "/", 0.05, 0.2, 0.3, 0.9)

        (family,) = show(path, "--json", "latency_seconds").json()["families"]

    (series,) = family["series"]
    assert (series["count"], series["sum"]) == (4, pytest.approx(1.45))
    assert series["mean"] == pytest.approx(1.45 / 4)
    assert series["p50"] == pytest.approx(0.3)
    assert series["buckets"] == [
        {"le": 0.1, "count": 1},
        {"le": 0.5, "count": 3},
        {"le": 1, "count": 4},
        {"le": "+Inf", "count": 4},
    ]


@pytest.mark.parametrize(
    ("buckets", "q", "wanted"),
    [
        ([(0.1, 1), (0.5, 3), (1, 4), (math.inf, 4)], 0.5, 0.3),
        ([(1, 10), (math.inf, 10)], 0.9, 0.9),
        ([(1, 5), (2, 5), (math.inf, 10)], 0.9, 2),
        ([(-1, 5), (2, 10), (math.inf, 10)], 0.1, -1),
        ([(1, 0), (math.inf, 0)], 0.5, math.nan),
        ([(math.inf, 3)], 0.5, math.nan),
        ([(1, 3), (2, 3)], 0.5, math.nan),
    ],
)
def test_quantiles_are_those_of_promql(buckets: list[tuple[float, float]], q: float, wanted: float) -> None:
    """Spread evenly within a bucket; the last finite bound at most; NaN where there is nothing to go by."""
    found = Distribution(0.0, 0.0, buckets).quantile(q)

    assert found == pytest.approx(wanted, nan_ok=True)


def test_by_process_shows_the_parts(path: str) -> None:
    """Which add up; what ended processes left is there, too."""
    with worker(path) as one:
        with worker(path) as two:
            two.do("count", "/", 4)
            two.do("set", "each", 4)
            two.do("observe", "/", 0.2)
        one.do("count", "/", 3)
        one.do("count", "/other", 1)
        one.do("set", "last", 5)
        sqlmetrics.generate_latest(path)  # settles the dead
        pids = [one.pid, two.pid]

        series = {
            (each["name"], each["labels"].get("path", ""), each["process"]): each
            for family in show(path, "--json", "--by", "process").json()["families"]
            for each in family["series"]
        }

    assert series["requests_total", "/", str(pids[0])]["value"] == 3
    assert series["requests_total", "/", "(ended)"]["value"] == 4
    assert series["requests_total", "/other", str(pids[0])]["value"] == 1
    assert ("requests_total", "/other", "(ended)") not in series
    assert series["latency_seconds", "/", "(ended)"]["count"] == 1
    assert (series["each", "", str(pids[1])]["value"], series["each", "", str(pids[1])]["alive"]) == (4, False)
    assert series["last", "", str(pids[0])]["timestamp"] > 1e9


def test_by_process_shows_what_each_said_last(path: str) -> None:
    """Of an Enum; a scrape shows what was said last of all."""
    with worker(path) as one, worker(path) as two:
        one.do("state", "db", "up")
        one.do("state", "db", "starting")
        two.do("state", "db", "up")

        series = show(path, "--json", "--by", "process", "state").json()["families"][0]["series"]

    found = {(each["process"], each["labels"]["state"]): each["value"] for each in series}
    first, second = str(one.pid), str(two.pid)
    assert (found[first, "starting"], found[first, "up"], found[second, "up"]) == (1, 0, 1)
    assert all(each["labels"]["part"] == "db" and each["timestamp"] > 1e9 for each in series if each["value"])


def test_parts_add_up_to_what_a_scrape_shows(path: str) -> None:
    """Also before any flush, and of processes that have died and nobody has settled."""
    with worker(path, flush_interval=1000) as one, worker(path, flush_interval=1000) as two:
        for each, amount in ((one, 0.1), (two, 0.2)):
            each.do("stop")
            each.do("burst", 0, 700)
            each.do("count", "7", amount)
        one.do("flush")
        one.do("burst", 600, 800)
        two.kill()

        parts = show(path, "--json", "--by", "process", "requests").json()["families"][0]["series"]
        wanted = values(path, "requests")

    found: dict[str, float] = {}
    for part in parts:
        key = part["name"] + json.dumps(part["labels"])
        found[key] = found.get(key, 0.0) + part["value"]
    assert found == pytest.approx(wanted)
    assert len(found) == 800


def test_what_the_ended_left_is_one_part(path: str) -> None:
    """Also where a term of its own has what was rounded off."""
    for amount in (2.0**53, 1.0):
        with worker(path) as one:
            one.do("count", "/", amount)
            one.kill()
    sqlmetrics.generate_latest(path)  # settles them

    (part,) = show(path, "--json", "--by", "process", "requests").json()["families"][0]["series"]

    assert (part["process"], part["value"]) == ("(ended)", 2.0**53)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("requests", {'requests_total{"path": "/a"}', 'requests_total{"path": "/b=c,d"}'}),
        ("requests_total", {'requests_total{"path": "/a"}', 'requests_total{"path": "/b=c,d"}'}),
        ("req*{path=/a}", {'requests_total{"path": "/a"}'}),
        ('{path="/b=c,d"}', {'requests_total{"path": "/b=c,d"}'}),
        (
            "*{path=/*}",
            {'requests_total{"path": "/a"}', 'requests_total{"path": "/b=c,d"}', 'latency_seconds{"path": "/a"}'},
        ),
        ("latency_seconds_bucket", {'latency_seconds{"path": "/a"}'}),
        ("requests{nosuch=*}", set()),
    ],
)
def test_patterns_choose_by_name_and_labels(path: str, pattern: str, names: set[str]) -> None:
    """Of families or samples, * for anything; status 1 and a message where nothing matches."""
    with worker(path) as one:
        one.do("count", "/a", 1)
        one.do("count", "/b=c,d", 1)
        one.do("observe", "/a", 0.2)

        done = show(path, "--json", pattern)

    found = {
        one["name"] + json.dumps(one["labels"])
        for family in json.loads(done.out)["families"]
        for one in family["series"]
    }
    assert found == names
    assert done.status == (0 if names else 1)
    assert ("no series matches" in done.err) == (not names)


def test_no_table_is_shown_where_nothing_matches(path: str) -> None:
    """Not even its head."""
    with worker(path) as one:
        one.do("count", "/a", 1)

        for done in (show(path, "nosuch"), show(path, "--family", "nosuch")):
            assert done.out.splitlines() == [f"store  {path} (from --path)"]


def test_what_is_shown_can_be_pasted_as_a_pattern(path: str) -> None:
    """Quotes, backslashes and line ends included."""
    with worker(path) as one:
        for label in ('a"b\\c\nd,{e}?[fg]', 'a"b\\c\nd,{e}xf'):
            one.do("count", label, 1)
        shown = next(line for line in show(path, "requests").out.splitlines() if "[fg]" in line)
        found = show(path, "--json", f"requests_total{shown.split('  ')[0]}").json()["families"][0]["series"]

    assert [one["labels"]["path"] for one in found] == ['a"b\\c\nd,{e}?[fg]']


def test_a_pattern_that_cannot_be_read_is_told(path: str) -> None:
    """With what is wanted."""
    done = show(path, "requests{path}")

    assert done.status == 2
    assert "LABEL=VALUE" in done.err


@pytest.mark.parametrize("span", ["soon", "0", "-1", "nan", "inf", "1e300"])
@pytest.mark.parametrize("given", [["show", "--watch"], ["top", "--interval"]], ids=["show", "top"])
def test_a_span_that_makes_no_sense_is_told_with_its_limits(path: str, given: list[str], span: str) -> None:
    """In words of the user."""
    done = command(*given, span, "--path", path)

    assert done.status == 2
    assert f"argument {given[1]}: expected seconds, 0.1 to " in done.err
    assert f"not {span!r}" in done.err


def test_each_process_in_openmetrics_is_refused(path: str) -> None:
    """A scrape has no such thing."""
    done = show(path, "--by", "process", "--openmetrics")

    assert (done.status, done.out) == (2, "")
    assert "use --csv or --json" in done.err


def test_an_overview_has_a_line_for_each_family(path: str) -> None:
    """Its type, series, total and help."""
    with worker(path) as one:
        one.do("count", "/a", 1)
        one.do("count", "/b", 2.5)

        lines = show(path, "--family").out.splitlines()

    assert ["requests", "counter", "2", "3.5", "Requests served."] in [line.split(maxsplit=4) for line in lines]


def test_odd_values_are_written_as_prometheus_does(path: str) -> None:
    """In JSON, which has no number for them, as strings."""
    with worker(path) as one:
        one.do("set", "each", math.inf)
        assert show(path, "--json", "each").json()["families"][0]["series"][0]["value"] == "+Inf"
        one.do("set", "each", math.nan)
        assert show(path, "each").out.split()[-1] == "NaN"


def test_a_label_value_cannot_act_on_the_terminal(path: str) -> None:
    """Control characters are escaped: they come from the app's clients."""
    with worker(path) as one:
        one.do("count", "\x1b[2J\u202e\ud800", 1)
        one.do("count", 'a"b\\c\nd', 1)
        text = show(path, "requests").out

    assert r'{path="\x1b[2J\u202e\ud800"}' in text
    assert r'{path="a\"b\\c\nd"}' in text


@pytest.mark.parametrize("letter", ["x", "本"])
@pytest.mark.parametrize("has_rich", [True, False])
def test_on_a_terminal_a_row_is_a_line(path: str, has_rich: bool, letter: str) -> None:
    """Of 80 columns, with and without `rich`, of wide characters, too; the value is never cut."""
    with worker(path) as one:
        one.do("count", "/" + 200 * letter, 123456)
        text = _on_terminal(["show", "--path", path, "requests"], has_rich)

    lines = [line for line in text.splitlines() if 3 * letter in line]
    assert len(lines) == 1
    assert len(lines[0]) + lines[0].count("本") <= 80
    assert lines[0].endswith("123456")


def test_a_very_long_label_value_is_cut_at_once(path: str) -> None:
    """The time grows with its length, and not with the square of that."""
    with worker(path) as one:
        one.do("count", 30_000 * "本", 123456)
        begun = time.monotonic()
        text = _on_terminal(["show", "--path", path, "requests"], has_rich=False)

    assert "本...  123456" in text
    assert time.monotonic() - begun < 10


def _on_terminal(arguments: list[str], has_rich: bool) -> str:
    """What a command prints on a terminal of 80 columns."""
    parent, terminal = pty.openpty()
    block = "" if has_rich else "sys.modules['rich'] = sys.modules['rich.console'] = None; "
    program = f"import sys; {block}from sqlmetrics.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=terminal, env=environment) as process:
        os.close(terminal)
        text = b""
        while True:
            try:
                piece = os.read(parent, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            text += piece
        assert process.wait() == 0
    os.close(parent)
    return _without_colours(text.decode())


def _without_colours(text: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_watching_goes_on_until_it_is_interrupted(path: str) -> None:
    """And shows what has changed meanwhile; its status is 0 then."""
    with worker(path) as one:
        one.do("count", "/", 3)
        arguments = [sys.executable, "-m", "sqlmetrics", "show", "--path", path, "--watch", "0.1", "requests"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for wanted in ("3", "7"):
                while process.stdout.readline().split() != ['{path="/"}', wanted]:
                    pass
                one.do("count", "/", 4)
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(timeout=20) == 0


def test_watching_goes_on_while_there_is_no_store(path: str) -> None:
    """It was deleted, say; what is made in its place is shown."""
    with worker(path, flush_interval=0.05) as one:
        one.do("count", "/", 3)
        arguments = [sys.executable, "-m", "sqlmetrics", "show", "--path", path, "--watch", "0.1", "requests"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while process.stdout.readline().split() != ['{path="/"}', "3"]:
                assert process.poll() is None
            one.kill()
            delete(path)
            while "no store at" not in process.stderr.readline():
                assert process.poll() is None
            with worker(path) as two:
                two.do("count", "/", 5)
                while process.stdout.readline().split() != ['{path="/"}', "5"]:
                    assert process.poll() is None
            process.terminate()


def test_a_reader_that_leaves_is_no_error(path: str) -> None:
    """As `head` does."""
    with worker(path) as one:
        one.do("burst", 0, 5000)
        command_line = f"{sys.executable} -m sqlmetrics show --path {path} | head -1"
        done = subprocess.run(["sh", "-c", command_line], check=True, capture_output=True, text=True, timeout=60)

    assert done.stderr == ""


def test_a_bar_is_never_nothing_for_something() -> None:
    """And as wide as it may be for the whole."""
    assert [len(screen.bar(share, 40)) for share in (0.0, 0.001, 0.5, 1.0)] == [0, 1, 20, 40]


def test_a_show_of_nothing_is_no_error(path: str) -> None:
    """A store without metrics."""
    with worker(path):
        wait_for(lambda: os.path.exists(path))
    assert show(path, "--json").status == 0
