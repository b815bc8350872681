"""Short runs of every memory with compressors and attacks on the ranks that there are; rank 0 writes their ends."""

import itertools
import sys

import numpy as np

from mpicoded.configs import decode
from mpicoded.data import layout
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment
from mpicoded.training.loop import Trainer
from mpicoded.transport.base import Transport
from mpicoded.transport.connect import connect

DEVICES = 7
MEMORIES = [
    {"name": "momentum"},
    {"name": "server_momentum"},
    {"name": "ef21"},
    {"name": "dm21"},
    {"name": "dm21", "variance_reduced": True},
    {"name": "marina", "probability": 0.4},
    {"name": "marina", "probability": 0.4, "anchor": "own"},
    {"name": "dasha_page", "probability": 0.4},
]
COMPRESSORS = [
    {"name": "none"},
    {"name": "rand_k", "kept": 3},
    {"name": "rand_k", "kept": 3, "shared": True},
    {"name": "top_k", "kept": 3},
    {"name": "qsgd", "levels": 4},
]
ATTACKS = ["sign_flip", "alie", "silent", "non_finite"]
BATCHES = [{}, {"batch_size": 2}]


def experiments(path: str) -> list[Experiment]:
    """All that are not refused, with half of the attacks in turn, and in turn with and without mini-batches."""
    found = []
    rows = itertools.product(MEMORIES, COMPRESSORS)
    for number, (memory, compressor, turn) in enumerate((*row, turn) for row in rows for turn in range(2)):
        attack = ATTACKS[number // 2 % 2 + 2 * turn]
        batch = BATCHES[(number + number // len(ATTACKS)) % 2]
        experiment = decode(
            {
                "devices": DEVICES,
                "byzantine": 2,
                "rounds": 4,
                "seed": number,
                "evaluate_every": 4,
                "identities": ("fixed", "resampled")[number % 3 == 0],
                "data": {"path": path} | batch,
                "allocation": {"name": "balanced", "redundancy": 4},
                "attack": {"name": attack},
                "compressor": compressor,
                "memory": memory,
                "optimizer": {"name": "adam", "step_size": 1e-2, "clip_norm": 50.0},
            },
            "remembering",
        )
        try:
            experiment.check(layout.describe(path), 1)
        except InputError:
            continue
        found.append(experiment)
    return found


def run(experiment: Experiment, transport: Transport) -> np.ndarray:
    """The parameters in the end, and all of the history that does not depend on time or on the number of ranks."""
    trainer, rows = Trainer(experiment, layout.describe(experiment.data.path), transport), []

    def keep(progress):
        rows.append([value for key, value in progress.row.items() if key not in ("seconds", "bytes_overhead")])

    trainer.train(keep)
    return np.concatenate([trainer.parameters, *rows])


if __name__ == "__main__":
    here = connect()
    ends = [run(experiment, here) for experiment in experiments(sys.argv[2])]
    if here.rank == 0:
        np.save(sys.argv[1], ends)
