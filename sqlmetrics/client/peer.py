"""Checks that `prometheus_client` has all names that this package replaces and calls."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

KNOWN = ("0.25", "0.26")
"""The oldest and the newest series of `prometheus_client` with which this version was tested."""
NEEDED = {
    "": "CONTENT_TYPE_LATEST CollectorRegistry Counter Enum GCCollector GC_COLLECTOR Gauge Histogram Info"
    " PLATFORM_COLLECTOR PROCESS_COLLECTOR PlatformCollector ProcessCollector REGISTRY Summary",
    ".exposition": "choose_encoder gzip_accepted generate_latest make_wsgi_app start_http_server",
    ".metrics": "MetricWrapperBase _build_full_name _validate_exemplar",
    ".metrics.Counter": "_metric_init inc reset",
    ".metrics.Enum": "__init__ _metric_init state",
    ".metrics.Gauge": "_metric_init dec inc set set_function",
    ".metrics.Histogram": "_metric_init observe",
    ".metrics.Info": "_metric_init info",
    ".metrics.MetricWrapperBase": "__init__ clear labels remove remove_by_labels",
    ".metrics.Summary": "_metric_init observe",
    ".metrics_core": "METRIC_TYPES Metric",
    ".multiprocess": "MultiProcessCollector mark_process_dead",
    ".multiprocess.MultiProcessCollector": "__init__ _accumulate_metrics _read_metrics collect merge",
    ".openmetrics.exposition": "generate_latest",
    ".registry": "CollectorRegistry RestrictedRegistry",
    ".registry.CollectorRegistry": "__init__ _get_names collect register unregister",
    ".registry.RestrictedRegistry": "collect",
    ".samples": "Exemplar Sample",
    ".utils": "floatToGoString",
    ".values": "MultiProcessValue MutexValue ValueClass",
}
"""What the package imports from its modules, and replaces in its classes, by the end of their names."""


def check() -> None:
    """Raise ImportError that names what is missing."""
    for where, names in NEEDED.items():
        try:
            found = _find(f"prometheus_client{where}")
        except (ImportError, AttributeError) as error:
            raise ImportError(unknown(f"prometheus_client{where}")) from error
        for name in names.split():
            if name not in vars(found):
                raise ImportError(unknown(f"prometheus_client{where}.{name}"))


def _find(dotted: str) -> object:
    """A module, or a class in one."""
    module, _, name = dotted.rpartition(".")
    return getattr(import_module(module), name) if name[:1].isupper() else import_module(dotted)


def unknown(what: str) -> str:
    """Return the message for a missing name."""
    oldest, newest = KNOWN
    try:
        found = version("prometheus_client")
    except PackageNotFoundError:  # a copy in a folder
        found = "of this environment"
    return (
        f"prometheus_client {found} has no {what}, which sqlmetrics needs; this version of sqlmetrics knows"
        f" {oldest} to {newest}: upgrade sqlmetrics, or install 'prometheus_client=={newest}.*'"
    )
