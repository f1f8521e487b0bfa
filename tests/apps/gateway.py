"""A Pushgateway for tests: it keeps the text of each job, and shows all with the labels of their groups."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

GROUPS: dict[str, str] = {}


class FamilySamples:
    """All groups as one collector."""

    def collect(self):
        """Yield the families of each group, with its labels."""
        for path, text in GROUPS.items():
            parts = path.removeprefix("/metrics/").split("/")
            labels = dict(zip(parts[::2], parts[1::2], strict=True))
            for family in text_string_to_metric_families(text):
                family.samples = [one._replace(labels={**one.labels, **labels}) for one in family.samples]
                yield family


class Handler(BaseHTTPRequestHandler):
    """The verbs of a Pushgateway."""

    def do_GET(self):
        """Show all."""
        registry = CollectorRegistry()
        registry.register(FamilySamples())
        self.answer(generate_latest(registry))

    def do_PUT(self):
        """Replace a group."""
        GROUPS[self.path] = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(b"")

    def do_POST(self):
        """Replace a group, too: a real one keeps other families of it."""
        self.do_PUT()

    def do_DELETE(self):
        """Drop a group."""
        GROUPS.pop(self.path, None)
        self.answer(b"")

    def answer(self, body: bytes) -> None:
        """Send it."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
