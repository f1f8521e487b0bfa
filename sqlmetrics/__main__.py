"""``python -m sqlmetrics`` is the command ``sqlmetrics``."""

import sys

from .cli import main

sys.exit(main())
