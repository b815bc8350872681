"""Draw who computed what in a round of a run, and how many copies subsets have.

    python postprocess/allocation.py run.h5 -o allocation.png --round 0

The result file has the experiment and the number of subsets; who computes what follows from them. Before a run,
``mpicoded allocation CONFIG.toml -o PICTURE`` draws the same.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from mpicoded import configs
from mpicoded.data.results import Results
from mpicoded.errors import InputError
from mpicoded.figures import allocation, scripts


def make(asked: argparse.Namespace) -> str:
    """Draw and write the picture."""

    def draw(result: Results, title: str | None, width: float) -> Any:
        experiment = configs.loads(result.toml, result.path)
        if not 0 <= asked.round < experiment.rounds:
            raise InputError(f"--round must be 0 to {experiment.rounds - 1}, got {asked.round}")
        part, subsets = experiment.allocation, len(result.allocation["copies"])
        held = part.assignment(experiment.devices, subsets, asked.round, experiment.seed)
        when = f"round {asked.round}" if part.varies else "the same in all rounds"
        told = f"{part.name()}: {experiment.devices} devices, {subsets} subsets, {when}"
        return allocation.draw(held, title or told, copies=True, width=width)

    return scripts.each(asked, draw)


def main(words: Sequence[str] | None = None) -> int:
    """Read the files, draw, and write a picture for each."""
    parser = scripts.picture(__doc__ or "", "allocation.png")
    parser.add_argument("--round", type=int, default=0, help="for which round (default: 0)")
    return scripts.main("allocation", make, parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
