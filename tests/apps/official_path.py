# The official page's registry with a path of its own; only where `multiprocess` is imported from is another,
# and the path, which is the first argument of the program.
# ruff: noqa
# fmt: off
import sys

from sqlmetrics import multiprocess
from prometheus_client import CollectorRegistry, generate_latest

registry = CollectorRegistry(support_collectors_without_names=True)
collector = multiprocess.MultiProcessCollector(registry, path=sys.argv[1])

print(generate_latest(registry).decode())
