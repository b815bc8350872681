"""The papers' own allocations: cyclic windows permuted in each round, and random ones drawn once."""

from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mpicoded.algorithms.allocations.base import Allocation, Redundancy
from mpicoded.algorithms.randomness import generator, generators
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.errors import InputError


class Cyclic(Allocation):
    """LAD: cyclic windows over the tasks, devices and tasks permuted anew in each round.

    Device i computes the tasks pi_t(k) with A[tau_t(i), k] = 1, where A[i, (i+j) mod N] = 1 for
    j = 0 … d-1, and pi_t, tau_t are random permutations of round t. There are as many tasks as devices; a
    task is a block of subsets/devices subsets. ``permute = false`` keeps the fixed cyclic code.
    """

    source: ClassVar[str] = "LAD, arXiv 2603.28780"
    acronym: ClassVar[str] = "LAD"
    cost: ClassVar[str] = "N × redundancy subsets computed, drawn anew in each round"
    redundancy: Redundancy  # subsets that a device computes in a round
    permute: bool = True  # windows of other devices and tasks in each round; false: the fixed cyclic code

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
        held = np.zeros((devices, subsets), bool)
        (windows,) = self._windows(devices, subsets, range(round, round + 1), seed, 0, devices)
        held[np.arange(devices)[:, None], windows] = True
        return held

    def even(
        self, devices: int, subsets: int, rounds: range, seed: int, first: int, stop: int
    ) -> Int[Array, "rounds devices held"] | None:
        """The windows of these devices."""
        windows = self._windows(devices, subsets, rounds, seed, first, stop)
        windows.sort(axis=-1)
        return windows

    def _windows(
        self, devices: int, subsets: int, rounds: range, seed: int, first: int, stop: int
    ) -> Int[Array, "rounds devices held"]:
        size = subsets // devices
        width = self.redundancy // size
        rows = np.empty((len(rounds), devices), np.int64)  # tau: the row of A that a device takes
        tasks = np.empty_like(rows)  # pi: the task at each column of A
        rows[...] = tasks[...] = np.arange(devices)
        if self.permute:
            for i, stream in enumerate(generators(seed, "permutation", rounds)):
                stream.shuffle(rows[i])  # as ``permutation`` does with a range of its own
                stream.shuffle(tasks[i])
        round_trip = np.concatenate([tasks, tasks[:, : width - 1]], axis=1)
        line, item = round_trip.strides
        # What sliding_window_view gives, whose checks take as long as all else for a single round.
        windows = as_strided(round_trip, (len(rounds), devices, width), (line, item, item), writeable=False)
        found: Array = windows[np.arange(len(rounds))[:, None], rows[:, first:stop]]
        if size > 1:
            found = (found[..., None] * size + np.arange(size)).reshape(*found.shape[:2], width * size)
        return found


class Uniform(Allocation):
    """Each device holds ``redundancy`` subsets drawn at random: CRA-DL's own approximation.

    Subsets that no device drew are lost: training never sees their data, and settles at the optimum of
    the others. Their expected number is M (1 - r/M)^N. That is chance and the paper's own, so it is reported and no
    encoder refused.
    """

    source: ClassVar[str] = "CRA-DL, arXiv 2506.01989"
    acronym: ClassVar[str] = "CRA-DL, as approximated"
    cost: ClassVar[str] = "N × redundancy subsets computed"
    redundancy: Redundancy  # subsets that a device computes in a round

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
    acronym: ClassVar[str] = "CRA-DL"
    cost: ClassVar[str] = "N × redundancy subsets computed"
    redundancy: Redundancy  # subsets that a device computes in a round

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
