"""`Info` and `Enum` across processes: whoever spoke last is heard."""

from __future__ import annotations

import signal
import threading

import prometheus_client
import pytest
from freezegun import freeze_time
from helpers import child, hasty_threads, scrape
from prometheus_client import REGISTRY, Enum, Info
from prometheus_client.openmetrics import exposition as openmetrics

import sqlmetrics

pytestmark = pytest.mark.promise(12)


def infos(name: str = "build") -> list[dict[str, str]]:
    """The label sets of an Info that a scrape shows."""
    found = scrape()
    assert all(value == 1 for (sample, _), value in found.items() if sample == f"{name}_info")
    return [dict(labels) for sample, labels in found if sample == f"{name}_info"]


def states(name: str = "task", **labels: str) -> dict[str, float]:
    """The states of an Enum that a scrape shows, and whether each is the one."""
    found = {(sample, frozenset(pairs)): value for (sample, pairs), value in scrape().items() if sample == name}
    return {
        dict(pairs)[name]: value
        for (_, pairs), value in found.items()
        if labels.items() <= dict(pairs).items() and len(pairs) == len(labels) + 1
    }


def test_the_most_recent_info_wins(store: sqlmetrics.Store, shell) -> None:
    """At once, in any process; in the peer's mode there is none."""
    build = Info("build", "Build")
    build.info({"version": "1", "host": "a"})

    with child(say=lambda version: build.info({"version": version})) as one:
        assert infos() == [{"version": "1", "host": "a"}]
        one.do("say", "2")
        assert infos() == [{"version": "2"}]
        build.info({"version": "1", "host": "a"})
        assert infos() == [{"version": "1", "host": "a"}]
        one.do("say", "3")
        one.kill()
    assert infos() == [{"version": "3"}]
    store.flush()
    assert infos() == [{"version": "3"}]
    assert shell("SELECT metric, labels, value FROM metrics WHERE family = 'build'") == [
        {"metric": "build_info", "labels": '{"version":"3"}', "value": 1.0}
    ]


def test_the_most_recent_state_wins(store: sqlmetrics.Store, shell) -> None:
    """And exactly one state is 1."""
    task = Enum("task", "Task", ["job"], states=["starting", "running", "stopped"])

    with child(say=lambda state: task.labels("a").state(state)) as one:
        task.labels("a")
        assert states(job="a") == {"starting": 1, "running": 0, "stopped": 0}
        one.do("say", "running")
        assert states(job="a") == {"starting": 0, "running": 1, "stopped": 0}
        task.labels("a").state("starting")
        assert states(job="a") == {"starting": 1, "running": 0, "stopped": 0}
        one.do("say", "stopped")
        one.kill()
    assert states(job="a") == {"starting": 0, "running": 0, "stopped": 1}
    store.flush()
    assert states(job="a") == {"starting": 0, "running": 0, "stopped": 1}
    assert shell("SELECT labels, value FROM metrics WHERE family = 'task' ORDER BY labels") == [
        {"labels": '{"job":"a","task":"running"}', "value": 0.0},
        {"labels": '{"job":"a","task":"starting"}', "value": 0.0},
        {"labels": '{"job":"a","task":"stopped"}', "value": 1.0},
    ]


def test_a_process_that_only_has_an_enum_does_not_speak(store: sqlmetrics.Store) -> None:
    """The default state of a worker that starts later hides nobody's state."""
    task = Enum("task", "Task", states=["starting", "running"])
    task.state("running")

    def start() -> dict[str, float]:
        REGISTRY.unregister(task)
        Enum("task", "Task", states=["starting", "running"])
        return states()

    with child(start=start) as one:
        assert one.do("start") == {"starting": 0, "running": 1}


def test_an_info_that_was_never_given_is_empty(store: sqlmetrics.Store) -> None:
    """As in memory."""
    Info("build", "Build")

    assert infos() == [{}]
    assert b"build_info 1.0\n" in prometheus_client.generate_latest()


