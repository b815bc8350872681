"""Short runs of combinations of parts on the ranks that there are; rank 0 writes the parameters they end with."""

import copy
import functools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import numpy as np
from combinations import (
    AXES,
    BYZANTINE,
    COMPRESSORS,
    SHAPES,
    TOTAL,
    Row,
    Table,
    covering,
    row_of,
    shape_of,
    table,
    tables_of,
)

from mpicoded import configs
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment
from mpicoded.training.loop import Trainer
from mpicoded.transport.base import Transport
from mpicoded.transport.connect import connect

__all__ = ["COMPRESSORS", "table"]  # for other tests

ALL = "MPICODED_ALL" in os.environ
DEVICES = 10
CONVEX = {"regression": "linear", "classification": "softmax"}
describe = functools.cache(layout.describe)


def make_files(folder: Path) -> None:
    """For each number of subsets a linear problem, and ragged classification with empty subsets and a test split."""
    rng = np.random.default_rng(5)
    samples = datasets.Samples(rng.standard_normal((400, 9)), rng.integers(0, 4, 400), 4)
    test = (rng.standard_normal((600, 9)), rng.integers(0, 4, 600))
    for subsets in dict.fromkeys(subsets for _, subsets in SHAPES):  # describe() remembers each file
        linear, ragged = (str(path) for path in files_of(folder, subsets))
        datasets.linear_regression(linear, subsets=subsets, features=13, samples_per_subset=3, seed=1)
        made = {"subsets": subsets, "kind": "dirichlet", "alpha": 0.05, "seed": 2, "made_by": "test"}
        datasets.write_split(ragged, samples._replace(test=test), **made)
        assert (np.diff(describe(ragged).offsets) == 0).any()


def files_of(folder: Path, subsets: int) -> list[Path]:
    return [folder / f"linear_{subsets}.h5", folder / f"ragged_{subsets}.h5"]


class Refusals(dict[Row, str]):
    """Which rows are refused, and why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def accepts(self, row: Row) -> bool:
        try:
            experiment_of_row(self.folder, 0, row)
        except InputError as error:
            self[row] = str(error)
        return row not in self


def pairs(refusals: Refusals) -> tuple[list[Row], Table]:
    """Rows that meet every pair of parts that any accepted combination has, and the pairs that none has."""
    impossible: Table = {}
    with mock.patch.object(configs, "describe", describe):  # a check need not open the file each time
        return list(covering(2, refusals.accepts, np.random.default_rng(0), impossible)), impossible


def triples(refusals: Refusals) -> list[Row]:
    """Rows that meet every triple of parts that any accepted combination has."""
    _, impossible = pairs(refusals)
    with mock.patch.object(configs, "describe", describe):
        return list(covering(3, refusals.accepts, np.random.default_rng(1), impossible))


def part(refusals: Refusals, which: str) -> list[Row]:
    """Part ``17/1000`` of the accepted ones among all combinations, every thousandth one."""
    number, parts = map(int, which.split("/"))
    return [row for row in map(row_of, range(number, TOTAL, parts)) if refusals.accepts(row)]


def experiment_of_row(folder: Path, number: int, row: Row) -> Experiment:
    """Raises InputError where the combination is refused."""
    tables = copy.deepcopy(tables_of(row))
    devices, subsets = shape_of(AXES["allocation"][row[0]])
    path = str(files_of(folder, subsets)[number % 2])
    experiment = experiment_of(path, number, tables | {"devices": devices})
    experiment.check(describe(path), 2)
    return experiment


def experiment_of(path: str, number: int, tables: dict, rounds: int = 3) -> Experiment:
    task = describe(path).task
    # Codes need liars who stay the same where anything is remembered of them.
    stay = number // 2 % 2 or tables.get("memory", {"name": "none"})["name"] != "none"
    return decode(
        {
            "devices": DEVICES,
            "byzantine": BYZANTINE,
            "rounds": rounds,
            "seed": number,
            "evaluate_every": 3,
            "identities": "fixed" if stay else "resampled",
            "data": {"path": path} | ({"batch_size": 3} if number % 3 == 0 else {}),
            "model": _network(path) if number % 11 == 1 else {"name": f"{CONVEX[task]}_regression"},
            "optimizer": {"step_size": 1e-3, "momentum": 0.5},
            "transport": {"broadcast": ("float16", "float32")[number % 2]} if number % 7 == 0 else {},
            "compute": {"dtype": ("float64", "float32")[number % 5 == 0]},
        }
        | tables,
        "matrix",
    )


def _network(path: str) -> dict:
    """A small network for the features and classes of a dataset."""
    data = describe(path)
    options = {"features": data.features, "classes": data.classes, "hidden": [5]}
    return {"name": "torch", "module": "mpicoded.networks:mlp", "options": options}


def run(experiment: Experiment, transport: Transport) -> np.ndarray:
    """The parameters in the end, and all of the history that does not depend on time or on the number of ranks."""
    description = describe(experiment.data.path)
    experiment.check(description, transport.size)
    trainer = Trainer(experiment, description, transport)
    rows = []

    def keep(progress):
        values = {k: v for k, v in progress.row.items() if k not in ("seconds", "bytes_overhead")}
        rows.append(list(values.values()))

    trainer.train(keep)
    return np.concatenate([trainer.parameters.astype(np.float64), *rows])


def ends(folder: Path, numbered: Iterable[tuple[int, Row]], transport: Transport) -> list[np.ndarray]:
    return [run(experiment_of_row(folder, number, row), transport) for number, row in numbered]


if __name__ == "__main__":
    target, given = sys.argv[1:]
    folder, numbered = json.loads(Path(given).read_text())
    here = connect()
    found = ends(Path(folder), numbered, here)
    if here.rank == 0:
        np.savez(target, *found)
