"""Run under mpiexec by test_gpu.py: messages that go from "GPU" to "GPU" of the stand-in, as an MPI would that can."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("standin")))

import cupy
import numpy as np

from mpicoded.algorithms.processors import Cuda
from mpicoded.configs import decode
from mpicoded.data import layout
from mpicoded.training.loop import Trainer
from mpicoded.transport import gpu
from mpicoded.transport.base import block_sizes
from mpicoded.transport.local import LocalTransport
from mpicoded.transport.mpi import MpiTransport

DEVICES, ROUNDS = 15, 4
PATH = sys.argv[1]
FIXED = {"allocation": {"name": "cyclic", "redundancy": 5, "permute": False}, "identities": "fixed"}
DIRECT = {
    "honest": {},
    "sign_flip": {"attack": {"name": "sign_flip"}},
    "alie": {"attack": {"name": "alie"}},
    "ipm, NNM": {
        "attack": {"name": "ipm"},
        "filters": [{"name": "nearest_neighbor_mixing", "byzantine": 2}],
    },
    "label_flip": {"attack": {"name": "label_flip"}},
    "a spoiled subset": {"attack": {"name": "code_aware", "lies": "subset", "scale": -3.0}},
    "not finite": {"attack": {"name": "non_finite"}},
    "momentum": {"memory": {"name": "momentum"}, "identities": "fixed"},
    "EF21": {"memory": {"name": "ef21"}, **FIXED},
    "float32": {"attack": {"name": "sign_flip"}, "compute": {"dtype": "float32"}},
}
STAGED = {
    "rand_k": {"compressor": {"name": "rand_k", "kept": 3}},
    "qsgd, ALIE": {"compressor": {"name": "qsgd"}, "attack": {"name": "alie"}},
    "top_k, IPM": {"compressor": {"name": "top_k", "kept": 3}, "attack": {"name": "optimal_ipm"}},
    "EF21, top_k": {"memory": {"name": "ef21"}, "compressor": {"name": "top_k", "kept": 3}, **FIXED},
    "silent": {"attack": {"name": "silent"}},
    "bit_flip": {"attack": {"name": "bit_flip"}},
    "sharded": {"transport": {"name": "sharded"}},
    "cyclic_code": {"encoder": {"name": "cyclic_code"}, "aggregator": {"name": "mean"}},
    "a fault": {"faults": [{"name": "slow", "ranks": [0], "factor": 1.0}]},
}


def trainer_of(tables: dict, transport: object, device: str) -> Trainer:
    settings = {
        "devices": DEVICES,
        "byzantine": 2,
        "rounds": ROUNDS,
        "evaluate_every": ROUNDS,
        "seed": 3,
        "data": {"path": PATH},
        "model": {"name": "linear_regression"},
        "allocation": {"name": "cyclic", "redundancy": 5},
        "aggregator": {"name": "trimmed_mean", "byzantine": 2},
        "optimizer": {"step_size": 1e-4},
    }
    tables = tables | {"compute": tables.get("compute", {}) | {"device": device}}
    experiment = decode(settings | tables, "test")
    experiment.check(layout.describe(PATH), transport.size)
    return Trainer(experiment, layout.describe(PATH), transport)


class Shown(cupy.Array):
    """Shows an MPI other memory than it computes with."""

    def __dlpack__(self, **more):
        return cupy.Array(np.zeros_like(self._data)).__dlpack__(**more)


class Elsewhere(Cuda):
    """An MPI that writes to where no GPU reads."""

    def put(self, array):
        return Shown(array.copy())


transport = MpiTransport()
rank, size = transport.rank, transport.size
reach = transport.reach(Cuda(0))
assert not reach.direct  # the MPI of the tests cannot
assert "says no" in reach.why or "no function" in reach.why, reach
gpu.asked = lambda kinds="": (rank != size - 1, "it was asked")
reach = transport.reach(Cuda(0))
assert not reach.direct
assert f"rank {size - 1} on" in reach.why, reach
gpu.asked = lambda kinds="": (True, "it was asked")
assert transport.reach(Cuda(0)) == (True, "it was asked, and a trial was right")

rows = cupy.asarray(np.full((block_sizes(5, size)[rank], 3), rank + 1.0))
room = cupy.empty((5, 3)) if rank == 0 else None
gathered = transport.gather(rows, 0, 5, None, room)
if rank == 0:
    assert gathered.records is room
    assert gathered.arrived.all()
    assert room.get()[:, 1].tolist() == np.repeat(np.arange(size) + 1.0, block_sizes(5, size)).tolist()

for name, tables, asks in [(*item, True) for item in (DIRECT | STAGED).items()] + [("ALIE", DIRECT["alie"], False)]:
    trainer = trainer_of(tables, transport, "cuda")
    text = trainer.settle() if asks else "by way of the CPU"
    assert ("from GPU to GPU" in text) == (name in DIRECT), (name, text)
    assert name in DIRECT or "the CPU" in text, text
    trainer.train()
    if rank == 0:
        expected = trainer_of(tables, LocalTransport(), "cpu")
        expected.train()
        assert np.ptp(expected.parameters) > 0
        tolerance = 1e-4 if name == "float32" else 1e-11
        np.testing.assert_allclose(trainer.parameters, expected.parameters, tolerance, tolerance, err_msg=name)
        assert trainer.history.rows[-1]["bytes_up"] == expected.history.rows[-1]["bytes_up"], name
        assert (trainer.server.faults.bad == expected.server.faults.bad).all()
        np.testing.assert_allclose(trainer.server.suspicion.scores, expected.server.suspicion.scores, 1e-3)

for name in ("honest", "sign_flip", "alie"):  # no message is copied to or from a GPU, forged or listened in on
    trainer = trainer_of(DIRECT[name] | {"rounds": 1, "evaluate_every": 2}, transport, "cuda")
    trainer.settle()
    cupy.moved.clear()
    messages = trainer.devices.messages(trainer.devices.plan(0), 0, trainer.parameters)
    assert isinstance(messages, cupy.Array)
    records, _ = trainer.uplink.pack(messages, None, None, trainer._turn(0), 0)
    trainer.aggregation.round(records, None, trainer._turn(0), 0)
    assert not [shape for _, shape in cupy.moved if len(shape) == 2 and shape[1] == 7], cupy.moved

assert cupy.cuda.stream.synchronised > 0
wrong = transport.reach(Elsewhere(0))
assert not wrong.direct
assert "a trial gave wrong numbers" in wrong.why, wrong
print("all good", flush=True)
