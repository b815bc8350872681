"""Run under mpiexec by test_bytes.py: train with each compressor on a communicator that counts what MPI is given."""

import json
import sys

import numpy as np
from matrix import COMPRESSORS
from mpi4py import MPI

from mpicoded.configs import decode
from mpicoded.data import layout
from mpicoded.training.loop import Trainer
from mpicoded.transport.mpi import MpiTransport


class Counting:
    """A communicator that adds up the bytes of what each call sends from this rank: count × size of the type."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self.sent: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.rank, self.size = comm.rank, comm.size

    def __getattr__(self, name: str) -> object:
        call = getattr(self.comm, name)
        if name == "Dup":
            return lambda: self

        def counted(message, *rest):
            _, count, kind = message
            assert kind.Get_size() == kind.extent  # no holes: what is named is what moves
            self.sent[name] = self.sent.get(name, 0) + count * kind.Get_size()
            self.calls[name] = self.calls.get(name, 0) + 1
            return call(message, *rest)

        return counted if name in ("Bcast", "Gather", "Gatherv", "Allgatherv") else call


description = layout.describe(sys.argv[1])
found = []
RAND_K = {"name": "rand_k", "kept": 3}
MEMORIES = [{"name": "marina", "probability": 0.4}, {"name": "dasha_page"}, {"name": "server_momentum"}]
PAIRS = [(compressor, {"name": "none"}) for compressor in COMPRESSORS] + [(RAND_K, memory) for memory in MEMORIES]
for compressor, memory in PAIRS:
    for attack in ("none", "silent"):
        counting = Counting(MPI.COMM_WORLD)
        transport = MpiTransport(counting)
        experiment = decode(
            {
                "devices": 10,
                "byzantine": 3,
                "rounds": 6,
                "evaluate_every": 6,
                "data": {"path": sys.argv[1]},
                "allocation": {"name": "cyclic", "redundancy": 2, "permute": memory["name"] == "none"},
                "attack": {"name": attack},
                "compressor": compressor,
                "memory": memory,
                "transport": {"broadcast": "float32"},
            },
            "moved",
        )
        experiment.check(description, transport.size)
        trainer = Trainer(experiment, description, transport)
        trainer._evaluate = lambda *words: None  # its calls are not the round's
        trainer.train()
        mine = np.array([counting.sent["Gatherv"], counting.sent["Gather"], counting.sent["Bcast"]], np.int64)
        everyone = np.empty((MPI.COMM_WORLD.size, 3), np.int64)
        MPI.COMM_WORLD.Allgather(mine, everyone)
        assert set(counting.calls) == {"Bcast", "Gather", "Gatherv"}, counting.calls
        if transport.rank == 0:
            dim = description.features
            found.append(
                {
                    "compressor": compressor,
                    "memory": memory["name"],
                    "dense_rounds": int(experiment.memory.dense(experiment.seed, np.arange(6)).sum()),
                    "attack": attack,
                    "itemsize": experiment.compressor.layout(dim, np.float64).itemsize,
                    "bytes_up": trainer.history._counts["up"],
                    "bytes_down": trainer.history._counts["down"],
                    "bytes_overhead": transport.overhead_bytes,
                    "gatherv": int(everyone[:, 0].sum()),
                    "gather": int(everyone[:, 1].sum()),
                    "bcast": everyone[:, 2].tolist(),
                }
            )
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps(found))
