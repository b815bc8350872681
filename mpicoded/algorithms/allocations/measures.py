"""What an allocation does with the subsets, counted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.allocations.base import Allocation
from mpicoded.algorithms.products import Rows
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.algorithms.spread import spread

_SPARSE = 100  # times as long as a dense product takes for a number


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


def mean_weights(held: Bool[Array, "devices subsets"]) -> Rows:
    """Each device's mean over its subsets."""
    device, subset = np.nonzero(held)
    return Rows.at(device, subset, 1.0 / held.sum(axis=1)[device], *held.shape)


def overlaps(held: Bool[Array, "devices subsets"]) -> Spread:
    """How many subsets pairs of devices share: by a dense product, or where most pairs share none, by a sparse one."""
    devices, subsets = held.shape
    pairs = devices * (devices - 1) // 2
    if _SPARSE * float((held.sum(axis=0, dtype=np.float64) ** 2).sum()) > float(devices) ** 2 * subsets or not pairs:
        whole = held.astype(np.float32)
        return Spread.of((whole @ whole.T).astype(np.int64)[np.triu_indices(devices, 1)])
    from scipy.sparse import csr_array, triu  # 0.15 s

    sparse = csr_array(held, dtype=np.int32)
    shared = triu(sparse @ sparse.T, 1).data
    least = int(shared.min()) if len(shared) == pairs else 0
    return Spread(least, float(shared.sum() / pairs), int(shared.max(initial=0)))


def report(
    allocation: Allocation,
    devices: int,
    subsets: int,
    seed: int,
    round: int = 0,
    weigh: Callable[[Any], Rows] = mean_weights,
) -> Report:
    """Measure the allocation of a round. ``weigh``: assignment → weights of the messages that rho is of."""
    held = allocation.assignment(devices, subsets, round, seed)
    copies = held.sum(axis=0)
    stored = allocation.holdings(devices, subsets, seed) if allocation.varies else held
    return Report(
        redundancy=Spread.of(held.sum(axis=1)),
        copies=Spread.of(copies),
        overlap=overlaps(held),
        lost=int((copies == 0).sum()),
        storage=Spread.of(stored.sum(axis=1)),
        holders=copies,
        rho=spread(weigh(held)).rho,
    )
