"""The votes that are nearest to each other as a set, and the search for them."""

from math import comb
from typing import ClassVar

import numpy as np

from mpicoded.algorithms.aggregators.base import TolerantAggregator, Vector, Votes
from mpicoded.algorithms.arrays import as_floats, namespace, on_host
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import WHOLE, Sums, squared_distances
from mpicoded.errors import InputError

_MOST = 50  # Byzantine votes: the worst cases known to us take about 1.3^f steps, a second here


class MinimumDiameter(TolerantAggregator):
    """Mean of the n - f votes of smallest diameter (MDA), found exactly.

    Of sets with the same diameter, which are the rule rather than the exception, it is the one whose second largest
    distance is smallest, then the third, and so on: the order of the votes then decides only where distances are
    equal, in favour of lower indices.
    """

    source: ClassVar[str] = "El Mhamdi et al. 2020"
    acronym: ClassVar[str] = "MDA"
    cost: ClassVar[str] = f"n^2 dim, and a search that can take 1.3^f steps (f <= {_MOST})"

    def check(self, votes: int) -> None:
        """Refuse also a search that might not end in a reasonable time."""
        super().check(votes)
        if self.byzantine > _MOST:
            raise InputError(
                f"MinimumDiameter(byzantine={self.byzantine}) would search the {comb(votes, self.byzantine):.1e} "
                f"subsets of {votes} votes; it does so for byzantine <= {_MOST}"
            )

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Search, then average."""
        self.check(votes.shape[0])
        votes = as_floats(votes)
        kept = _least_diameter(on_host(squared_distances(votes, sums)), self.byzantine)
        return sums.mean_of(namespace(votes).asarray(kept, device=votes.device), votes, out)


def _least_diameter(distances: Float[Array, "votes votes"], dropped: int) -> Array:
    """Which votes to keep: all but ``dropped``, so that the largest distances are as small as can be.

    The pairs are taken from the most distant on. Each must lose a vote if that is possible together with all the pairs
    before; if not, both of its votes are kept by every choice that is left. Sets of votes are the bits of an integer.
    """
    count = len(distances)
    first, second = np.triu_indices(count, 1)
    order = np.argsort(distances[first, second], kind="stable")[::-1]
    everyone, kept, found = (1 << count) - 1, 0, 0
    apart = [0] * count  # for each vote those of which it must not be kept with
    for one, other in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if kept.bit_count() == count - dropped:
            break
        pair = 1 << one | 1 << other
        if kept & pair == pair:
            continue
        apart[one] |= 1 << other
        apart[other] |= 1 << one
        if found & pair:
            continue  # what was found for the pairs before does for this one too
        certain = _union(apart, kept)
        rest = None
        if not certain & kept:
            rest = _cover(apart, everyone & ~certain & ~kept, dropped - certain.bit_count())
        if rest is None:
            apart[one] &= ~(1 << other)
            apart[other] &= ~(1 << one)
            kept |= pair
        else:
            found = certain | rest
    return np.array([vote for vote in range(count) if not found >> vote & 1])


def _cover(apart: list[int], votes: int, most: int) -> int | None:
    """At most ``most`` of the votes to drop, so that no two that are apart are left; None where there are none such.

    The vertex cover of a graph, by branching on a vote that is apart from most others: it goes, or all those go.
    """
    dropped = 0
    while most >= 0:
        votes_before, pairs, worst, worst_count = votes, 0, 0, 0
        for vote in _bits(votes):
            others = apart[vote] & votes if votes >> vote & 1 else 0
            degree = others.bit_count()
            if degree == 0:
                votes &= ~(1 << vote)
            elif degree == 1 or degree > most:  # the only other one may as well go; or else more would than may
                gone = others if degree == 1 else 1 << vote
                dropped, votes, most = dropped | gone, votes & ~gone, most - 1
            elif degree > worst_count:
                worst, worst_count = vote, degree
            pairs += degree
        if votes == 0 and most >= 0:
            return dropped
        if votes == votes_before:
            break
    if most < 0 or pairs > 2 * most * worst_count:
        return None
    others = apart[worst] & votes
    for gone in (1 << worst, others):
        rest = _cover(apart, votes & ~gone & ~(1 << worst), most - gone.bit_count())
        if rest is not None:
            return dropped | gone | rest
    return None


def _bits(votes: int) -> list[int]:
    found = []
    while votes:
        lowest = votes & -votes
        found.append(lowest.bit_length() - 1)
        votes ^= lowest
    return found


def _union(sets: list[int], votes: int) -> int:
    found = 0
    for vote in _bits(votes):
        found |= sets[vote]
    return found
