"""The same operations on sqlmetrics and on the peer, `prometheus_client`'s own multiprocess mode.

Every process of a run holds each metric twice: once from `prometheus_client` as sqlmetrics changes it, and once from
a second copy of the package that nothing has touched. So both sides see the same operations, pids, forks and deaths.

Amounts are multiples of 1/8, whose sums are exact in any order.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from glob import glob
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import prometheus_client
from helpers import Child, Shell, flush_all, in_child
from prometheus_client.openmetrics import exposition as openmetrics

import sqlmetrics

MODES = tuple(live + mode for live in ("", "live") for mode in ("all", "min", "max", "sum", "mostrecent"))
MOST_PROCESSES = 6
SPECIAL = {1: math.nan, 2: math.inf, 3: -math.inf}
BUCKETS = (
    (-1.0, 0.0, 2.5, 10.0),
    (0.125, 2.5, 8.0, 1e21),
    (float("-inf"), 0.0, 5e-324, 12345678.0),
    (2.0, math.inf),
    tuple(number / 8 for number in range(-120, 120)),  # more than fit into one journal record
)
HELPS = ("", "Help", 'a "quoted"\\ text\nof two lines', "\0", "zażółć 🎉\u2028", "\ud83d\ude00 or \udc00", "'); --")
WEIGHTS = {"add": 14, "take": 4, "set": 8, "touch": 1, "look": 2, "compare": 4, "fork": 4}
WEIGHTS |= {"kill": 2, "leave": 2, "view": 1}
ACTIONS = tuple(action for action, weight in WEIGHTS.items() for _ in range(weight))


class Spec(NamedTuple):
    """A metric of a run: made by the first process before it forks, or (late) by each process for itself."""

    kind: str
    name: str
    labelnames: tuple[str, ...]
    mode: str
    late: bool


class Step(NamedTuple):
    """One step of a run; the numbers are taken modulo what there is to choose from."""

    action: str
    who: int
    metric: int
    labels: int
    amount: int


class Scenario(NamedTuple):
    """All that a run does. texts: the label values."""

    texts: tuple[object, ...]
    flush_interval: float
    late_install: bool
    steps: tuple[Step, ...]


def _specs(late: bool) -> Iterable[Spec]:
    when = "late_" if late else ""
    for mode in MODES:
        yield Spec("Gauge", f"{when}gauge_{mode}", ("b", "a"), mode, late)
        yield Spec("Gauge", f"{when}plain_{mode}", (), mode, late)
    for kind in ("Counter", "Summary", "Histogram"):
        yield Spec(kind, f"{when}{kind}", ("path", "Method"), "", late)
        yield Spec(kind, f"{when}plain_{kind}", (), "", late)
    yield Spec("Counter", when + "odd.“name”\\ '\"\n", ("le", "pid", '$.a"b\\'), "", late)
    yield Spec("Histogram", when + "odd histogram", ("pid", "é", "a.b"), "", late)


SPECS = (*_specs(late=False), *_specs(late=True))


def _second_copy() -> ModuleType:
    """Import `prometheus_client` once more, apart from the one that everybody else uses."""
    first = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "prometheus_client"}
    for name in first:
        del sys.modules[name]
    try:
        copy = importlib.import_module("prometheus_client")
        importlib.import_module("prometheus_client.multiprocess")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
            del sys.modules[name]
        sys.modules.update(first)
    return copy


peer = _second_copy()


def run(scenario: Scenario) -> list[str]:
    """Play a scenario in processes of its own; returns what was different, at the first step where anything was."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sqlmetrics-test-", dir=shm) as folder:
        return in_child(lambda: _Run(scenario, folder).play())  # type: ignore[return-value]


