"""The command ``sqlmetrics``, and ``python -m sqlmetrics``."""

import sys


def main() -> int:
    """Run the command line; whoever interrupts it while it is still being loaded gets no traceback, either."""
    try:
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        return 128 + 2


if __name__ == "__main__":
    sys.exit(main())
