"""Run under mpiexec by test_out_of_core.py: ranks that read their samples in every round, against one that has them.

Each rank tells what is wrong.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.data.shards import Shards
from mpicoded.data.streaming import Streamed
from mpicoded.training import samples
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport
from mpicoded.transport.mpi import MPI, MpiTransport

samples.WORTH = 1
comm = MPI.COMM_WORLD
CYCLIC, BALANCED = {"name": "cyclic", "redundancy": 4}, {"name": "balanced", "redundancy": 4}
EVEN, UNEVEN, LABELS = "even.h5", "uneven.h5", "labels.h5"
CASES = {
    "LAD": ("8 kB", {"allocation": CYCLIC}, {"path": EVEN}),
    "LAD, never permuted": ("8 kB", {"allocation": CYCLIC | {"permute": False}}, {"path": EVEN}),
    "CRA-DL": ("5 kB", {"allocation": BALANCED}, {"path": EVEN}),
    "uneven": ("32 kB", {"allocation": CYCLIC}, {"path": UNEVEN}),
    "uneven, CRA-DL, float32": ("16 kB", {"allocation": BALANCED, "compute": {"dtype": "float32"}}, {"path": UNEVEN}),
    "mini-batches": ("8 kB", {"allocation": CYCLIC}, {"path": EVEN, "batch_size": 2}),
    "looking back": (
        "8 kB",
        {"allocation": BALANCED, "memory": {"name": "marina"}, "compressor": {"name": "rand_k", "kept": 5}},
        {"path": EVEN, "batch_size": 2},
    ),
    "labels": (
        "10 kB",
        {
            "allocation": CYCLIC,
            "model": {"name": "softmax_regression"},
            "compute": {"dtype": "float32"},
            "attack": {"name": "label_flip"},
        },
        {"path": LABELS},
    ),
}


def make() -> None:
    generator = np.random.default_rng(0)
    datasets.linear_regression(EVEN, subsets=24, features=30, samples_per_subset=7)
    offsets = np.r_[0, np.cumsum(generator.integers(0, 40, 23))]
    x = generator.normal(size=(offsets[-1], 30))
    layout.write(UNEVEN, x, x @ np.ones(30), np.r_[offsets, offsets[-1]], made_by="a test")  # the last is empty
    labels, test = generator.integers(0, 3, 300), (x[:11], generator.integers(0, 3, 11))
    layout.write(LABELS, x[:300], labels, np.arange(0, 301, 25), classes=3, test=test, made_by="a test")


def trained(tables: dict[str, object], data: dict[str, object], transport, node) -> Trainer:
    tree = {
        "devices": 12,
        "byzantine": 2,
        "rounds": 4,
        "seed": 3,
        "evaluate_every": 2,
        "data": data,
        "model": {"name": "linear_regression"},
        "attack": {"name": "sign_flip"},
        "aggregator": {"name": "trimmed_mean"},
        "optimizer": {"step_size": 1e-3},
    }
    experiment = decode(tree | tables, "outside")
    description = layout.describe(experiment.data.path)
    experiment.check(description, transport.size)
    trainer, rows = Trainer(experiment, description, transport, node), []
    names = ("loss", "gradient_norm", "accuracy", "test_loss")
    trainer.train(lambda progress: rows.append([progress.row.get(name) for name in names]))
    trainer.rows = rows
    return trainer


def wrong(name: str, memory: str, tables: dict[str, object], data: dict[str, object]) -> list[str]:
    """What does not hold on this rank."""
    transport = MpiTransport()
    trainer = trained(tables, data | {"memory": memory}, transport, transport.node())
    shards, budget = trainer.devices._gradients.shards, 1000 * int(memory.split()[0])
    found = {
        "it does not stream": not isinstance(shards, Streamed) or not shards.division.read_rows,
        "more than allowed": trainer._shard_bytes > budget,
        "something said": trainer.apart != "",
    }
    if transport.leads:
        alone = trained(tables, data, LocalTransport(), None)
        found["other parameters"] = not np.array_equal(trainer.parameters, alone.parameters)
        found["other history"] = trainer.rows != alone.rows
        found["it does not move"] = trainer.rows[0] == trainer.rows[-1]
    return [f"{name} on rank {transport.rank}: {text}" for text, holds in found.items() if holds]


def shared() -> list[str]:
    """What has room once for all ranks of the node is there once."""
    transport = MpiTransport()
    if transport.size < 3:
        return []
    trainer = trained({"allocation": CYCLIC}, {"path": EVEN, "memory": "20 kB"}, transport, transport.node())
    shards = trainer.devices._gradients.shards
    good = type(shards) is Shards and not shards.x.flags.writeable
    return [] if good else [f"one copy has room, but rank {transport.rank} has {type(shards).__name__}"]


os.chdir(sys.argv[1])
if comm.rank == 0:
    make()
comm.Barrier()
found = [text for name, words in CASES.items() for text in wrong(name, *words)] + shared()
Path(f"{comm.rank}.json").write_text(json.dumps(found))
