"""Draw curves of result files: loss, suboptimality or accuracy over rounds, seconds or bytes.

    python postprocess/curves.py lad.h5 rba.h5 -o curves.png
    python postprocess/curves.py *.h5 -o bytes.pdf --x bytes_up --log-x --y suboptimality

Curves are labelled by what differs between the experiments. The ending of the output chooses PNG, PDF or SVG.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpicoded.data.compare import labels
from mpicoded.data.results import Results, load_results
from mpicoded.errors import InputError

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
WORDS = {
    "round": "round",
    "seconds": "seconds in rounds",
    "bytes_up": "bytes sent by the devices",
    "loss": "loss F(x)",
    "suboptimality": "suboptimality F(x) − F*",
    "accuracy": "test accuracy",
    "test_loss": "test loss",
    "gradient_norm": "norm of the gradient of F",
}


def draw(
    results: Sequence[Results], names: Sequence[str], x: str, y: str, title: str | None, log_x: bool = False
) -> Any:
    """A matplotlib figure with a curve for each result."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for index, (result, name) in enumerate(zip(results, names, strict=True)):
        axes.plot(
            result.history[x],
            result.history[y],
            label=name,
            color=COLOURS[index % len(COLOURS)],
            linestyle=STYLES[index // len(COLOURS) % len(STYLES)],
            linewidth=1.8,
        )
    if y != "accuracy" and all((result.history[y] > 0).all() for result in results):
        axes.set_yscale("log")
    if log_x:  # a first point at zero rounds or bytes falls off
        axes.set_xscale("log", nonpositive="mask")
    axes.set_xlabel(WORDS.get(x, x))
    axes.set_ylabel(WORDS.get(y, y))
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    if len(results) > 1:
        axes.legend(frameon=False, fontsize="small")
    if title or len(results) == 1:
        axes.set_title(title or Path(results[0].path).stem, fontsize="medium")
    return figure


def main(words: Sequence[str] | None = None) -> int:
    """Read the files, draw, and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files")
    parser.add_argument("-o", "--output", default="curves.png", help="picture to write (default: curves.png)")
    parser.add_argument("--x", default="round", help="history to draw over (default: round)")
    parser.add_argument(
        "--y",
        help="history to draw (default: accuracy, else suboptimality, else loss, as far as the files have it)",
    )
    parser.add_argument("--log-x", action="store_true", help="logarithmic horizontal axis")
    parser.add_argument("--labels", nargs="+", help="a label for each file, instead of what differs")
    parser.add_argument("--title")
    arguments = parser.parse_args(words)
    try:
        results = [load_results(path) for path in arguments.files]
        shared = [name for name in results[0].history if all(name in result.history for result in results)]
        y = arguments.y or next(name for name in ("accuracy", "suboptimality", "loss") if name in shared)
        for name in (arguments.x, y):
            if name not in shared:
                raise InputError(f"not all files have the history {name!r}; they share: {', '.join(shared)}")
        names = arguments.labels or labels(results)
        if len(names) != len(results):
            raise InputError(f"--labels needs {len(results)} labels, one for each file, got {len(names)}")
        figure = draw(results, names, arguments.x, y, arguments.title, arguments.log_x)
        figure.savefig(arguments.output, dpi=160)
    except (InputError, OSError, ValueError) as error:
        print(f"curves: error: {error}", file=sys.stderr)
        return 2
    except ImportError:
        print("curves: error: needs matplotlib: pip install 'mpicoded[plots]'", file=sys.stderr)
        return 2
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
