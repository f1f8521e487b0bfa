"""What `import sqlmetrics` finds where another `sitecustomize` hides ours; see `sqlmetrics_hidden`."""

import runpy

from sqlmetrics_hidden import become_package, leave_path

if __name__ == "__main__":  # python -m sqlmetrics
    leave_path(__file__)
    runpy.run_module("sqlmetrics", run_name="__main__", alter_sys=True)
else:
    become_package(__name__, __file__)
