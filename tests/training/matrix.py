"""Short runs of many combinations on the ranks that there are; rank 0 writes the parameters they end with."""

import itertools
import sys

import numpy as np

from mpicoded.algorithms import aggregators, allocations, attacks, filters
from mpicoded.algorithms.component import members
from mpicoded.data import layout
from mpicoded.experiment import decode
from mpicoded.training.loop import Trainer
from mpicoded.transport.connect import connect

DEVICES, BYZANTINE = 10, 2


def table(cls, **given):
    known = {"redundancy": 4, "byzantine": BYZANTINE} | given
    return {"name": cls.name()} | {key: known[key] for key in cls.__struct_fields__ if key in known}


def combinations():
    """Every allocation × attack × (filters and rules), for a model each."""
    rules = [table(cls) for cls in members(aggregators.Choice).values()]
    before = [[], *([table(cls)] for cls in members(filters.Choice).values())]
    for allocation, attack in itertools.product(members(allocations.Choice).values(), members(attacks.Choice).values()):
        for rule, chain in itertools.product(rules, before):
            yield table(allocation), table(attack), chain, rule


def parameters(files: list[str], transport) -> list[np.ndarray]:
    ends = []
    for number, (allocation, attack, chain, rule) in enumerate(combinations()):
        path = files[number % len(files)]
        description = layout.describe(path)
        experiment = decode(
            {
                "devices": DEVICES,
                "byzantine": BYZANTINE,
                "rounds": 3,
                "seed": number,
                "evaluate_every": 2,
                "identities": ("resampled", "fixed")[number % 2],
                "data": {"path": path} | ({"batch_size": 3} if number % 3 == 0 else {}),
                "model": {"name": f"{'linear' if description.task == 'regression' else 'softmax'}_regression"},
                "allocation": allocation,
                "attack": attack,
                "filters": chain,
                "aggregator": rule,
                "optimizer": {"step_size": 1e-3, "momentum": 0.5},
                "compute": {"dtype": ("float64", "float32")[number % 5 == 0]},
            },
            "matrix",
        )
        experiment.check(description, transport.size)
        trainer = Trainer(experiment, description, transport)
        rows = []
        trainer.train(lambda progress, rows=rows: rows.append(list(progress.row.values())[1:-5]))
        ends.append(np.concatenate([trainer.parameters.astype(np.float64), *rows]))
    return ends


if __name__ == "__main__":
    here = connect()
    found = parameters(sys.argv[2:], here)
    if here.rank == 0:
        np.savez(sys.argv[1], *found)
