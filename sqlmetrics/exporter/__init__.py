"""The exporter: a process of its own that answers scrapes of a store that others count in, and shows a page of it.

`sqlmetrics.commands.serve` is its command line. `app` has the routes; only `server` needs uvicorn.
"""
