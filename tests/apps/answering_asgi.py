"""The app of `answering` as an ASGI app."""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, generate_latest


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    path = scope["path"]
    if path == "/fails":
        raise ValueError(path)
    status, body = 404 if path == "/missing" else 200, generate_latest(REGISTRY) if path == "/metrics" else b"done\n"
    headers = [(b"x-worker", str(os.getpid()).encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
