"""What `prometheus_client` is made to do: its metrics, registries and value class lead to cells."""

from . import peer

peer.check()
