"""Measures sqlmetrics beside `prometheus_client`: ``python -m benchmarks`` from the top of a checkout."""
