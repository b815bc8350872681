"""Final values of result files as a table: mean ± standard deviation over seeds.

    python postprocess/table.py sweep/*.h5
    python postprocess/table.py sweep/*.h5 --format latex -o table.tex --columns suboptimality bytes_up

Text, Markdown and LaTeX (booktabs) are rounded, CSV is not. Without --format the ending of the output chooses it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mpicoded.data.compare import by_seed
from mpicoded.data.merged import load_all
from mpicoded.errors import InputError
from mpicoded.figures import scripts, table

ENDINGS = {".md": "markdown", ".tex": "latex", ".csv": "csv"}


def make(asked: argparse.Namespace) -> str:
    """Print or write the table."""
    if asked.digits < 1:
        raise InputError(f"--digits must be 1 or more, got {asked.digits}")
    made = table.make(by_seed(load_all(asked.files)), asked.columns, asked.which)
    ending = Path(asked.output).suffix.lower() if asked.output else ""
    text = table.FORMATS[asked.format or ENDINGS.get(ending, "text")](made, asked.digits)
    if asked.output is None:
        return text.rstrip("\n")
    Path(asked.output).write_text(text)
    return str(asked.output)


def main(words: Sequence[str] | None = None) -> int:
    """Read the files, and make the table."""
    parser = scripts.parser(__doc__ or "", None)
    parser.add_argument("--format", choices=table.FORMATS, help="(default: by the output's ending, else text)")
    parser.add_argument("--columns", nargs="+", help="histories, e.g. suboptimality bytes_up (default: what there is)")
    parser.add_argument("--which", choices=table.BESTS, default="last", help="value of a history (default: last)")
    parser.add_argument("--digits", type=int, default=3, help="of a mean (default: 3)")
    return scripts.main("table", make, parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
