"""Runs of mpicoded whose result files stay in a folder, so that a study that was stopped goes on where it was."""

import argparse
import contextlib
import sys
from pathlib import Path

from mpicoded import load_results
from mpicoded.cli import main
from mpicoded.data.results import Results

CONFIGS = Path(__file__).parents[2] / "configs"


def options(doc: str | None, seeds: int, *paths: str) -> argparse.Namespace:
    """The words of a study's command line: its folder, which is made, the seeds, and paths that may be left out."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=seeds)
    for name in paths:
        parser.add_argument(name, type=Path)
    found = parser.parse_args()
    found.folder.mkdir(exist_ok=True, parents=True)
    return found


def data(path: Path, *words: object) -> Path:
    """``mpicoded data linear_regression``, unless the file is there."""
    if not path.exists():
        part = path.with_suffix(".part.h5")
        call("data", "linear_regression", "-o", part, *words)
        part.replace(path)
    return path


def run(path: Path, config: str, *words: object) -> Results:
    """``mpicoded run``, unless the file is there and finished."""
    if not path.exists() or not load_results(path).finished:
        call("run", CONFIGS / config, "-o", path, "--quiet", *words)
    return load_results(path)


def call(*words: object) -> None:
    """A command of mpicoded; what it refuses ends the study."""
    with contextlib.redirect_stdout(sys.stderr):
        code = main([str(word) for word in words])
    if code:
        raise SystemExit(code)