class _Run:
    """The first process of a run, which tells all others what to do."""

    def __init__(self, scenario: Scenario, folder: str):
        self.scenario = scenario
        self.first = Process(scenario, folder)
        self.paths: list[tuple[int, ...]] = [()]

    def play(self) -> list[str]:
        """Take each step, and compare once more at the end."""
        last = [Step(action, 0, 0, 0, 0) for action in ("compare", "view")]
        for number, step in enumerate([*self.scenario.steps, *last]):
            if different := self._take(step):
                return [f"step {number}, {step}:", *different]
        while len(self.paths) > 1:
            self._end(self.paths[-1], "kill")
        return []

    def _take(self, step: Step) -> object:
        path = self.paths[step.who % len(self.paths)]
        if step.action == "compare":
            return self.first.order(path, "compare")
        if step.action == "view":
            for each in self.paths:
                self.first.order(each, "flush")
            return self.first.compare_view()
        if step.action == "fork":
            if len(self.paths) < MOST_PROCESSES:
                self.paths.append((*path, self.first.order(path, "fork", len(self.paths))))  # type: ignore[arg-type]
        elif step.action in ("kill", "leave"):
            if path:
                self._end(path, step.action)
        else:
            return self.first.order(path, "use", *step)
        return None

    def _end(self, path: tuple[int, ...], how: str) -> None:
        """End a process, its descendants first: only a parent can wait for a death."""
        family = [other for other in self.paths if other[: len(path)] == path]
        for one in sorted(family, key=len, reverse=True):
            self.first.order(one[:-1], "end", one[-1], how)
            self.paths.remove(one)


class Process:
    """One process of a run: its metrics on both sides, and its children."""

    def __init__(self, scenario: Scenario, folder: str):
        self.scenario = scenario
        self.number = 0
        self.children: list[Child] = []
        self.metrics: dict[str, tuple[Any, Any]] = {}
        self.path = f"{folder}/metrics.sqlite3"
        self.peer_folder = os.environ["PROMETHEUS_MULTIPROC_DIR"] = f"{folder}/peer"
        Path(self.peer_folder).mkdir()
        peer.values.ValueClass = peer.values.MultiProcessValue()
        early = [spec for spec in SPECS if not spec.late]
        for spec in early if scenario.late_install else ():
            self._make(spec)
        self.store = sqlmetrics.install(self.path, flush_interval=scenario.flush_interval)
        for spec in early if not scenario.late_install else ():
            self._make(spec)

    def _make(self, spec: Spec) -> tuple[Any, Any]:
        # One help text for all processes: where they differ, the peer's answer depends on the order of its files.
        help_text = HELPS[SPECS.index(spec) % len(HELPS)]
        which = {"multiprocess_mode": spec.mode} if spec.mode else {}
        if spec.kind == "Histogram":
            which["buckets"] = BUCKETS[self.number % len(BUCKETS)]
        sides = (prometheus_client, peer)
        arguments = (spec.name, help_text, spec.labelnames[:: -1 if self.number % 2 else 1])
        ours, theirs = (getattr(side, spec.kind)(*arguments, registry=None, **which) for side in sides)
        return self.metrics.setdefault(spec.name, (ours, theirs))

    def order(self, path: Iterable[int], name: str, *arguments: object) -> object:
        """Have a step done by this process, or by the descendant at the end of a path of child numbers."""
        if path:
            index, *rest = path
            return self.children[index].do("order", rest, name, *arguments)
        return getattr(self, name)(*arguments)

    def fork(self, number: int) -> int:
        """Start a child; returns its place among the children."""
        one = Child()
        if one.in_child:
            self.number, self.children = number, []
            one.serve(order=self.order, leave=lambda: os._exit(0))
        self.children.append(one)
        return len(self.children) - 1

    def end(self, index: int, how: str) -> None:
        """End a child by SIGKILL or `os._exit`, and tell both sides, as gunicorn's `child_exit` does."""
        one = self.children[index]
        if how == "leave":
            print(json.dumps(["leave", []]), file=one._out, flush=True)
        else:
            os.kill(one.pid, signal.SIGKILL)
        os.waitpid(one.pid, 0)
        sqlmetrics.mark_process_dead(one.pid)
        peer.multiprocess.mark_process_dead(one.pid)

    def flush(self) -> None:
        """Bring everything into rows: again while another process holds the write lock."""
        flush_all(self.store)

    def use(self, action: str, _who: int, metric: int, labels: int, amount: int) -> list[str]:
        """Do one operation on both sides; returns what is different in this process's own samples ("look")."""
        spec = SPECS[metric % len(SPECS)]
        seen = []
        for one in self.metrics.get(spec.name) or self._make(spec):
            child = self._child(one, labels)
            _operate(spec, child, action, SPECIAL.get(amount, (amount - 40) / 8))
            if action == "look":
                # Without the time at which each side made its own object; no scrape shows that.
                own = _flat(child.collect()).items()
                seen.append({key: value for key, value in own if not str(key[3]).endswith("_created")})
        return _differences(*seen) if seen else []

    def _child(self, metric: Any, labels: int) -> Any:
        if not metric._labelnames:
            return metric
        texts = self.scenario.texts
        chosen = {name: texts[(labels >> 2 * at) % len(texts)] for at, name in enumerate(sorted(metric._labelnames))}
        return metric.labels(**chosen) if labels % 2 else metric.labels(*map(chosen.get, metric._labelnames))

    def compare(self) -> list[str]:
        """What is different between the two scrapes, or between the texts that are written of ours."""
        expected = self._nan_wins(_flat(peer.multiprocess.MultiProcessCollector(None).collect()))
        different = _differences(_flat(sqlmetrics.MultiProcessCollector(None).collect()), expected)
        return different or self.compare_texts()

    def _nan_wins(self, scraped: dict[Any, object]) -> dict[Any, object]:
        """The choice of ours: in the peer, NaN is the min and max only if its file is read first."""
        files = peer.multiprocess.MultiProcessCollector._read_metrics(glob(f"{self.peer_folder}/*.db"))
        for metric in files.values():
            if metric.type == "gauge" and metric._multiprocess_mode in ("min", "livemin", "max", "livemax"):
                for sample in metric.samples:
                    if math.isnan(sample.value):
                        labels = frozenset(pair for pair in sample.labels if pair[0] != "pid")
                        scraped[(metric.name, metric.type, metric.documentation, sample.name, labels)] = "NaN"
        return scraped

    def compare_texts(self) -> list[str]:
        """What is different between our own texts and those that the peer writes of our collector, in both formats."""
        registry = prometheus_client.CollectorRegistry()
        sqlmetrics.MultiProcessCollector(registry)
        different = []
        for ours, write in (
            (sqlmetrics.generate_latest(), prometheus_client.generate_latest),
            (sqlmetrics.generate_latest(openmetrics=True), openmetrics.generate_latest),
        ):
            with suppress(UnicodeEncodeError):  # lone surrogates, of which ours writes escapes
                different += _differences(_lines(ours), _lines(write(registry)))
        return different

    def compare_view(self) -> list[str]:
        """What is different between our scrape and the view of it that people read with the sqlite3 shell."""
        shown = {}
        for row in Shell(self.path)("SELECT family, type, metric, labels, value FROM metrics"):
            labels = frozenset(json.loads(str(row["labels"])).items())
            shown[(row["family"], row["type"], row["metric"], labels)] = "NaN" if row["value"] is None else row["value"]
        scraped = _flat(sqlmetrics.MultiProcessCollector(None).collect())
        # The view has a row for each sample: no help texts, and nothing of a family without any.
        samples = {(name, type_, *key): value for (name, type_, _, *key), value in scraped.items() if key[0]}
        return _differences(shown, samples)


