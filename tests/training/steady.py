"""Run under mpiexec by test_steady.py: what a round allocates, on each rank.

Arguments: number of devices, the datasets, and of each run its tables as JSON. Prints a row for each run and dataset:
the most bytes that a round after many others has taken beside what there was before it, on each rank.
"""

import json
import sys
import tracemalloc

import numpy as np

from mpicoded.configs import decode
from mpicoded.data import layout
from mpicoded.training.loop import Trainer
from mpicoded.transport.base import Kind
from mpicoded.transport.mpi import MPI, MpiTransport

BEFORE = 34  # rounds: suspicion is scored every 32

transport = MpiTransport()
devices, paths, runs = int(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
everyone = np.empty(transport.size, np.int64)


def rounds(trainer: Trainer, count: int) -> None:
    """Some rounds, led by rank 0."""
    if transport.leads:
        for _ in range(count):
            trainer._round(trainer.round)
            trainer.round += 1
        trainer._order(Kind.END)
    else:
        trainer._follow()


for tables in runs:
    row = []
    for path in paths:
        tree = {"devices": devices, "rounds": 10**6, "data": {"path": path}, "optimizer": {"step_size": 1e-9}}
        trainer = Trainer(decode(tree | tables, "steady"), layout.describe(path), transport, None)
        with np.errstate(all="ignore"):
            rounds(trainer, BEFORE)
            tracemalloc.start()
            rounds(trainer, 1)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            rounds(trainer, 1)
            most = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.stop()
        MPI.COMM_WORLD.Allgather(np.array([most]), everyone)
        row.append(everyone.tolist())
    if transport.leads:
        print(json.dumps(row), flush=True)
