"""What was removed cannot be read in any of the store's files, whoever had it and wherever it lay."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from erased import CARELESS, MARK, places, program, wait_until_erased
from helpers import child, in_child, scrape, value, wait_for
from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily

import sqlmetrics

pytestmark = [pytest.mark.promise(11), pytest.mark.store(flush_interval=0.05)]


REMOVALS: dict[str, Callable[[Counter], object]] = {
    "remove": lambda metric: metric.remove(MARK),
    "remove_by_labels": lambda metric: metric.remove_by_labels({"user": MARK}),
    "clear": lambda metric: metric.clear(),
}


@pytest.fixture(params=REMOVALS)
def remove(request: pytest.FixtureRequest) -> Callable[[Counter], object]:
    """One of the ways to remove a child."""
    return REMOVALS[request.param]


def test_a_removed_child_that_only_its_remover_had_is_erased(store: sqlmetrics.Store, path: str, remove) -> None:
    """Its journal, its rows and the WAL had it."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels(MARK).inc()
    store.flush()
    assert "-cells" in places(path)
    assert "-wal" in places(path)

    remove(logins)

    assert "-cells" not in places(path)
    wait_until_erased(path)


def test_a_removed_child_that_others_have_too_is_erased(store: sqlmetrics.Store, path: str, remove) -> None:
    """One that counts other things meanwhile, one that does nothing at all, and the one that forked them."""
    logins = Counter("logins", "Logins", ["user"])

    def count(user: str) -> None:
        logins.labels(user).inc()

    count(MARK)
    with (
        child(count=count) as busy,
        child(count=count) as idle,
        child(remove=lambda: remove(logins) and None) as remover,
    ):
        for one in (busy, idle):
            one.do("count", MARK)
        wait_for(lambda: "-wal" in places(path))
        found = dict(line.split() for line in places(path).splitlines())
        assert int(found["-cells"]) >= 3
        remover.do("remove")
        assert "-cells" not in places(path)
        busy.do("count", "other")
        wait_until_erased(path)
        busy.do("count", "another")
        wait_until_erased(path)
        assert MARK not in str(scrape())


def test_a_removed_child_of_processes_that_ended_is_erased(store: sqlmetrics.Store, path: str, remove) -> None:
    """One was killed, one ended in order; one of them nobody has settled."""
    logins = Counter("logins", "Logins", ["user"])
    with child(count=lambda: logins.labels(MARK).inc()) as one:
        one.do("count")
        one.kill()
    in_child(lambda: logins.labels(MARK).inc())
    assert value("logins_total", user=MARK) == 2

    with child(count=lambda: logins.labels(MARK).inc()) as last:
        last.do("count")
        last.kill()
    assert places(path)
    remove(logins)

    wait_until_erased(path)


def test_children_that_come_and_go_all_the_time_are_erased(store: sqlmetrics.Store, path: str) -> None:
    """Pages are split and joined, and extents and cells given out again; what stays is right."""
    logins = Counter("logins", "Logins", ["user"])
    latency = Histogram("latency", "Latency", ["user"])
    texts = [f"{'x' * (number * 7 % 90)}-{MARK}-{number}" for number in range(600)]
    for number, text in enumerate(texts):
        logins.labels(text).inc()
        latency.labels(f"keep-{number}-{'y' * (number * 11 % 90)}").observe(1)
        if number >= 50:
            logins.remove(texts[number - 50])
    store.flush()
    assert places(path)
    for text in texts[-50:]:
        logins.remove(text)

    wait_until_erased(path)
    assert sum(amount for (name, _), amount in scrape().items() if name == "latency_count") == 600


def test_pages_are_overwritten_where_they_are(store: sqlmetrics.Store, path: str) -> None:
    """Also in a store that is too large to be written anew: only the WAL has to be cut off."""
    logins = Counter("logins", "Logins", ["user"])
    for number in range(200):
        logins.labels(f"{MARK} {number}").inc()
    store.flush()
    store.file.rebuilding.rest(1000)
    assert places(path)
    for number in range(200):
        logins.remove(f"{MARK} {number}")

    wait_until_erased(path)
    assert not store.file.rebuilding.is_done()


