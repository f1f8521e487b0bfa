"""What the libraries use of `prometheus_client` is what sqlmetrics takes care of, and what their pages say of them."""

from __future__ import annotations

import sys
from collections.abc import Set
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from uses import PEER, VARIABLES, Uses, uses_of

from sqlmetrics.client import patch

_METRICS = "sqlmetrics.operations and sqlmetrics.info_enum replace the methods of its metrics"
_REGISTRIES = "sqlmetrics.registry has registries yield the sum of all processes"
_ASKS = "it asks a registry, and sqlmetrics.registry has registries yield the sum of all processes"
_FORMAT = "it writes what a registry yields, whatever that is"
TAKEN_CARE_OF = {
    **dict.fromkeys(("Counter", "Gauge", "Histogram", "Summary", "metrics.MetricWrapperBase"), _METRICS),
    **dict.fromkeys(("REGISTRY", "CollectorRegistry", "registry.REGISTRY", "registry.Collector"), _REGISTRIES),
    **dict.fromkeys(
        ("start_http_server", "MetricsHandler", "exposition.make_wsgi_app", "exposition._bake_output"), _ASKS
    ),
    **dict.fromkeys(("generate_latest", "openmetrics.exposition.generate_latest"), _FORMAT),
    **dict.fromkeys(("CONTENT_TYPE_LATEST", "openmetrics.exposition.CONTENT_TYPE_LATEST"), _FORMAT),
    **dict.fromkeys(("exposition.choose_encoder", "exposition.choose_formatter"), _FORMAT),
    **dict.fromkeys(
        ("multiprocess.MultiProcessCollector", "multiprocess.mark_process_dead"),
        "sqlmetrics.patch replaces it, before the library is imported",
    ),
}
"""{a name of the peer's: what makes it right where there is a store}"""

LEADS_TO_FILES = {f"{where.__name__.removeprefix(f'{PEER}.')}.{name}" for where, name, _ in patch._REPLACED[:4]}
"""The names in modules of the peer that lead to its mmap files."""
COLLECTOR, DEAD = "multiprocess.MultiProcessCollector", "multiprocess.mark_process_dead"


class Relied(NamedTuple):
    """What the page of a library relies on.

    module: where its source is. distribution: whose version matters.
    imported: the names to the peer's files that it takes by ``from … import``. looked_up: those that it looks up at
        each use. variables: the environment variables that it tests. insides: that are its own, by other objects.
    """

    module: str
    distribution: str
    imported: Set[str] = frozenset()
    looked_up: Set[str] = frozenset()
    variables: Set[str] = frozenset()
    insides: Set[str] = frozenset()


BOTH = set(VARIABLES)
LIBRARIES = {
    "django-prometheus": Relied("django_prometheus", "django-prometheus", looked_up={COLLECTOR}, variables=BOTH),
    "prometheus-flask-exporter": Relied(
        "prometheus_flask_exporter",
        "prometheus-flask-exporter",
        imported={COLLECTOR, DEAD},
        looked_up={COLLECTOR},
        variables=BOTH,
    ),
    "prometheus-fastapi-instrumentator": Relied(
        "prometheus_fastapi_instrumentator",
        "prometheus-fastapi-instrumentator",
        looked_up={COLLECTOR},
        variables=BOTH,
    ),
    "starlette-exporter": Relied(
        "starlette_exporter",
        "starlette-exporter",
        looked_up={COLLECTOR},
        variables=BOTH,
        insides={"_metrics"},  # its middleware's
    ),
    "prometheus-async": Relied("prometheus_async", "prometheus-async"),
    "prometheus_client-django": Relied(f"{PEER}.django", PEER, looked_up={COLLECTOR}, variables=BOTH),
    "prometheus_client-twisted": Relied(f"{PEER}.twisted", PEER),
    "prometheus_client-asgi": Relied(f"{PEER}.asgi", PEER),
    "prometheus_client-aiohttp": Relied(f"{PEER}.aiohttp", PEER),
}
"""By the name of its page."""


def used(relied: Relied) -> Uses:
    """What the library uses, named without the peer's name, and without what is its own."""
    found = uses_of(relied.module)
    imported, looked_up = (
        frozenset(name.removeprefix(f"{PEER}.") for name in names if not name.startswith(f"{relied.module}."))
        for names in (found.imported, found.looked_up)
    )
    return found._replace(imported=imported, looked_up=looked_up)


def where(page: str) -> str:
    """Which release this is, and where to look."""
    relied = LIBRARIES[page]
    return f"{relied.distribution} {version(relied.distribution)} (see docs/how-to/libraries/{page}.md)"


@pytest.mark.parametrize("page", LIBRARIES)
def test_a_library_uses_nothing_that_sqlmetrics_takes_no_care_of(page: str) -> None:
    """A name of the peer's that is new in a library may lead around the store."""
    found = used(LIBRARIES[page])
    new = (found.imported | found.looked_up) - set(TAKEN_CARE_OF)

    assert not new, f"{where(page)} now uses {sorted(new)} of {PEER}; sqlmetrics does nothing about that: is it needed?"


@pytest.mark.parametrize("page", LIBRARIES)
def test_a_library_goes_to_the_files_by_the_names_that_we_know(page: str) -> None:
    """What is imported by name has to be replaced before; what is looked up may be replaced late."""
    relied, found = LIBRARIES[page], used(LIBRARIES[page])

    for kind in ("imported", "looked_up"):
        names, known = getattr(found, kind) & LEADS_TO_FILES, getattr(relied, kind)
        assert names == known, f"{where(page)} has {sorted(names)} {kind} and not {sorted(known)}: " + "; ".join(
            f"{name}: {TAKEN_CARE_OF.get(name)}" for name in sorted(names ^ known)
        )


@pytest.mark.parametrize("page", LIBRARIES)
def test_a_library_tests_the_variables_that_its_page_tells_of(page: str) -> None:
    """With the variable set it asks a collector, else a registry; `sqlmetrics.config` reads both spellings."""
    found = used(LIBRARIES[page]).variables

    assert found == LIBRARIES[page].variables, f"{where(page)} tests {sorted(found)} of the environment"


@pytest.mark.parametrize("page", LIBRARIES)
def test_a_library_keeps_away_from_the_insides(page: str) -> None:
    """Where there is a store, `_value` and its like are other objects than the peer's."""
    found = used(LIBRARIES[page]).insides - LIBRARIES[page].insides

    assert not found, f"{where(page)} now touches {sorted(found)}; with sqlmetrics.patch these are other objects"


SOURCES = {
    "from prometheus_client.multiprocess import MultiProcessCollector": {"imported": {COLLECTOR}},
    "from prometheus_client import multiprocess as m\nm.mark_process_dead(1)": {"looked_up": {DEAD}},
    "import prometheus_client\nprometheus_client.values.MultiProcessValue()": {
        "looked_up": {"values.MultiProcessValue"}
    },
    "import prometheus_client.values as v\nv.ValueClass = v.MutexValue": {
        "looked_up": {"values.ValueClass", "values.MutexValue"}
    },
    "import os\nos.environ.get('PROMETHEUS_MULTIPROC_DIR')": {"variables": {VARIABLES[0]}},
    "def f(counter): return counter._value.get()": {"insides": {"_value"}},
    "import other\nother.multiprocess.MultiProcessCollector": {},
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_source_uses_is_seen(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every style of import."""
    (tmp_path / "some_library").mkdir()
    (tmp_path / "some_library" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_library", raising=False)
    found = used(Relied("some_library", ""))

    assert {kind: set(names) for kind, names in found._asdict().items() if names} == SOURCES[source]
