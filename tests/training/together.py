"""Run under mpiexec by test_samples.py: ranks that share their samples, against one process; each tells what is wrong.

Small data are shared here, too; and some not, since the system says that shared memory has no room.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from mpicoded.commands.job import patience
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.training import samples
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport
from mpicoded.transport.mpi import MPI, MpiTransport
from mpicoded.transport.node import MpiNode

samples.WORTH = 1
comm = MPI.COMM_WORLD
DEVICES, FEATURES = 12, 30
EVEN = {"path": "even.h5"}
CYCLIC = {"name": "cyclic", "redundancy": 4}
CASES = {
    "permuted": {"allocation": CYCLIC},
    "windows": {"allocation": CYCLIC | {"permute": False}},
    "some": {"allocation": {"name": "balanced", "redundancy": 4}},
    "uneven": {"allocation": CYCLIC, "data": {"path": "uneven.h5"}},
    "uneven and some": {"allocation": {"name": "balanced", "redundancy": 4}, "data": {"path": "uneven.h5"}},
    "mini-batches": {"allocation": CYCLIC, "data": EVEN | {"batch_size": 2}},
    "float32": {"allocation": CYCLIC, "compute": {"dtype": "float32"}},
    "labels": {
        "allocation": CYCLIC,
        "data": {"path": "labels.h5"},
        "model": {"name": "softmax_regression"},
        "compute": {"dtype": "float32"},
        "attack": {"name": "label_flip"},
    },
    "star": {"allocation": CYCLIC, "transport": {"deadline": 60.0}},
    "large": {"allocation": {"name": "balanced", "redundancy": 4}, "data": {"path": "large.h5"}},
}


def make() -> None:
    generator = np.random.default_rng(0)
    datasets.linear_regression("even.h5", subsets=24, features=FEATURES, samples_per_subset=7)
    datasets.linear_regression("large.h5", subsets=12, features=300, samples_per_subset=120)  # worked in place
    x = generator.normal(size=(300, FEATURES))
    offsets = np.r_[0, np.sort(generator.integers(0, 300, 22)), 300, 300]  # the last is empty
    layout.write("uneven.h5", x, x @ np.ones(FEATURES), offsets, made_by="a test")
    labels, test = generator.integers(0, 3, 300), (x[:11], generator.integers(0, 3, 11))
    layout.write("labels.h5", x, labels, np.arange(0, 301, 25), classes=3, test=test, made_by="a test")


def trained(tables: dict[str, object], transport, node) -> Trainer:
    tree = {
        "devices": DEVICES,
        "byzantine": 2,
        "rounds": 4,
        "seed": 3,
        "evaluate_every": 2,
        "data": EVEN,
        "model": {"name": "linear_regression"},
        "attack": {"name": "sign_flip"},
        "aggregator": {"name": "trimmed_mean"},
        "optimizer": {"step_size": 1e-3},
    }
    experiment = decode(tree | tables, "together")
    description = layout.describe(experiment.data.path)
    experiment.check(description, transport.size)
    if "transport" in tables:
        transport = transport.patient(DEVICES, patience(experiment, experiment.transport, description.subsets))
    trainer, rows = Trainer(experiment, description, transport, node), []
    trainer.train(lambda progress: rows.append([progress.row[name] for name in ("loss", "gradient_norm")]))
    trainer.rows = rows
    return trainer


def wrong(name: str, tables: dict[str, object], full: bool = False, two: bool = False) -> list[str]:
    """What does not hold on this rank."""
    transport, asked = MpiTransport(), []
    node = transport.node()
    if two:  # nodes of two ranks and of one, as transport.node() has them
        half = comm.Split(transport.rank // 2, transport.rank)
        node = MpiNode(half, transport.rank) if half.size > 1 else None

    def counted(description, group, runs, *words):
        asked.extend(runs if group == "" else [])
        return read_rows(description, group, runs, *words)

    layout.read_rows = counted
    os.statvfs = (lambda path: os.statvfs_result((*statvfs(path)[:4], 0, *statvfs(path)[5:]))) if full else statvfs
    trainer = trained(tables, transport, node)
    layout.read_rows = read_rows
    shards, description = trainer.devices._gradients.shards, layout.describe(tables.get("data", EVEN)["path"])
    here = np.zeros(description.samples, np.int64)
    for start, stop in asked:
        here[start:stop] += 1
    read, tests = np.empty_like(here), trainer._evaluator._test
    comm.Allreduce(here, read)
    bytes_here = here.sum() * (shards.x.itemsize * description.features + shards.y.itemsize)
    offsets = description.offsets
    held = [(int(offsets[subset]), int(offsets[subset + 1])) for subset in shards.subsets]
    x, y = read_rows(description, "", held, shards.x.dtype)
    rows = np.concatenate(
        [np.arange(start, start + size) for start, size in zip(shards.starts, shards.sizes, strict=True)]
    )
    found = {
        "shared or not": shards.x.flags.writeable != (full or node is None),
        "not said": ("no room" in trainer.apart) != full,
        "not each row once": not full and not two and read.max() != 1,
        "not all rows": read.min() < 1,
        "other bytes": trainer._shard_bytes != bytes_here + (tests.nbytes if tests else 0),
        "other samples": not (np.array_equal(x, shards.x[rows]) and np.array_equal(y, shards.y[rows])),
    }
    if transport.leads:
        alone = trained({**tables, "transport": {}}, LocalTransport(), None)
        found["other parameters"] = not np.array_equal(trainer.parameters, alone.parameters)
        found["other history"] = trainer.rows != alone.rows
    return [f"{name} on rank {transport.rank}: {text}" for text, holds in found.items() if holds]


read_rows, statvfs = layout.read_rows, os.statvfs
os.chdir(sys.argv[1])
if comm.rank == 0:
    make()
comm.Barrier()
found = [text for case in CASES.items() for text in wrong(*case)]
found += [f"{text}, full" for name in ("permuted", "labels") for text in wrong(name, CASES[name], full=True)]
if comm.size == 3:
    found += [f"{text}, two nodes" for name in ("permuted", "windows") for text in wrong(name, CASES[name], two=True)]
Path(f"{comm.rank}.json").write_text(json.dumps(found))
