"""Draw where the seconds of each rank went, phase by phase.

python postprocess/timeline.py run.h5 -o timeline.png
"""

import argparse
import sys
from collections.abc import Sequence

from mpicoded.figures import phases, scripts


def make(asked: argparse.Namespace) -> str:
    """Draw and write the picture."""
    return scripts.each(asked, phases.draw)


def main(words: Sequence[str] | None = None) -> int:
    """Read the files, draw, and write a picture for each."""
    return scripts.main("timeline", make, scripts.picture(__doc__ or "", "timeline.png").parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