@pytest.mark.parametrize("ended", [False, True], ids=["all processes", "living ones"])
def test_only_the_living_are_heard_on_request(store: sqlmetrics.Store, ended: bool) -> None:
    """By the mode livemostrecent at the scrape."""
    task, build = Enum("task", "Task", states=["on", "off"]), Info("build", "Build")

    def say() -> None:
        task.state("off")
        build.info({"by": "child"})

    task.state("on")
    build.info({"by": "parent"})
    with child(say=say) as one:
        one.do("say")
        one.kill()
    modes = dict.fromkeys(("task", "build"), "livemostrecent") if ended else {}

    text = sqlmetrics.generate_latest(modes=modes).decode()

    assert f'build_info{{by="{"parent" if ended else "child"}"}} 1.0\n' in text
    assert f'task{{task="off"}} {0.0 if ended else 1.0}\n' in text


@freeze_time("2026-01-01")
def test_what_is_said_last_counts_while_the_clock_stands_still(store: sqlmetrics.Store) -> None:
    """Within a process each word is later than the one before."""
    task, build = Enum("task", "Task", states=["on", "off"]), Info("build", "Build")
    for state in ("off", "on", "off"):
        task.state(state)
        assert states()[state] == 1
    for version in ("1", "2", "1"):
        build.info({"version": version})
        assert infos() == [{"version": version}]


def test_both_texts_are_those_of_prometheus_client(store: sqlmetrics.Store) -> None:
    """Byte for byte, in either format, and the default registry shows the same."""
    Info("build", "Build", ["job"]).labels('a"\n').info({"version": "1", "é": "ü"})
    Enum("task", "Task", ["job"], states=["on", 'o"ff']).labels("a").state('o"ff')
    registry = prometheus_client.CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)

    for _ in range(2):
        assert sqlmetrics.generate_latest() == prometheus_client.generate_latest(registry)
        assert sqlmetrics.generate_latest(openmetrics=True) == openmetrics.generate_latest(registry)
        store.flush()
    plain = [
        line for line in prometheus_client.generate_latest().decode().split("\n") if "build" in line or "task" in line
    ]
    assert plain == [line for line in sqlmetrics.generate_latest().decode().split("\n") if line]


def test_errors_are_those_of_prometheus_client(store: sqlmetrics.Store) -> None:
    """And nothing is said then."""
    build, task = Info("build", "Build", ["job"]), Enum("task", "Task", states=["on", "off"])
    with pytest.raises(ValueError, match="Overlapping labels for Info"):
        build.labels("a").info({"job": "b"})
    with pytest.raises(ValueError, match="Label value cannot be None"):
        build.labels("a").info({"version": None})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="not in list"):
        task.state("away")

    assert infos() == [{"job": "a"}]
    assert states() == {"on": 1, "off": 0}


def test_what_was_said_before_install_is_taken_over(path: str) -> None:
    """`uninstall` gives it back."""
    build, task = Info("build", "Build"), Enum("task", "Task", states=["on", "off"])
    other = Enum("other", "Other", ["job"], states=["on", "off"])
    build.info({"version": "1"})
    task.state("off")
    other.labels("a").state("off")
    sqlmetrics.install(path)
    assert infos() == [{"version": "1"}]
    assert states() == {"on": 0, "off": 1}
    assert states("other", job="a") == {"on": 0, "off": 1}
    task.state("on")
    sqlmetrics.uninstall()

    assert REGISTRY.get_sample_value("task", {"task": "on"}) == 1
    assert REGISTRY.get_sample_value("build_info", {"version": "1"}) == 1


@pytest.mark.slow
def test_a_word_that_changes_for_ever_takes_no_room(path: str, shell) -> None:
    """Old label sets of an Info are given back: cells, series and rows stay few."""
    store = sqlmetrics.install(path)
    build = Info("build", "Build")
    sizes = []
    for part in range(4):
        for number in range(2000):
            build.info({"version": f"{part}.{number}"})
            if number % 100 == 0:
                store.flush()
        store.flush()
        blocks = sqlmetrics.MultiProcessCollector(None, self_metrics=True)
        used = next(s.value for m in blocks.collect() for s in m.samples if s.labels.get("limit") == "cell blocks")
        sizes.append((shell.value("SELECT count(*) FROM series"), shell.value("SELECT count(*) FROM cell_copy"), used))

    assert infos() == [{"version": "3.1999"}]
    assert sizes[3] <= (20, 20, sizes[0][2])


