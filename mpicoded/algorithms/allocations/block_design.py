"""CRA-DL's pairwise balance with equal copies, where it exists exactly."""

from typing import ClassVar

from mpicoded.algorithms.allocations.base import Designed, Redundancy
from mpicoded.algorithms.allocations.designs import Design, Family, designs
from mpicoded.algorithms.allocations.nearest import FARTHEST, Pair, around, multiples
from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.errors import InputError


class BlockDesign(Designed):
    """A balanced incomplete block design: every pair of devices shares exactly as many subsets, all have equal copies.

    Device = point, task = block: with M tasks of which a device has r, each has k = N r/M copies and each pair of
    devices shares lambda = r (k-1)/(N-1). The design follows from the numbers of devices and subsets; a task is a block
    of subsets where these are a multiple of the design's. Where several designs have these numbers, ``redundancy``
    (subsets of a device) chooses, and the least is the default; ``family`` takes one of that kind. Families:
    ``projective``, points and hyperplanes, planes first of all (N = M = q^2+q+1, r = q+1, lambda = 1); ``affine``
    (N = q^2, M = q^2+q, r = q+1, lambda = 1); ``paley`` (N = M = q = 4t-1, r = 2t-1, lambda = t-1); ``difference_set``
    (Singer, squares, fourth powers, twin prime powers, bent functions); ``steiner``, the 2-(100,4,1) (M = 825, r = 33).
    """

    source: ClassVar[str] = "CRA-DL, arXiv 2506.01989; block designs as codes: Kadhe et al. 2019"
    acronym: ClassVar[str] = "BIBD"
    cost: ClassVar[str] = "N × redundancy subsets computed"
    redundancy: Redundancy | None = None  # subsets of a device; unset: the least that there is
    family: Family | None = None  # the kind of design; unset: any

    def check(self, devices: int, subsets: int) -> None:
        """A design of these numbers that is known."""
        super().check(devices, subsets)
        if self._design(devices, subsets) is not None:
            return
        loads = {_load(design, subsets) for design in self._designs(devices, subsets)}
        if loads:
            named = " or ".join(map(str, around(loads, self.redundancy or 0)))
            raise InputError(
                f"allocation block_design: {devices} devices with {subsets} subsets have no design of redundancy "
                f"{self.redundancy}; the nearest redundancy is {named}"
            )
        what = f"{self.family} design" if self.family else "block design"
        where = f"is known for {devices} devices and {subsets} subsets, or a divisor of those"
        reason, pairs = f"no {what} {where}", self._pairs(devices, subsets)
        if self.redundancy is not None:
            of_this = self._pairs(devices, subsets, self.redundancy)
            reason = f"no {what} of redundancy {self.redundancy} {where}"
            if not of_this:
                reason += ", nor for any others, so leave redundancy out"
            pairs = of_this or pairs
        raise self.refuse(reason, devices, subsets, pairs)

    def design(self, devices: int, subsets: int) -> Bool[Array, "devices tasks"]:
        """Points × blocks."""
        design = self._design(devices, subsets)
        assert design is not None, "the allocation has been checked"
        return design.build()

    def _design(self, devices: int, subsets: int) -> Design | None:
        """Of those that exist, that of the least redundancy, or of the one asked for."""
        found = self._designs(devices, subsets)
        if self.redundancy is not None:
            found = [design for design in found if _load(design, subsets) == self.redundancy]
        return min(found, key=lambda design: _load(design, subsets), default=None)

    def _designs(self, devices: int, subsets: int) -> list[Design]:
        return [design for design in self._known(devices) if design.devices == devices and subsets % design.tasks == 0]

    def _known(self, limit: int) -> list[Design]:
        """Those for at least as many devices as that; up to a power of two, so that the next number finds them made."""
        return [
            design
            for design in designs(1 << (min(limit, FARTHEST) - 1).bit_length())
            if self.family in (None, design.family)
        ]

    def _pairs(self, devices: int, subsets: int, redundancy: int | None = None) -> list[Pair]:
        """Devices and subsets near these that have a design."""
        known = self._known(max(4 * devices, subsets, 100))
        if redundancy is None:
            return [pair for design in known for pair in multiples(design.devices, design.tasks, subsets)]
        return [
            (design.devices, design.tasks * redundancy // design.redundancy)
            for design in known
            if redundancy % design.redundancy == 0
        ]


def _load(design: Design, subsets: int) -> int:
    return design.redundancy * subsets // design.tasks
