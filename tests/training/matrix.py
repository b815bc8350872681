"""Short runs of many combinations on the ranks that there are; rank 0 writes the parameters they end with."""

import itertools
import os
import sys

import msgspec
import numpy as np

from mpicoded.algorithms import aggregators, allocations, attacks, filters
from mpicoded.algorithms.component import members
from mpicoded.data import layout
from mpicoded.errors import InputError
from mpicoded.experiment import decode
from mpicoded.training.loop import Trainer
from mpicoded.transport.connect import connect

DEVICES, BYZANTINE, SUBSETS = 10, 2, 20
ALL = "MPICODED_ALL" in os.environ
SAMPLED = 400  # of about 1400 combinations
COMPRESSORS = [
    {"name": "none"},
    {"name": "none", "dtype": "float16"},
    {"name": "rand_k", "kept": 3},
    {"name": "rand_k", "kept": 8, "shared": True},
    {"name": "qsgd", "levels": 4},
    {"name": "natural"},
    {"name": "top_k", "kept": 4, "dtype": "float32"},
    {"name": "sign"},
    {"name": "sign", "scaled": False},
]


def table(cls, **given):
    # Ten votes are too few for Bulyan to stand two lies.
    known = {"redundancy": 4, "byzantine": 1 if cls is aggregators.Bulyan else BYZANTINE, "tau": 3.0} | given
    return {"name": cls.name()} | {key: known[key] for key in cls.__struct_fields__ if key in known}


def fitting() -> list[type[allocations.Allocation]]:
    """The allocations that exist for so many devices and subsets."""
    found = []
    for cls in members(allocations.Choice).values():
        try:
            cls(**{key: value for key, value in table(cls).items() if key != "name"}).check(DEVICES, SUBSETS)
        except (InputError, TypeError):
            continue
        found.append(cls)
    return found


def combinations():
    """Every allocation × attack × (all rules, and each filter before one of them), and what comes next of the rest.

    The rules behind the filters, models, compressors and memories come in turn.
    """
    rules = [table(cls) for cls in members(aggregators.Choice).values()]
    pairs = itertools.cycle([(rule, [table(cls)]) for rule in rules for cls in members(filters.Choice).values()])
    compressors = itertools.cycle(COMPRESSORS)
    for allocation, attack in itertools.product(fitting(), members(attacks.Choice).values()):
        filtered = [next(pairs) for _ in members(filters.Choice)]
        for rule, chain in [*((rule, []) for rule in rules), *filter(possible, filtered)]:
            compressor = next(compressors)
            feedback = bool(chain) and allocation is not allocations.Cyclic and compressor.get("scaled", True)
            yield {
                "allocation": table(allocation),
                "attack": table(attack),
                "filters": chain,
                "aggregator": rule,
                "compressor": compressor,
                "memory": {"name": "ef21" if feedback else "none"},
            }


def sample() -> list[tuple[int, dict]]:
    """Some of the combinations with their numbers, always the same ones; all where MPICODED_ALL is set."""
    everything = list(enumerate(combinations()))
    if ALL:
        return everything
    chosen = np.random.default_rng(0).choice(len(everything), SAMPLED, replace=False)
    return [everything[number] for number in sorted(chosen)]


def possible(pair: tuple[dict, list[dict]]) -> bool:
    """Whether the filters leave the rule votes enough."""
    rule, chain = pair
    votes = DEVICES
    for item in chain:
        votes = msgspec.convert(item, filters.Choice).votes(votes)
    return votes >= msgspec.convert(rule, aggregators.Choice).fewest()


def experiment_of(path: str, number: int, tables: dict, rounds: int = 3):
    task = layout.describe(path).task
    return decode(
        {
            "devices": DEVICES,
            "byzantine": BYZANTINE,
            "rounds": rounds,
            "seed": number,
            "evaluate_every": 2,
            "identities": ("resampled", "fixed")[number % 2],
            "data": {"path": path} | ({"batch_size": 3} if number % 3 == 0 else {}),
            "model": {"name": f"{'linear' if task == 'regression' else 'softmax'}_regression"},
            "optimizer": {"step_size": 1e-3, "momentum": 0.5},
            "transport": {"broadcast": ("float16", "float32")[number % 2]} if number % 7 == 0 else {},
            "compute": {"dtype": ("float64", "float32")[number % 5 == 0]},
        }
        | tables,
        "matrix",
    )


def run(experiment, transport) -> np.ndarray:
    """The parameters in the end, and all of the history that does not depend on time or on the number of ranks."""
    description = layout.describe(experiment.data.path)
    experiment.check(description, transport.size)
    trainer = Trainer(experiment, description, transport)
    rows = []

    def keep(progress):
        values = {k: v for k, v in progress.row.items() if k not in ("seconds", "bytes_overhead")}
        rows.append(list(values.values()))

    trainer.train(keep)
    return np.concatenate([trainer.parameters.astype(np.float64), *rows])


def parameters(files: list[str], transport) -> list[np.ndarray]:
    return [run(experiment_of(files[number % len(files)], number, tables), transport) for number, tables in sample()]


if __name__ == "__main__":
    here = connect()
    found = parameters(sys.argv[2:], here)
    if here.rank == 0:
        np.savez(sys.argv[1], *found)
