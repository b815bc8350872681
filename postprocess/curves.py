"""Draw curves of result files: loss, suboptimality or accuracy over rounds, seconds, bytes or gradients.

    python postprocess/curves.py lad.h5 rba.h5 -o curves.png
    python postprocess/curves.py sweep/*.h5 -o bytes.pdf --x bytes_up --log-x --y suboptimality --column

Files that are the same but for the seed (and the data, where each seed has its own) are one curve: their mean, with a
band of one standard deviation. Curves are labelled by what differs. The ending of the output chooses PNG, PDF or SVG.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mpicoded.data.compare import by_seed
from mpicoded.data.merged import load_all
from mpicoded.errors import InputError
from mpicoded.figures import curves, look, scripts


def make(asked: argparse.Namespace) -> str:
    """Draw and write the picture."""
    look.check_output(asked.output)
    groups = by_seed(load_all(asked.files), apart=asked.apart)
    x, y = curves.quantity(groups, asked.x), curves.quantity(groups, asked.y)
    if asked.labels is not None:
        if len(asked.labels) != len(groups):
            raise InputError(f"--labels needs {len(groups)} labels, one for each curve, got {len(asked.labels)}")
        groups = [group._replace(label=label) for group, label in zip(groups, asked.labels, strict=True)]
    title = asked.title or (Path(groups[0].results[0].path).stem if len(groups) == 1 else None)
    width = look.COLUMN if asked.column else look.PAGE
    made = curves.draw(groups, x, y, title=title, log_x=asked.log_x, band=asked.band, width=width)
    look.save(made, asked.output)
    return str(asked.output)


def main(words: Sequence[str] | None = None) -> int:
    """Read the files, draw, and write the picture."""
    parser = scripts.picture(__doc__ or "", "curves.png")
    parser.add_argument("--x", default="round", help="round, seconds, bytes_up, gradients, … (default: round)")
    parser.add_argument("--y", help="history to draw (default: accuracy, else suboptimality, else loss)")
    parser.add_argument("--log-x", action="store_true", help="logarithmic horizontal axis")
    parser.add_argument("--band", choices=curves.BANDS, default="deviation", help="over the seeds (default: deviation)")
    parser.add_argument("--apart", action="store_true", help="a curve for each file, seeds too")
    parser.add_argument("--labels", nargs="+", help="a label for each curve, instead of what differs")
    return scripts.main("curves", make, parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
