# The official page's gauge, as it stands there.
# ruff: noqa
# fmt: off
from prometheus_client import Gauge

# Example gauge
IN_PROGRESS = Gauge("inprogress_requests", "help", multiprocess_mode='livesum')
