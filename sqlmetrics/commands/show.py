"""`sqlmetrics show`: prints series with the values that a scrape would show now."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
import time
from dataclasses import replace

import apsw
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.utils import floatToGoString

from ..errors import SQLMetricsError
from ..outside import words
from ..outside.look import Look
from ..outside.patterns import Pattern, PatternError, among_metrics, among_parts, pattern
from ..outside.values import ENDED, Distribution, FamilyValues, Series, of_families, of_parts
from ..scrape.text import Families, encodable
from . import options, screen

NOTHING = 1
_BAR_WIDTH = 40
_CLEAR = "\x1b[H\x1b[2J"
_HEADS = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Shows series with the values that a scrape would have now. Reads the memory of living processes, not"
        " rows. Changes nothing, and needs only the right to read."
    )
    parser.epilog = (
        "Quantiles are those of PromQL's histogram_quantile(), over all observations so far. Exit status: 0; 1 if"
        " no series matches; 2 if the store cannot be read."
    )
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="the name of a family or a sample, or 'NAME{LABEL=VALUE,...}' in quotes; * stands for anything",
    )
    options.add_store(parser)
    parser.add_argument("--by", choices=["process"], help="each process by itself, if it has counted anything")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--family", action="store_true", help="one line for each family: its type, series and total")
    form.add_argument("--json", action="store_true", help="print JSON, for programs")
    form.add_argument("--csv", action="store_true", help="print CSV: family, type, name, labels, process, value")
    form.add_argument("--openmetrics", action="store_true", help="print what a scrape would get in that format")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=options.seconds_to(86_400),
        const=2.0,
        metavar="SECONDS",
        help="again and again, every 2 s by default",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    patterns = [pattern(text) for text in arguments.patterns]
    if arguments.by and arguments.openmetrics:
        raise PatternError("OpenMetrics has no form for each process by itself; use --csv or --json")
    look = Look(options.place_of(arguments))
    if arguments.watch is None:
        return _show(look, patterns, arguments)
    with contextlib.suppress(KeyboardInterrupt):
        _watch(look, patterns, arguments)
    return 0


def _watch(look: Look, patterns: list[Pattern], arguments: argparse.Namespace) -> None:
    """Print again and again; complain if the store cannot be read for a while, as its files are being made anew."""
    _show(look, patterns, arguments, _CLEAR)
    while True:
        sys.stdout.flush()
        time.sleep(arguments.watch)
        try:
            _show(look, patterns, arguments, _CLEAR)
        except (SQLMetricsError, apsw.Error) as error:
            screen.complain(str(error))


def _show(look: Look, patterns: list[Pattern], arguments: argparse.Namespace, before: str = "") -> int:
    """Print what is wanted, and return the status. before: what a terminal gets first."""
    if arguments.openmetrics:
        return _show_openmetrics(look, patterns)
    remark = ""
    if arguments.by:
        families = of_parts(among_parts(patterns, look.parts()))
    else:
        found = look.families()
        families, remark = of_families(among_metrics(patterns, found.families)), found.remark
    if screen.is_terminal():
        sys.stdout.write(before)
    if remark:
        screen.complain(remark)
    if arguments.json:
        screen.say_json(as_json(look, families, remark))
    elif arguments.csv:
        screen.write(_csv(families).encode())
    else:
        screen.say(f"store  {look.place}")
        _print_overview(families) if arguments.family else _print(families, by_process=bool(arguments.by))
    return _status(look, patterns, bool(families))


def _status(look: Look, patterns: list[Pattern], is_any: bool) -> int:
    """Return the exit status; complain if nothing matches."""
    if is_any or not patterns:
        return 0
    screen.complain(f"no series matches in {look.place}; `sqlmetrics show --family` lists what there is")
    return NOTHING


def _show_openmetrics(look: Look, patterns: list[Pattern]) -> int:
    """Print the exposition; without patterns, exactly the bytes of a scrape."""
    if not patterns:
        screen.write(look.text(openmetrics=True))
        return 0
    metrics = among_metrics(patterns, look.families().families)
    screen.write(generate_latest(Families([encodable(one) for one in metrics])))  # type: ignore[no-untyped-call]
    return _status(look, patterns, bool(metrics))


def as_json(look: Look, families: list[FamilyValues], remark: str) -> dict[str, object]:
    """Return what `--json` prints. Its keys are documented, and must stay."""
    return {
        "store": look.place,
        "remark": remark,
        "families": [
            {
                "name": one.name,
                "type": one.type,
                "help": one.help,
                "unit": one.unit,
                "series": [_series_json(each) for each in one.series],
            }
            for one in families
        ],
    }


def _series_json(series: Series) -> dict[str, object]:
    found: dict[str, object] = {"name": series.name, "labels": series.labels}
    if series.process is not None:
        found |= {"process": series.process, "alive": series.alive}
    if series.timestamp is not None:
        found["timestamp"] = series.timestamp
    return {**found, **({"value": series.value} if series.distribution is None else _summary(series.distribution))}


def _summary(of: Distribution) -> dict[str, object]:
    found: dict[str, object] = {"count": of.count, "sum": of.total, "mean": of.mean}
    if of.buckets:
        found |= {head: of.quantile(q) for head, q in _HEADS.items()}
        found["buckets"] = [{"le": bound, "count": below} for bound, below in of.buckets]
    return found


def _csv(families: list[FamilyValues]) -> str:
    """Return CSV with one line for each sample of a scrape; labels are JSON."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["family", "type", "name", "labels", "process", "value"])
    for family in families:
        for series in family.series:
            for name, labels, value in _samples(series):
                process = series.process or ""
                row = [family.name, family.type, name, json.dumps(labels, sort_keys=True), process]
                lines.writerow([*row, words.number(value)])
    return text.getvalue()