def test_copies_that_no_row_leads_to_are_erased(store: sqlmetrics.Store, path: str) -> None:
    """SQLite leaves some where it splits pages, and so does who deletes rows in a shell: all pages are written anew."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels("a").inc()
    with program(CARELESS, path):
        store.flush()
    assert "database" in places(path)

    logins.remove("a")

    wait_until_erased(path)


def test_exemplars_of_a_removed_series_are_erased(store: sqlmetrics.Store, path: str) -> None:
    """Of one process that goes on, and of one that has one waiting in its memory."""
    logins = Counter("logins", "Logins", ["user"])

    def count(trace: str) -> None:
        logins.labels("a").inc(exemplar={"trace": trace})

    count("first")
    with child(count=count) as one:
        for trace in (f"{MARK}-1", f"{MARK}-2", f"{MARK}-3"):
            one.do("count", trace)
            count(trace)
        assert places(path)
        logins.remove("a")
        wait_until_erased(path)
        logins.labels("b").inc()
        store.flush()
        wait_until_erased(path)


def test_exemplars_of_a_counter_that_is_reset_are_erased(store: sqlmetrics.Store, path: str) -> None:
    """Counter.reset() begins the child anew: its labels stay, what was observed does not."""
    logins = Counter("logins", "Logins", ["user"])
    logins.labels("a").inc(exemplar={"trace": MARK})
    store.flush()
    assert places(path)

    logins.labels("a").reset()

    wait_until_erased(path)
    assert value("logins_total", user="a") == 0


def test_exemplars_that_newer_ones_replaced_are_erased(store: sqlmetrics.Store, path: str) -> None:
    """They go when those that are too old go, once a minute."""
    logins = Counter("logins", "Logins")
    logins.inc(exemplar={"trace": MARK})
    store.flush()
    logins.inc(exemplar={"trace": "newer"})
    store.flush()
    assert places(path)

    store.file.sweeping.rest(0)

    wait_until_erased(path)


def test_what_an_info_said_before_is_erased(store: sqlmetrics.Store, path: str) -> None:
    """What an Info said before goes when it says something else."""
    info = Info("build", "Build", ["host"])
    info.labels("a").info({"owner": MARK})
    store.flush()
    assert places(path)

    info.labels("a").info({"owner": "somebody"})

    wait_until_erased(path)
    assert value("build_info", host="a", owner="somebody") == 1


def test_gauges_that_a_published_collector_drops_are_erased(store: sqlmetrics.Store, path: str) -> None:
    """They leave with the flush that asks it."""

    class Sessions:
        users = (MARK, "other")

        def collect(self) -> Iterator[GaugeMetricFamily]:
            family = GaugeMetricFamily("sessions", "Sessions", labels=["user"])
            for user in self.users:
                family.add_metric([user], 1)
            yield family

    sessions = Sessions()
    sqlmetrics.publish(sessions)
    Counter("logins", "Logins").inc()
    wait_for(lambda: places(path))

    sessions.users = ("other",)

    wait_until_erased(path)


def test_a_removal_leaves_no_numbers(store: sqlmetrics.Store, path: str) -> None:
    """The cells of a child are zero in each process that had it, though they are not given out again yet."""
    amount = 1234567.890625
    counted = Gauge("counted", "Counted", ["user"], multiprocess_mode="sum")
    counted.labels("a").set(amount)

    def count() -> None:
        counted.labels("a").set(amount)

    with child(count=count) as idle:
        idle.do("count")
        counted.labels("b").set(1)  # so there is a flusher here, too
        assert "-cells" in places(path, struct.pack("=d", amount))
        counted.remove("a")
        wait_for(lambda: not places(path, struct.pack("=d", amount)))
        idle.do("count")
        assert value("counted", user="a") == amount
        assert value("counted", user="b") == 1


def test_what_is_made_again_is_there_again(store: sqlmetrics.Store, path: str) -> None:
    """Nothing that is written later is taken for what was removed."""
    logins = Counter("logins", "Logins", ["user"])
    for amount in range(1, 6):
        logins.labels(MARK).inc(amount)
        in_child(lambda: logins.labels("other").inc())
        assert value("logins_total", user=MARK) == amount
        logins.remove(MARK)
        wait_until_erased(path)
    logins.labels(MARK).inc(9)
    store.flush()
    assert value("logins_total", user=MARK) == 9
    assert value("logins_total", user="other") == 5
