"""Runs of mpicoded whose result files stay in a folder, so that a study that was stopped goes on where it was.

A file is named by its config and a hash of the experiment, every default written out (of the data's path only the
name): changed settings make another file, and what several tables need is run once.
"""

import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import mpicoded
from mpicoded import configs, load_results
from mpicoded.cli import main
from mpicoded.data.results import Results
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment

CONFIGS = Path(__file__).parents[2] / "configs"
_DIGITS = 12  # of the hash


class Data(NamedTuple):
    """A dataset: the words of ``mpicoded data`` that make it."""

    name: str
    words: tuple[object, ...]

    @property
    def file(self) -> str:
        """Its name says all of them."""
        return "_".join([self.name, *(str(word).removeprefix("--") for word in self.words)]) + ".h5"


class Run(NamedTuple):
    """A config, the words of the command line that change it, and its data."""

    config: str
    data: Data
    words: tuple[object, ...] = ()


Fetch = Callable[[Run], Results]


def linear(seed: int, subsets: int = 100, sigma_h: float = 0.3) -> Data:
    """The papers' linear regression, of one sample a subset."""
    return Data("linear_regression", ("--subsets", subsets, "--sigma-h", sigma_h, "--seed", seed))


class Folder:
    """Data and results of a study."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Run, Path] = {}
        path.mkdir(exist_ok=True, parents=True)

    def result(self, run: Run) -> Results:
        """The run's result: done now, unless it is there."""
        return load_results(self.keep([run])[run])

    def keep(self, runs: Iterable[Run], jobs: int = 1) -> dict[Run, Path]:
        """Result files of all these runs: those that are missing are made, data first, by so many processes."""
        left = [run for run in dict.fromkeys(runs) if run not in self._known]
        for _ in _each(partial(_made, self.path), list(dict.fromkeys(run.data for run in left)), jobs):
            pass
        for number, (run, path) in enumerate(_each(partial(_kept, self.path), left, jobs), 1):
            self._known[run] = path
            if number % 20 == 0:
                print(f"{number} of {len(left)} runs", file=sys.stderr, flush=True)
        return self._known


def identity(experiment: Experiment) -> str:
    """The experiment as text, without the folder of its data."""
    data = msgspec.structs.replace(experiment.data, path=Path(experiment.data.path).name)
    return msgspec.structs.replace(experiment, data=data).to_toml()


def _each(function: Callable[[Any], Any], items: list[Any], jobs: int) -> Iterable[tuple[Any, Any]]:
    """Items and what the function makes of them: here, or in other processes as they get ready."""
    if min(jobs, len(items)) <= 1:
        yield from ((item, function(item)) for item in items)
        return
    with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn")) as pool:
        waiting = {pool.submit(function, item): item for item in items}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _made(folder: Path, data: Data) -> Path:
    """``mpicoded data``, unless the file is there."""
    path = folder / data.file
    if not path.exists():
        part = path.with_suffix(".part.h5")
        _call("data", data.name, "-o", part, *data.words)
        part.replace(path)
    return path


def _kept(folder: Path, run: Run) -> Path:
    """``mpicoded run``, unless a finished file of this version and these settings is there."""
    config, words = str(CONFIGS / f"{run.config}.toml"), ["--data.path", str(folder / run.data.file)]
    words += [str(word) for word in run.words]
    wanted = identity(configs.load(config, words))
    path = folder / f"{run.config}-{hashlib.sha256(wanted.encode()).hexdigest()[:_DIGITS]}.h5"
    odd = _odd(path, wanted) if path.exists() else "not there"
    if odd:
        if path.exists():
            print(f"{path}: {odd}, so it is run again", file=sys.stderr, flush=True)
        _call("run", config, "-o", path, "--quiet", "--restart", *words)
    return path


def _odd(path: Path, wanted: str) -> str:
    """What speaks against using a result file, or nothing."""
    found = load_results(path)
    if found.versions.get("mpicoded") != mpicoded.__version__:
        return f"of version {found.versions.get('mpicoded')} of mpicoded"
    if identity(configs.loads(found.toml, found.path)) != wanted:
        return "of other settings than its name says"
    return "" if found.finished else "not finished"


def _call(*words: object) -> None:
    """A command of mpicoded. Its warnings stay in the result file."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(word) for word in words])
    if code:
        raise InputError(f"mpicoded {' '.join(map(str, words))} ended with {code}: {said.getvalue().strip()}")
