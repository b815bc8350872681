"""After the first rounds, a round allocates nothing that grows with the model: buffers are there."""

import json
from pathlib import Path

import numpy as np
import pytest

from mpicoded.data import datasets

DEVICES, DIMS = 20, (30_000, 60_000)
SMALL = 300_000  # bytes, of blocks that are worked at a time; one message of the larger model has 480,000
LAD = {"allocation": {"name": "cyclic", "redundancy": 5}}
TRIMMED = {"aggregator": {"name": "trimmed_mean", "byzantine": 4}}
LINEAR = {"model": {"name": "linear_regression"}}
RUNS = {
    "LAD": LAD | TRIMMED,
    "CRA-DL": {"allocation": {"name": "balanced", "redundancy": 6}} | TRIMMED,
    "in float32": LAD | TRIMMED | {"compute": {"dtype": "float32"}},
    "median": LAD | {"aggregator": {"name": "coordinate_median"}},
    "Com-LAD": LAD | TRIMMED | {"compressor": {"name": "rand_k", "kept": 100, "shared": True}},
    "in slices": LAD | TRIMMED | {"transport": {"name": "sharded"}},
}


@pytest.mark.mpi
def test_a_round_allocates_nothing_that_grows_with_the_model(program, tmp_path):
    paths = []
    for dim in DIMS:
        paths.append(str(tmp_path / f"{dim}.h5"))
        samples = np.random.default_rng(0).normal(size=(DEVICES, dim))
        datasets.layout.write(paths[-1], samples, samples[:, 0], np.arange(DEVICES + 1), made_by="test")
    runs = json.dumps([LINEAR | tables for tables in RUNS.values()])
    ended = program.python(Path(__file__).with_name("steady.py"), DEVICES, json.dumps(paths), runs, ranks=2)
    assert ended.code == 0, ended.err
    taken = dict(zip(RUNS, map(json.loads, ended.out.splitlines()), strict=True))
    for name, (shorter, longer) in taken.items():
        print(name, shorter, longer)
        assert max(longer) < SMALL, name
        assert max(longer) < 1.1 * max(shorter) + 10_000, name
