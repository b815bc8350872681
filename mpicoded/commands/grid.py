"""The experiments of a grid: resolved, checked, named, and how far each is.

The grid is the product of all ``--vary``, over all configs. A result file is named after its config and the SHA-256 of
its resolved experiment: the name says what is in the file however the grid was written, and a grid that meets an
experiment again finds its result. The data's path is part of the experiment, what is in that file is not.
"""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mpicoded import configs
from mpicoded.data import checkpoints, layout
from mpicoded.data.naming import experiment_hash
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment

FINISHED = "finished"


class Point(NamedTuple):
    """One experiment of a grid."""

    config: str
    values: tuple[str, ...]  # of what varies, as they were given
    experiment: Experiment
    target: str  # its result file

    def state(self) -> str:
        """How far it is. Raises InputError where its files are damaged or another experiment's."""
        saved = checkpoints.find(checkpoints.path_of(self.target))
        result = load_results(self.target) if Path(self.target).exists() else None
        toml = self.experiment.to_toml()
        for found in (saved, result):
            if found is not None and found.toml != toml:
                raise InputError(f"{self.target} or its checkpoint is of another experiment than its name says")
        if result is not None and result.finished:
            return FINISHED
        if saved is not None:
            return f"resumable, round {saved.round}"
        return "not started" if result is None else "unfinished"


class Grid(NamedTuple):
    """The different experiments of a grid; their numbers are their places here."""

    keys: tuple[str, ...]  # what varies
    points: list[Point]
    repeated: list[str]  # a line for each that only repeats another one

    def check(self, ranks: int) -> None:
        """Raise InputError where one of the experiments could not run."""
        describe = functools.cache(layout.describe)
        for point in self.points:
            try:
                point.experiment.check(describe(point.experiment.data.path), ranks)
            except InputError as error:
                where = " ".join([Path(point.config).name, *assignments(self.keys, point.values)])
                raise InputError(f"{where}: {error}") from None


def make(paths: Sequence[str], vary: Sequence[str], overrides: Sequence[str], folder: str) -> Grid:
    """Resolve every experiment: overrides first, then what varies, a component's name before its fields."""
    axes: dict[str, list[str]] = {}
    for word in vary:
        key, values = _axis(word)
        if key in axes:
            raise InputError(f"--vary {word}: {key} varies already; all its values belong into one --vary")
        axes[key] = values
    grid = Grid(tuple(axes), [], [])
    order = sorted(range(len(axes)), key=lambda i: (grid.keys[i].count("."), not grid.keys[i].endswith(".name")))
    places: dict[str, int] = {}
    for path, *values in itertools.product(paths, *axes.values()):
        given = assignments(grid.keys, values)
        try:
            experiment = configs.load(path, [*overrides, *(f"--{given[i]}" for i in order)])
        except InputError as error:
            raise InputError(" ".join(given) + (": " if given else "") + str(error)) from None
        toml = experiment.to_toml()
        if toml in places:
            label = " ".join([Path(path).name, *given])
            grid.repeated.append(f"{label} is the same experiment as {places[toml]}: it runs once")
            continue
        places[toml] = len(grid.points)
        name = f"{Path(path).stem}-{experiment_hash(toml)}.h5"
        grid.points.append(Point(path, tuple(values), experiment, str(Path(folder, name))))
    return grid


def assignments(keys: Sequence[str], values: Sequence[str]) -> list[str]:
    """``key=value`` for each."""
    return [f"{key}={value}" for key, value in zip(keys, values, strict=True)]


def _axis(word: str) -> tuple[str, list[str]]:
    """``key=v1,v2`` → the key and its values, split at the commas outside of brackets, braces and quotes."""
    key, _, text = word.partition("=")
    if not key or key.startswith("-") or not text:
        raise InputError(f"--vary {word}: it is written --vary section.key=value,value")
    values, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    values = [value.strip() for value in values]
    if depth or quote:
        raise InputError(f"--vary {word}: its brackets or quotes do not match")
    if not all(values):
        raise InputError(f"--vary {word}: a value is empty")
    return key, values
