"""Who computes what: an allocation is a 0/1 matrix of devices × subsets.

LAD assigns anew in each round (``cyclic``); CRA-DL allocates once (``balanced``, ``uniform``). Redundancy,
written d in LAD and r in CRA-DL, is the number of subsets a device computes in a round.
"""

from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np

from mpicoded.algorithms.component import Component
from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.errors import InputError

Redundancy = Annotated[int, msgspec.Meta(ge=1)]


class Allocation(Component):
    """Base of the allocations."""

    def check(self, devices: int, subsets: int) -> None:
        """Raise InputError where no such allocation exists, naming the nearest parameters that do."""
        redundancy = getattr(self, "redundancy", 1)
        if redundancy > subsets:
            raise InputError(
                f"allocation {self.name()}: redundancy must be at most the number of subsets, {subsets}, "
                f"got {redundancy}"
            )

    @property
    def varies(self) -> bool:
        """Whether each round has an assignment of its own."""
        return False

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Which device computes which subset in this round."""
        raise NotImplementedError

    def holdings(self, devices: int, subsets: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Which subsets a device must be able to read during the whole run."""
        if self.varies:
            return np.ones((devices, subsets), bool)
        return self.assignment(devices, subsets, 0, seed)


class Partition(Allocation):
    """Every subset on one device: no redundancy (RBA-DL, and VA/MA with the plain mean)."""

    source: ClassVar[str] = "baseline of CRA-DL and LAD"

    def check(self, devices: int, subsets: int) -> None:
        """At least one subset for each device."""
        if subsets < devices:
            raise InputError(
                f"allocation partition: needs at least as many subsets as devices, got {subsets} subsets "
                f"for {devices} devices"
            )

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Contiguous blocks whose sizes differ by one at most."""
        owner = np.arange(subsets) * devices // subsets
        return np.arange(devices)[:, None] == owner[None, :]


class Cyclic(Allocation):
    """LAD: cyclic windows over the tasks, devices and tasks permuted anew in each round.

    Device i computes the tasks pi_t(k) with A[tau_t(i), k] = 1, where A[i, (i+j) mod N] = 1 for
    j = 0 … d-1, and pi_t, tau_t are random permutations of round t. There are as many tasks as devices; a
    task is a block of subsets/devices subsets. ``permute = false`` keeps the fixed cyclic code.
    """

    source: ClassVar[str] = "LAD, arXiv 2603.28780"
    redundancy: Redundancy
    permute: bool = True

    def check(self, devices: int, subsets: int) -> None:
        """Whole tasks of equal size, and a whole number of them for each device."""
        super().check(devices, subsets)
        if subsets % devices:
            nearest = max(1, round(subsets / devices)) * devices
            raise InputError(
                f"allocation cyclic: the number of subsets must be a multiple of the {devices} devices, "
                f"got {subsets}; the nearest is {nearest}"
            )
        size = subsets // devices
        if self.redundancy % size:
            nearest = max(1, round(self.redundancy / size)) * size
            raise InputError(
                f"allocation cyclic: redundancy must be a multiple of {size}, the subsets of a task "
                f"({subsets} subsets / {devices} devices), got {self.redundancy}; the nearest is {nearest}"
            )

    @property
    def varies(self) -> bool:
        """Permuted windows change in each round."""
        return self.permute

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """The (permuted) cyclic windows of one round."""
        size = subsets // devices
        rows = tasks = np.arange(devices)
        if self.permute:
            stream = generator(seed, "permutation", round)
            rows = stream.permutation(devices)  # tau: the row of A that a device takes
            tasks = stream.permutation(devices)  # pi: the task at each column of A
        columns = (rows[:, None] + np.arange(self.redundancy // size)) % devices
        window = np.zeros((devices, devices), bool)
        window[np.arange(devices)[:, None], tasks[columns]] = True
        return np.repeat(window, size, axis=1) if size > 1 else window


class Uniform(Allocation):
    """Each device holds ``redundancy`` subsets drawn at random: CRA-DL's own approximation.

    Subsets that no device drew are lost: training never sees their data, and settles at the optimum of
    the others. Their expected number is M (1 - r/M)^N.
    """

    source: ClassVar[str] = "CRA-DL, arXiv 2506.01989"
    redundancy: Redundancy

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Independent draws without replacement, once for the run."""
        keys = generator(seed, "allocation").random((devices, subsets))
        chosen = np.argpartition(keys, self.redundancy - 1, axis=1)[:, : self.redundancy]
        held = np.zeros((devices, subsets), bool)
        np.put_along_axis(held, chosen, True, axis=1)
        return held


class Balanced(Allocation):
    """Random, with exactly r subsets on each device and exactly Nr/M copies of each subset.

    Nr/M random permutations of the subsets are dealt out in turn; where a device got a subset twice, it
    swaps the spare copy with another device. Pairs of devices share nearly the r^2/M subsets of CRA-DL, no subset is
    lost, and the plain mean of a device's gradients is unbiased.
    """

    source: ClassVar[str] = "balanced form of CRA-DL, arXiv 2506.01989"
    redundancy: Redundancy

    def check(self, devices: int, subsets: int) -> None:
        """Equal copies: devices × redundancy is a multiple of the subsets."""
        super().check(devices, subsets)
        if devices * self.redundancy % subsets:
            step = subsets // int(np.gcd(subsets, devices))
            below = self.redundancy // step * step
            nearest = [r for r in (below, below + step) if 0 < r <= subsets]
            raise InputError(
                f"allocation balanced: devices × redundancy must be a multiple of the {subsets} subsets, got "
                f"{devices} × {self.redundancy}; the nearest redundancy is {' or '.join(map(str, nearest))}"
            )

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Dealt permutations with the duplicates repaired, once for the run."""
        stream = generator(seed, "allocation")
        copies = devices * self.redundancy // subsets
        dealt = np.concatenate([stream.permutation(subsets) for _ in range(copies)])
        held = np.zeros((devices, subsets), np.int64)
        np.add.at(held, (np.arange(dealt.size) % devices, dealt), 1)
        while (spare := np.argwhere(held > 1)).size:
            for device, subset in spare.tolist():
                _swap_spare(held, device, subset, stream)
        return held.astype(bool)


def _swap_spare(held: Array, device: int, subset: int, stream: np.random.Generator) -> None:
    """Trade a spare copy of ``subset`` for one that ``device`` lacks, with a device that lacks ``subset``."""
    if held[device, subset] < 2:  # mended by an earlier trade
        return
    other = stream.choice(np.flatnonzero(held[:, subset] == 0))
    candidates = np.flatnonzero((held[other] > 0) & (held[device] == 0))
    if candidates.size:
        wanted = stream.choice(candidates)
        held[device, [subset, wanted]] += (-1, 1)
        held[other, [subset, wanted]] += (1, -1)


Choice = Partition | Cyclic | Uniform | Balanced


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


def report(allocation: Allocation, devices: int, subsets: int, seed: int) -> Report:
    """Measure the allocation of round 0."""
    held = allocation.assignment(devices, subsets, 0, seed)
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
    )
