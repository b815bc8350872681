"""What every allocation has, and the one without redundancy."""

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from mpicoded.algorithms.allocations.nearest import Pair, nearest
from mpicoded.algorithms.component import Component
from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.errors import InputError

Redundancy = Annotated[int, msgspec.Meta(ge=1)]


class Allocation(Component):
    """Base of the allocations."""

    def check(self, devices: int, subsets: int) -> None:
        """Raise InputError where no such allocation exists, naming the nearest parameters that do."""
        redundancy = getattr(self, "redundancy", None) or 1
        if redundancy > subsets:
            raise InputError(
                f"allocation {self.name()}: redundancy must be at most the number of subsets, {subsets}, "
                f"got {redundancy}"
            )

    def check_encoder(self, encoder: Component, devices: int, subsets: int) -> None:
        """Raise InputError where the encoder makes no sense with what this allocation, by its design, does."""

    @property
    def varies(self) -> bool:
        """Whether each round has an assignment of its own."""
        return False

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Which device computes which subset in this round."""
        raise NotImplementedError

    def even(
        self, devices: int, subsets: int, rounds: range, seed: int, first: int, stop: int
    ) -> Int[Array, "rounds devices held"] | None:
        """The subsets of devices first … stop-1 in these rounds, ascending, without the others' where that is quicker.

        Only where, in each of them, every device has as many subsets as any other and every subset as many copies;
        else None.
        """
        return None

    def holdings(self, devices: int, subsets: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Which subsets a device must be able to read during the whole run."""
        if self.varies:
            return np.ones((devices, subsets), bool)
        return self.assignment(devices, subsets, 0, seed)


class Partition(Allocation):
    """Every subset on one device: no redundancy (RBA-DL, and VA/MA with the plain mean)."""

    source: ClassVar[str] = "baseline of CRA-DL and LAD"
    acronym: ClassVar[str] = "RBA-DL; VA, MA with the rule mean"
    cost: ClassVar[str] = "every subset computed once"

    def check(self, devices: int, subsets: int) -> None:
        """At least one subset for each device."""
        if subsets < devices:
            raise InputError(
                f"allocation partition: needs at least as many subsets as devices, got {subsets} subsets "
                f"for {devices} devices"
            )

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """Contiguous blocks whose sizes differ by one at most."""
        return np.arange(devices)[:, None] == block_of(subsets, devices)[None, :]


class Designed(Allocation):
    """Base of the fixed allocations that give out tasks by a design; a task is a block of neighbouring subsets.

    Blocks are of equal size, or of sizes that differ by one where the allocation says so. ``permute``: which device has
    which row of the design, and which block is which of its columns, is drawn from the seed, once for the run;
    ``permute = false`` takes the design as it is written.
    """

    permute: bool = True  # draw from the seed who has which row, and which tasks, once for the run

    def design(self, devices: int, subsets: int) -> Bool[Array, "devices tasks"]:
        """Which row of the design holds which task."""
        raise NotImplementedError

    def assignment(self, devices: int, subsets: int, round: int, seed: int) -> Bool[Array, "devices subsets"]:
        """The (permuted) design, its tasks written out as subsets; the same in all rounds."""
        held = self.design(devices, subsets)
        tasks = held.shape[1]
        if self.permute:
            stream = generator(seed, "allocation")
            held = held[stream.permutation(devices)][:, stream.permutation(tasks)]
        return held if tasks == subsets else held[:, block_of(subsets, tasks)]

    def refuse(self, reason: str, devices: int, subsets: int, pairs: list[Pair]) -> InputError:
        """The error for a number of devices and subsets that this allocation does not have."""
        return InputError(f"allocation {self.name()}: {reason}; nearest: {nearest(devices, subsets, pairs)}")


def block_of(subsets: int, blocks: int) -> Array:
    """The block that each subset is in: contiguous ones whose sizes differ by one at most."""
    return np.arange(subsets) * blocks // subsets