@pytest.mark.slow
def test_threads_that_speak_at_once_leave_one_word(path: str, shell) -> None:
    """Each takes back what was said before, also by the others; and none of them fails."""
    store = sqlmetrics.install(path)
    build = Info("build", "Build")
    problems: list[BaseException] = []

    def speak(name: str) -> None:
        try:
            for number in range(1500):
                build.info({"version": name if number % 3 else f"{name}.{number}"})
                build.info({"version": "of all"})
        except BaseException as problem:
            problems.append(problem)

    with hasty_threads():
        threads = [threading.Thread(target=speak, args=[name]) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    build.info({"version": "last"})
    store.flush()

    assert problems == []
    assert infos() == [{"version": "last"}]
    assert shell.value("SELECT count(*) FROM series JOIN family ON family.id = family WHERE type = 'info'") == 1


def test_the_dead_leave_the_last_word_only(path: str, shell) -> None:
    """A deploy each hour with another version must not fill the store."""
    store = sqlmetrics.install(path)
    build = Info("build", "Build")
    for number in range(20):
        with child(say=lambda: build.info({"version": str(number)})) as one:  # noqa: B023
            one.do("say")
            one.kill()
        store.flush()

    assert infos() == [{"version": "19"}]
    assert shell.value("SELECT count(*) FROM series JOIN family ON family.id = family WHERE type = 'info'") <= 2


def test_a_signal_handler_may_speak(store: sqlmetrics.Store) -> None:
    """In the midst of another word."""
    task = Enum("task", "Task", states=["on", "off", "away"])
    heard = []

    def handler(*_: object) -> None:
        heard.append(1)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for number in range(3000):
            task.state(("on", "off")[number % 2])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert heard
    assert states() == {"on": 0, "off": 1, "away": 0}


def test_two_objects_of_one_name_may_say_the_same(path: str) -> None:
    """What one of them takes back stays the other's: its cells are nobody else's."""
    store = sqlmetrics.install(path, flush_interval=0.02)
    one, two = Info("build", "Build"), Info("build", "Build", registry=None)
    one.info({"version": "A"})
    two.info({"version": "A"})
    one.info({"version": "B"})
    churn = Info("churn", "Gives back a block of cells", registry=None)
    for _ in range(2):
        for number in range(700):
            churn.info({"number": str(number)})
        store.flush()
    orders = prometheus_client.Counter("orders", "Orders", ["number"], registry=None)
    for number in range(1500):
        orders.labels(str(number)).inc()

    two.info({"version": "A"})

    assert infos() == [{"version": "A"}]
    assert sum(value for (name, _), value in scrape().items() if name == "orders_total") == 1500


def test_an_enum_with_more_states_than_a_block_has_cells_is_refused(store: sqlmetrics.Store) -> None:
    """More of them are a clear error, and touch nobody's cells."""
    most = Enum("most", "Most", states=[f"s{number}" for number in range(504)])
    counter = prometheus_client.Counter("orders", "Orders")
    counter.inc()
    most.state("s503")

    assert states("most")["s503"] == 1
    assert scrape()["orders_total", ()] == 1
    with pytest.raises(ValueError, match="too_many has 505 states; in a store it can have 504 at most"):
        Enum("too_many", "Too many", states=[f"s{number}" for number in range(505)], registry=None)


def test_an_info_takes_what_prometheus_client_takes(store: sqlmetrics.Store) -> None:
    """Names and values that are no texts become texts."""
    Info("build", "Build").info({1: "a", "b": 2})  # type: ignore[dict-item]

    assert infos() == [{"1": "a", "b": "2"}]
