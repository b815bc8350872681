"""Bad configs, data files, result files and checkpoints: each ends with one line and code 2.

A case is a function that spoils something in a folder with good files (``make_good``) and returns the words of the
command line, and what the line must say.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpicoded import load_results
from mpicoded.data import checkpoints, datasets

CONFIG = """
devices = 6
byzantine = 1
rounds = 8
seed = 4
evaluate_every = 4
checkpoint_every = 4
[data]
path = "data.h5"
[allocation]
name = "cyclic"
redundancy = 2
[attack]
name = "sign_flip"
[memory]
name = "momentum"
[optimizer]
step_size = 1e-4
momentum = 0.9
"""
RUN, RESUME, SHOW = ["run", "config.toml", "-o", "new.h5"], ["resume", "part.h5"], ["show", "done.h5"]
PLAN, ALLOCATION = ["plan", "config.toml"], ["allocation", "config.toml"]
Case = tuple[list[str], str]
CASES: dict[str, Callable[[], Case]] = {}
"""All of them, by name; each is called in the folder of the good files."""


def make_good(folder: Path, main: Callable[[list[str]], int]) -> None:
    """In the current folder: a config, its data, what a whole run of it leaves, and what one that was stopped."""
    Path("config.toml").write_text(CONFIG)
    datasets.linear_regression("data.h5", subsets=6, features=5, samples_per_subset=3, seed=1)
    kept: list[tuple[bytes, bytes]] = []
    real = checkpoints.save

    def note(path: Path, *words: Any) -> None:
        real(path, *words)
        kept.append((path.read_bytes(), Path("done.h5").read_bytes()))

    checkpoints.save = note
    try:
        assert main(["run", "config.toml", "-o", "done.h5", "--quiet"]) == 0
    finally:
        checkpoints.save = real
    Path("part.h5.checkpoint").write_bytes(kept[0][0])
    Path("part.h5").write_bytes(kept[0][1])
    assert not load_results("part.h5").finished
    Path("table.csv").write_text("a,b\n" + "\n".join(f"{k},{k / 7}" for k in range(20)))


def case(name: str) -> Callable[[Callable[[], Case]], None]:
    def add(function: Callable[[], Case]) -> None:
        assert name not in CASES
        CASES[name] = function

    return add


def also(name: str, says: str, words: list[str], prepare: Callable[[], object] = lambda: None) -> None:
    """A case by its words, after something was prepared."""

    @case(name)
    def _() -> Case:
        prepare()
        return words, says
