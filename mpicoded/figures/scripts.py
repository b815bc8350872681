"""What the scripts of ``postprocess/`` share: a command line, and one line for what is wrong."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpicoded.data.merged import load_all
from mpicoded.errors import InputError, one_line, printable, understood
from mpicoded.figures import look


def parser(description: str, output: str | None) -> argparse.ArgumentParser:
    """A parser with files and ``-o``; ``output``: its default, None: what is made is printed."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    found.add_argument("files", nargs="+", metavar="FILE", help="result files, or merged ones")
    where = f"default: {output}" if output else "default: print it"
    found.add_argument("-o", "--output", default=output, help=f"file to write ({where})")
    return found


def picture(description: str, output: str) -> argparse.ArgumentParser:
    """The same for a picture, with a title."""
    found = parser(description, output)
    found.add_argument("--title", help="of the picture")
    found.add_argument("--column", action="store_true", help="for one column of a two-column page: 3.5 inches wide")
    return found


def main(name: str, make: Callable[[argparse.Namespace], str], arguments: argparse.Namespace) -> int:
    """Have it made, say where, and exit with 2 and one line where that fails."""
    try:
        with understood(f"cannot draw {', '.join(arguments.files[:3])}"):
            print(printable(make(arguments)))
    except (InputError, OSError) as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def each(asked: argparse.Namespace, draw: Callable[..., Any]) -> str:
    """A picture for each result, ``draw(result, title, width)``; of several the names are numbered."""
    look.check_output(asked.output)
    results = load_all(asked.files)
    width = look.COLUMN if asked.column else look.PAGE
    target = Path(asked.output)
    written = []
    for number, result in enumerate(results, 1):
        path = target if len(results) == 1 else target.with_stem(f"{target.stem}-{number}")
        look.save(draw(result, title=asked.title, width=width), str(path))
        written.append(f"{path}" if len(results) == 1 else f"{path}: {result.path}")
    return "\n".join(written)
