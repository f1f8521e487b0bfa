"""The exporter: a process of its own that answers scrapes of a store in which others count, and serves a page about it.

`sqlmetrics.commands.serve` is its command line. `app` has the routes; only `server` needs uvicorn.
"""