def _samples(series: Series) -> list[tuple[str, dict[str, str], float]]:
    of = series.distribution
    if of is None:
        return [(series.name, series.labels, series.value or 0.0)]
    name, labels = series.name, series.labels
    buckets = [(f"{name}_bucket", {**labels, "le": _bound(bound)}, below) for bound, below in of.buckets]
    return [*buckets, (f"{name}_count", labels, of.count), (f"{name}_sum", labels, of.total)]


def _bound(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _print_overview(families: list[FamilyValues]) -> None:
    rows = [[one.name, one.type, str(len(one.series)), words.number(one.total), one.help] for one in families]
    if rows:
        screen.table(["<FAMILY", "<TYPE", "SERIES", "TOTAL", "<HELP"], rows)


def _print(families: list[FamilyValues], *, by_process: bool) -> None:
    for family in map(_side_by_side, families) if by_process else families:
        screen.say()
        name = family.series[0].name if family.series else family.name
        screen.say(f"{name}  {family.type}  {family.help}".rstrip())
        if any(one.distribution for one in family.series):
            _print_distributions(family, by_process)
        elif family.series:
            rows = [[*_who(one, by_process), words.number(one.value)] for one in family.series]
            screen.table(["<SERIES", *(["<PROCESS"] if by_process else []), "VALUE"], rows)


def _side_by_side(family: FamilyValues) -> FamilyValues:
    """Group the series of a family by labels, so that the values of processes can be compared."""
    together: dict[str, list[Series]] = {}
    for one in family.series:
        together.setdefault(_labels(one), []).append(one)
    return replace(family, series=[one for some in together.values() for one in some])


def _labels(series: Series) -> str:
    return words.label_text(series.labels) or series.name


def _who(series: Series, by_process: bool) -> list[str]:
    """Return the labels and the process; the name is above the table."""
    return [_labels(series), *([_owner(series)] if by_process else [])]


def _owner(series: Series) -> str:
    is_gone = series.alive is False and series.process != ENDED
    return f"{words.printable(series.process or '')}{' (dead)' if is_gone else ''}"


def _print_distributions(family: FamilyValues, by_process: bool) -> None:
    has_buckets = family.type == "histogram"
    heads = [*_HEADS, "<BUCKETS"] if has_buckets else []
    rows = []
    for one in family.series:
        of = one.distribution or Distribution(0.0, 0.0)
        row = [*_who(one, by_process), words.number(of.count), words.short(of.mean)]
        if has_buckets:
            row += [*(words.short(of.quantile(q)) for q in _HEADS.values()), screen.bars(of.densities())]
        rows.append(row)
    screen.table(["<SERIES", *(["<PROCESS"] if by_process else []), "COUNT", "MEAN", *heads], rows, spare="BUCKETS")
    if has_buckets and len(family.series) == 1 and family.series[0].distribution:
        _print_chart(family.series[0].distribution)


def _print_chart(of: Distribution) -> None:
    """Print a bar for each bucket by itself, as a histogram is drawn."""
    densities = of.densities()
    highest = max(densities, default=0.0) or 1.0
    rows = []
    for (bound, _), density in zip(of.buckets, densities, strict=True):
        bar = screen.bar(density / highest, _BAR_WIDTH)
        rows.append([f"<= {words.number(bound)}", words.number(density), bar])
    screen.table(["UP TO", "COUNT", "<"], rows)
