"""Draw how suspicious devices, ranks and hosts became over the rounds: about 1 for honest ones.

python postprocess/suspects.py run.h5 -o suspects.png
"""

import argparse
import sys
from collections.abc import Sequence

from mpicoded.figures import scripts, suspects


def make(asked: argparse.Namespace) -> str:
    """Draw and write the picture."""
    return scripts.each(asked, suspects.draw)


def main(words: Sequence[str] | None = None) -> int:
    """Read the files, draw, and write a picture for each."""
    return scripts.main("suspects", make, scripts.picture(__doc__ or "", "suspects.png").parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
