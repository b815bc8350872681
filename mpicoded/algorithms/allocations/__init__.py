"""Who computes what: an allocation is a 0/1 matrix of devices × subsets.

LAD assigns anew in each round (``cyclic``); CRA-DL allocates once (``balanced``, ``uniform``; exactly, where the
numbers allow it, ``block_design`` and ``orthogonal_array``). Votes need devices that compute the same (``repetition``,
``latin_square``, ``all_subsets``). Redundancy, written d in LAD and r in CRA-DL, is the number of subsets a device
computes in a round.
"""

from mpicoded.algorithms.allocations.base import Allocation, Partition
from mpicoded.algorithms.allocations.block_design import BlockDesign
from mpicoded.algorithms.allocations.drawn import Balanced, Cyclic, Uniform
from mpicoded.algorithms.allocations.groups import AllSubsets, Repetition
from mpicoded.algorithms.allocations.measures import Report, Spread, report
from mpicoded.algorithms.allocations.orthogonal import LatinSquare, OrthogonalArray

Choice = Partition | Cyclic | Uniform | Balanced | BlockDesign | OrthogonalArray | Repetition | LatinSquare | AllSubsets

__all__ = [
    "AllSubsets",
    "Allocation",
    "Balanced",
    "BlockDesign",
    "Choice",
    "Cyclic",
    "LatinSquare",
    "OrthogonalArray",
    "Partition",
    "Repetition",
    "Report",
    "Spread",
    "Uniform",
    "report",
]
