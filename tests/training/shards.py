"""Run under mpiexec by test_sharded.py: each rule in slices and at the root; rank 0 tells what is different."""

import json
import sys

import numpy as np
from combinations import COMPRESSORS as COMMON
from combinations import chains, rules
from mpi4py import MPI

from mpicoded.configs import decode
from mpicoded.data import layout
from mpicoded.errors import InputError
from mpicoded.training.loop import Trainer
from mpicoded.transport.columns import Columns
from mpicoded.transport.mpi import MpiTransport

COMPRESSORS = [*COMMON, {"name": "none", "dtype": "float32"}]
ATTACKS = ("alie", "malformed", "silent", "sign_flip", "gaussian", "optimal_ipm")


class Counting:
    """A communicator that adds up the bytes that this rank gets of other ranks' columns."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm, self.rank, self.size, self.got = comm, comm.rank, comm.size, 0
        self.taken: dict[int, int] = {}  # bytes that a persistent request receives

    def __getattr__(self, name: str) -> object:
        call = getattr(self.comm, name)
        if name == "Dup":
            return lambda: self
        if name in ("Recv_init", "Send_init"):

            def prepared(buffer, *words):
                request = call(buffer, *words)
                self.taken[id(request)] = buffer[1] if name == "Recv_init" else 0
                return request

            return prepared
        if name != "Alltoallw":
            return call

        def counted(sent, taken):
            (counts, _), types = taken[1:]
            self.got += sum(int(count) * item.Get_size() for count, item in zip(counts, types, strict=True))
            return call(sent, taken)

        return counted


class CountedColumns(Columns):
    """Adds up what it gets row by row, too."""

    def row_messages(self, *words):
        found = super().row_messages(*words)
        self._comm.got += sum(self._comm.taken[id(request)] for request in found)
        return found


class Transport(MpiTransport):
    """With columns that are counted."""

    def __init__(self, *words):
        super().__init__(*words)
        self._columns = CountedColumns(self._comm, self._item_type)


def tables(number: int, rule: dict[str, object]) -> dict[str, object]:
    chain = chains()[number % len(chains())]
    if number % 4 == 3 and "byzantine" not in rule:
        rule = rule | {"byzantine": "auto"} if rule["name"] in ("trimmed_mean", "krum", "phocas") else rule
    return {
        "devices": 15,
        "byzantine": 2,
        "rounds": 4,
        "seed": number,
        "evaluate_every": 2,
        "data": {"path": sys.argv[1]},
        "allocation": {"name": "cyclic", "redundancy": 3},
        "attack": {"name": ATTACKS[number % len(ATTACKS)]},
        "compressor": COMPRESSORS[number % len(COMPRESSORS)],
        "memory": {"name": "momentum" if number % 3 == 0 else "none"},
        "filters": chain,
        "aggregator": rule,
        "optimizer": {"step_size": 1e-7, "clip_norm": 1e6},
        "compute": {"dtype": ("float64", "float32")[number % 5 == 4]},
    }


def end(tree: dict[str, object], wiring: dict[str, object]) -> tuple[np.ndarray, Counting, Trainer]:
    experiment = decode(tree | {"transport": wiring}, "shards")
    counting = Counting(MPI.COMM_WORLD)
    transport = Transport(counting)
    experiment.check(description, transport.size)
    trainer = Trainer(experiment, description, transport)
    rows = []

    def keep(progress):
        values = {k: v for k, v in progress.row.items() if k not in ("seconds", "bytes_overhead", "bytes_up")}
        rows.append([*values.values(), *progress.suspicion, *np.ravel(progress.estimates)])

    trainer.train(keep)
    return np.concatenate([trainer.parameters.astype(np.float64), *rows]), counting, trainer


def main() -> None:
    size, rank = MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank
    told = {"same": 0, "refused": [], "different": [], "bytes": []}
    for number, rule in enumerate(rules()):
        tree = tables(number, rule)
        try:
            root, _, _ = end(tree, {})
        except InputError as error:
            told["refused"].append(str(error))
            continue
        for servers in (None, 1 + number % size):
            found, counting, trainer = end(tree, {"name": "sharded"} | ({"servers": servers} if servers else {}))
            if rank == 0:
                same = np.array_equal(found, root, equal_nan=True)
                told["same"] += same
                told["different"] += [] if same else [[number, servers, rule, float(np.abs(found - root).max())]]
                width, own = trainer.aggregation._slice.shape[1], trainer.uplink._stop - trainer.uplink._first
                expected = 4 * (15 - own) * width * trainer.parameters.itemsize
                told["bytes"].append([counting.got, expected])
    if rank == 0:
        print(json.dumps(told))


description = layout.describe(sys.argv[1])
main()
