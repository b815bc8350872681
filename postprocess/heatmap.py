"""Draw what came of two settings that vary: a field of numbers, means over everything else (seeds).

    python postprocess/heatmap.py sweep/*.h5 -o heatmap.png
    python postprocess/heatmap.py sweep/*.h5 --rows attack.name --columns allocation.redundancy --y accuracy

Without --rows and --columns the two settings that vary are taken, where they are two.
"""

import argparse
import sys
from collections.abc import Sequence

from mpicoded.data.compare import by_seed
from mpicoded.data.merged import load_all
from mpicoded.figures import curves, heatmap, look, scripts


def make(asked: argparse.Namespace) -> str:
    """Draw and write the picture."""
    look.check_output(asked.output)
    results = load_all(asked.files)
    rows, columns = heatmap.axes_of(results, asked.rows, asked.columns)
    y = curves.quantity(by_seed(results), asked.y)
    log = y != "accuracy" and not asked.linear
    look.save(heatmap.draw(results, rows, columns, y, log=log, title=asked.title), asked.output)
    return str(asked.output)


def main(words: Sequence[str] | None = None) -> int:
    """Read the files, draw, and write the picture."""
    parser = scripts.picture(__doc__ or "", "heatmap.png")
    parser.add_argument("--rows", help="the setting downwards, e.g. attack.name")
    parser.add_argument("--columns", help="the setting across, e.g. allocation.redundancy")
    parser.add_argument(
        "--y", help="history whose last value is shown (default: accuracy, else suboptimality, else loss)"
    )
    parser.add_argument("--linear", action="store_true", help="linear colours, where they are logarithmic")
    return scripts.main("heatmap", make, parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
