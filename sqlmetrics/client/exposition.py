"""The exposition text of a store, for `generate_latest` and the apps of `web`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial

from prometheus_client import exposition as plain
from prometheus_client.openmetrics import exposition as openmetrics_text

from ..scrape.reader import Reader
from ..scrape.text import Encoder, texts
from ..scrape.wanted import Wanted, wanted
from ..store import installed as stores


def generate_latest(
    path: str | os.PathLike[str] | None = None,
    *,
    openmetrics: bool = False,
    escaping: str = "underscores",
    names: Iterable[str] | None = None,
    self_metrics: bool | None = None,
    modes: Mapping[str, str] | None = None,
) -> bytes:
    """Return what all processes of a store have counted, as exposition text in UTF-8.

    `prometheus_client.generate_latest` returns the same for a registry with a `MultiProcessCollector`, but takes
    several times as long.

    path: the store's file or folder; default: the installed store, else what the environment names.
    openmetrics: OpenMetrics 1.0 instead of the Prometheus text format 0.0.4.
    escaping: how to write names with other than the classic characters: underscores, dots, values or allow-utf-8.
    names: the names of the samples that you want, such as ``requests_total``; default: all.
    self_metrics: whether to show the families about the store itself (``sqlmetrics_…``), too; default: what
        ``SQLMETRICS_SELF_METRICS`` says.
    modes: by the name of a gauge, the multiprocess mode to show it in; default: what ``SQLMETRICS_MODES`` says.

    Raises PathError if nothing names a path, NoStoreError if there is no store, StoreError if it cannot read the store.
    """
    encoder = partial(openmetrics_text.generate_latest if openmetrics else plain.generate_latest, escaping=escaping)
    return encode(stores.reader(path), encoder, wanted(names, self_metrics=self_metrics, modes=modes))


def encode(reader: Reader, encoder: Encoder, asked: Wanted) -> bytes:
    """Scrape, and return the text that this encoder of `prometheus_client` writes. Raises NoStoreError, StoreError."""
    return stores.scrape(reader, asked, lambda shown, kept: texts(kept, encoder).text(shown))
