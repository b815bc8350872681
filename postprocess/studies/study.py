"""A study: tables over seeds, one command that makes them, and the page that they stand in."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mpicoded.commands.launch import usable_cores
from mpicoded.errors import InputError
from postprocess.studies.runs import Fetch, Folder
from postprocess.studies.tables import Cell, Table, Tolerance, differences, markdown, places, strays

PAGES = Path(__file__).parents[2] / "docs" / "studies"


class Study(NamedTuple):
    """What a module of this folder has as ``STUDY``."""

    tables: Callable[[Sequence[int]], list[Table]]  # of the seeds
    seeds: Sequence[int]
    time: str  # of all on two cores, in words
    tolerance: Tolerance = Tolerance()  # of the numbers in its page
    picture: Callable[[Fetch, Path, Sequence[int]], None] | None = None


def main(name: str, study: Study, words: Sequence[str]) -> int:
    """Run what is missing; print the tables, or where the page has others. The exit code."""
    asked = _asked(name, study, words)
    try:
        return _done(name, study, asked)
    except (InputError, OSError) as error:
        print(f"studies: error: {error}", file=sys.stderr)
    except ImportError as error:
        print(f"studies: error: {name} needs {error.name}: see its page in docs/studies", file=sys.stderr)
    return 2


def _asked(name: str, study: Study, words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m postprocess.studies {name}", allow_abbrev=False)
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=Path("studies", name), help="where result files stay")
    add("--seeds", type=_count, default=len(study.seeds), help="how many of them, or more")
    add("--jobs", type=_count, default=usable_cores(), help="runs at a time (default: a core each)")
    add("--only", default="", metavar="TEXT", help="only tables in whose first head cell this is")
    add("--picture", type=Path, metavar="FILE", help="also draw")
    add("--check", action="store_true", help="compare with the page's tables; exit code 1 where they differ")
    add("--sample", type=_count, metavar="K", help="with --check: so many of the cells")
    return parser.parse_args(words)


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"needs a number from 1 on, got {word}")
    return int(word)


def _done(name: str, study: Study, asked: argparse.Namespace) -> int:
    if asked.picture and study.picture is None:
        raise InputError(f"{name} has no picture")
    if asked.sample and not asked.check:
        raise InputError("--sample is for --check")
    if asked.check and asked.seeds != len(study.seeds):
        raise InputError(f"--check needs the page's {len(study.seeds)} seeds, got {asked.seeds}")
    seeds = list(range(study.seeds[0], study.seeds[0] + asked.seeds))
    tables = [table for table in study.tables(seeds) if asked.only in table.head[0]]
    if not tables:
        raise InputError(f"--only {asked.only}: {name} has no such table")
    folder, chosen = Folder(asked.folder), places(tables, asked.sample)
    folder.keep((run for place in chosen if isinstance(place.cell, Cell) for run in place.cell.runs), asked.jobs)
    if asked.picture and study.picture:
        study.picture(folder.result, asked.picture, seeds)
    if asked.check:
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        lines = list(differences(chosen, page, folder.result, study.tolerance))
        lines += [] if asked.sample else list(strays(tables, page))
        cells = sum(isinstance(place.cell, Cell) for place in chosen)
        print("\n".join([*lines, f"{name}: {cells} cells compared, {len(lines) or 'no'} differences"]))
        return 1 if lines else 0
    for table in tables:
        print(*markdown(table, folder.result), sep="\n", end="\n\n", flush=True)
    return 0
