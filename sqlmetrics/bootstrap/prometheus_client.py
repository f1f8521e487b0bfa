"""What `import prometheus_client` finds where another `sitecustomize` hides ours; see `sqlmetrics_hidden`."""

from sqlmetrics_hidden import become_package

become_package(__name__, __file__)