def _lines(text: bytes) -> dict[Any, object]:
    return dict(enumerate(text.decode().split("\n")))


def _operate(spec: Spec, child: Any, action: str, amount: float) -> None:
    if action in ("touch", "look"):
        return
    if spec.kind in ("Summary", "Histogram"):
        child.observe(amount)
    elif spec.kind == "Counter":
        child.inc(abs(amount))  # and no reset(), which in the peer is about this process's own part only
    elif action == "set" or "mostrecent" in spec.mode:
        child.set(amount)
    else:
        child.inc(amount) if action == "add" else child.dec(amount)


def _flat(families: Iterable[Any]) -> dict[Any, object]:
    """{(family, type, help, sample, labels): value}, and one key for each family even if it has no sample."""
    flat: dict[Any, object] = {}
    for family in families:
        head = (family.name, family.type, family.documentation)
        flat[(*head, None, frozenset())] = None
        for sample in family.samples:
            key = (*head, sample.name, frozenset(sample.labels.items()))
            assert key not in flat, f"{key} is there twice"
            flat[key] = "NaN" if math.isnan(sample.value) else sample.value
    return flat


def _differences(ours: dict[Any, object], theirs: dict[Any, object]) -> list[str]:
    pairs = [(key, ours.get(key, "nothing"), theirs.get(key, "nothing")) for key in {**ours, **theirs}]
    # Escaped: label values with lone surrogates cannot be printed.
    return [f"{key!a}: {one!r}, not {other!r}" for key, one, other in pairs if one != other][:10]
