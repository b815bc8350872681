"""Which subsets each rank holds, and which rank evaluates which."""

from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.data.layout import Description
from mpicoded.experiment import Experiment
from mpicoded.transport.base import block_starts

_SUBSETS = 256  # worked at a time


class Placement(NamedTuple):
    """Where the subsets are."""

    holders: Bool[Array, "ranks subsets"]  # what the devices of each rank may compute during the run
    held: Bool[Array, "ranks subsets"]  # what each rank has in memory


def placement(experiment: Experiment, description: Description, ranks: int) -> Placement:
    """A rank has in memory what its devices may compute, and what no device does and it evaluates."""
    holdings = experiment.allocation.holdings(experiment.devices, description.subsets, experiment.seed)
    holders = np.logical_or.reduceat(holdings, block_starts(experiment.devices, ranks), axis=0)
    return Placement(holders, holders | (evaluators(holders) == np.arange(ranks)[:, None]))


def evaluators(holders: Bool[Array, "ranks subsets"]) -> Int[Array, " subsets"]:
    """The rank that evaluates each subset: one of its holders, taken in turn; rank 0 where nobody holds it."""
    turn = np.arange(holders.shape[1]) % np.maximum(holders.sum(axis=0), 1)
    found = np.empty(holders.shape[1], np.int64)
    for start in range(0, len(found), _SUBSETS):  # numbers for all pairs at once would take gigabytes
        some = slice(start, start + _SUBSETS)
        place = np.cumsum(np.ascontiguousarray(holders[:, some].T), axis=1, dtype=np.int32)
        found[some] = np.argmax(place == turn[some, None] + 1, axis=1)  # reached first at a holder
    return found
