"""``python -m mpicoded`` is the same as ``mpicoded``."""

import sys

from mpicoded.cli import main

sys.exit(main())
