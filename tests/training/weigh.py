"""Run under mpiexec by test_samples.py: what samples take of the memory of all ranks, shared and not."""

import re
import sys
from pathlib import Path

import numpy as np

from mpicoded.configs import decode
from mpicoded.data import layout
from mpicoded.training.loop import Trainer
from mpicoded.transport.mpi import MPI, MpiTransport


def weight() -> int:
    """The bytes of all ranks; of a page that several processes have, each counts its part.

    Without those of files, libraries above all: their parts depend on what else runs on this machine.
    """
    everyone = np.empty(transport.size, np.int64)
    MPI.COMM_WORLD.Barrier()
    told = dict(re.findall(r"^(Pss\w*):\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M))
    mine = int(told["Pss"]) - int(told["Pss_File"])
    MPI.COMM_WORLD.Allgather(np.array([1024 * mine]), everyone)
    return int(everyone.sum())


transport = MpiTransport()
tree = {
    "devices": 8,
    "rounds": 4,
    "data": {"path": sys.argv[1]},
    "model": {"name": "linear_regression"},
    "allocation": {"name": "cyclic", "redundancy": 15},
    "optimizer": {"step_size": 1e-9},
}
trainers = []
for node in (None, transport.node()):  # the first takes more: what is imported and compiled when it is needed
    before = weight()
    trainers.append(Trainer(decode(tree, "weigh"), layout.describe(sys.argv[1]), transport, node))
    trainers[-1].train()
    taken = weight() - before
    if transport.leads:
        print(taken, flush=True)
