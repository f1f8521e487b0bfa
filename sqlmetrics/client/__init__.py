"""The side of `prometheus_client`: its metrics, registries and value class, changed to count in cells."""

from . import peer

peer.check()
