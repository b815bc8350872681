"""What an allocation does with the subsets, counted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.allocations.base import Allocation
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.algorithms.spread import spread


class Spread(NamedTuple):
    """Smallest, mean and largest of a count."""

    min: int
    mean: float
    max: int

    @classmethod
    def of(cls, counts: Int[Array, " n"]) -> "Spread":
        """The spread of an array of counts (all zero for none)."""
        return cls(int(counts.min()), float(counts.mean()), int(counts.max())) if counts.size else cls(0, 0.0, 0)

    def __str__(self) -> str:
        return f"{self.min}" if self.min == self.max else f"{self.min} to {self.max}, mean {self.mean:.4g}"


class Report(NamedTuple):
    """What an allocation does with the subsets."""

    redundancy: Spread  # subsets that a device computes in a round
    copies: Spread  # devices that compute a subset
    overlap: Spread  # subsets that a pair of devices shares
    lost: int  # subsets on no device
    storage: Spread  # subsets that a device must be able to read during the run
    holders: Int[Array, " subsets"]  # devices that compute each subset
    rho: float  # E ||g_i - grad F||^2 / beta^2, of each device's mean where no other weights are given


def mean_weights(held: Bool[Array, "devices subsets"]) -> Any:
    """Each device's mean over its subsets, as a sparse matrix (devices, subsets)."""
    from scipy.sparse import csr_array  # 0.15 s: not for commands that weigh nothing

    device, subset = np.nonzero(held)
    return csr_array((1.0 / held.sum(axis=1)[device], (device, subset)), shape=held.shape)


def report(
    allocation: Allocation,
    devices: int,
    subsets: int,
    seed: int,
    round: int = 0,
    weigh: Callable[[Any], Any] = mean_weights,
) -> Report:
    """Measure the allocation of a round. ``weigh``: assignment → weights of the messages that rho is of."""
    held = allocation.assignment(devices, subsets, round, seed)
    copies = held.sum(axis=0)
    stored = allocation.holdings(devices, subsets, seed) if allocation.varies else held
    shared = (held.astype(np.float32) @ held.astype(np.float32).T).astype(np.int64)
    return Report(
        redundancy=Spread.of(held.sum(axis=1)),
        copies=Spread.of(copies),
        overlap=Spread.of(shared[np.triu_indices(devices, 1)]),
        lost=int((copies == 0).sum()),
        storage=Spread.of(stored.sum(axis=1)),
        holders=copies,
        rho=spread(weigh(held)).rho,
    )
