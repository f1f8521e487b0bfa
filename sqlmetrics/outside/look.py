"""A look at a store from outside: it changes no file, settles no dead process, and migrates no older schema."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import apsw
from prometheus_client import exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_text
from prometheus_client.samples import Sample

from .. import config
from ..cells import ownership
from ..errors import DamagedError, SchemaError
from ..rows import onlooking, schema
from ..rows.damage import unreadable
from ..rows.database import NoDatabaseError
from ..scrape.families import FamilySamples
from ..scrape.members import Member
from ..scrape.parts import Part
from ..scrape.reader import Question, Reader
from ..scrape.reading import Scrape
from ..scrape.text import Encoder, texts
from ..scrape.wanted import Wanted, wanted
from .place import Place

T = TypeVar("T")
SELECT_METRICS = "SELECT family, type, metric, labels, value FROM metrics"
ROWS_ONLY = "the values are those of the rows, as old as the last flush"


@dataclass(frozen=True)
class Found:
    """What was read. remark: why these are not the present values of living processes; '' if they are."""

    families: list[Metric]
    remark: str = ""


class Look:
    """Answers the questions of commands about one store.

    If the cells file is missing, or from an earlier boot of the machine, only rows are left: values, but no processes.
    The methods raise NoStoreError, PathError, StoreError or apsw.Error.
    """

    def __init__(self, place: Place):
        gid = settings().gid()
        if gid >= 0:
            ownership.share(place.path, gid)
        self.place = place
        self._reader = Reader(place.path, _connect_to_current)

    def close(self) -> None:
        """Close the connection. The next question opens another one."""
        self._reader.close()

    def families(self, names: Iterable[str] | None = None, *, self_metrics: bool = False) -> Found:
        """Return all families, or those with samples of these names, with the values that a scrape would show now."""
        asked = wanted(names, self_metrics=self_metrics)
        try:
            return Found(self.scrape(asked, lambda families, _: [one.metric() for one in families]))
        except DamagedError as error:
            found = self._from_rows(error, SELECT_METRICS)
            return Found(_families_of_rows(found, asked), f"{error}; {ROWS_ONLY}")

    def text(self, *, openmetrics: bool = False, self_metrics: bool = False) -> bytes:
        """Return the exposition in UTF-8: the text format 0.0.4, or OpenMetrics 1.0."""
        encoder: Encoder = partial(openmetrics_text.generate_latest) if openmetrics else exposition.generate_latest
        return self.encoded(encoder, wanted(self_metrics=self_metrics))

    def encoded(self, encoder: Encoder, asked: Wanted) -> bytes:
        """Return the exposition of what is wanted, as this encoder of `prometheus_client` writes it."""
        return self.scrape(asked, lambda families, kept: texts(kept, encoder).text(families))

    def parts(self, names: Iterable[str] | None = None) -> list[Part]:
        """Return each process's part of the values that a scrape adds up."""
        return self.ask(wanted(names), lambda scrape: scrape.parts())

    def members(self) -> list[Member]:
        """Return the processes: those that are not settled, and those remembered for their `all` gauges."""
        return self.ask(Wanted(), lambda scrape: scrape.members())

    def children(self) -> dict[tuple[str, str], list[dict[str, str]]]:
        """Return the app's labels of each child, by name and type of its family."""
        return self.ask(Wanted(), lambda scrape: scrape.children())

    def ask(self, asked: Wanted, answer: Callable[[Scrape], T]) -> T:
        """Return what `answer` makes of a scrape, within its read transaction."""
        return self._reader.ask(Question(asked, answer, lambda found, _: found))

    def rows(self, sql: str, *bound: Any) -> list[Any]:
        """Return the rows of a query to the database."""
        try:
            with contextlib.closing(onlooking.connect(self.place.path)) as connection:
                found: list[Any] = connection.execute(sql, bound).fetchall()
                return found
        except (UnicodeDecodeError, NoDatabaseError) as error:
            raise unreadable(error, self.place.path) from error

    def scrape(self, asked: Wanted, finish: Callable[[list[FamilySamples], dict[object, Any]], T]) -> T:
        """Return what `finish` makes of the wanted families; see `Reader.read`."""
        return self._reader.read(asked, own={} if asked.self_metrics else None, finish=finish)

    def _from_rows(self, error: DamagedError, sql: str) -> list[Any]:
        try:
            return self.rows(sql)
        except (apsw.Error, DamagedError):
            raise error from None


def _connect_to_current(path: str) -> onlooking.Onlooking:
    """Open a connection for a reader. Raises SchemaError for a store that this version must migrate to read it."""
    connection = onlooking.connect(path)
    try:
        version = schema.check(connection, path)
        if 0 < version < schema.schema_version():
            raise SchemaError(
                f"{path}: the store has schema {version}, and this sqlmetrics would have to bring it to"
                f" {schema.schema_version()} to read it; look with the version that the app uses"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def settings() -> config.Settings:
    """Return the settings of the environment, without the process identifier: a command is no process of the app.

    The environment may be that of the app's unit; its function could only be found by an import of the app. Raises
    ValueError for a setting that cannot be used.
    """
    return config.settings(process_identifier=os.getpid)


def _families_of_rows(rows: Iterable[Any], asked: Wanted) -> list[Metric]:
    """Return the rows of the view `metrics` as families, without help texts."""
    found: dict[tuple[str, str], Metric] = {}
    for family, type_, name, labels, value in rows:
        if asked.names is None or name in asked.names:
            metric = found.setdefault((family, type_), Metric(family, "", type_))
            metric.samples.append(Sample(name, json.loads(labels), float("nan") if value is None else value))
    return list(found.values())
