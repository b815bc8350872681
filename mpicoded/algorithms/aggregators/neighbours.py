"""Rules that ask which votes have others near: Krum and what follows from it."""

from typing import ClassVar

import numpy as np

from mpicoded.algorithms.aggregators.base import TolerantAggregator, Vector, Votes, share
from mpicoded.algorithms.aggregators.coordinates import middle_ranks
from mpicoded.algorithms.arrays import as_floats, namespace, on_host, rows, store
from mpicoded.algorithms.component import PositiveCount
from mpicoded.algorithms.ordering import nearest_mean
from mpicoded.algorithms.shapes import Array, Float, Int
from mpicoded.algorithms.slices import WHOLE, Sums, squared_distances


class Krum(TolerantAggregator):
    """The vote with the smallest sum of squared distances to its n - f - 2 nearest others."""

    source: ClassVar[str] = "Blanchard et al. 2017"
    needs: ClassVar[tuple[int, int]] = (2, 3)
    proven: ClassVar[str] = "6 (1 + a), a = f/(n - 2f)"
    cost: ClassVar[str] = "n^2 dim"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """The vote of lowest score."""
        self.check(votes.shape[0])
        best = int(namespace(votes).argmin(krum_scores(votes, self.byzantine, sums)))
        return store(votes[best, :] + 0, out)  # a copy: the votes stay the caller's

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """6 (1 + a) with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 6 * (1 + share(votes, byzantine))


class MultiKrum(TolerantAggregator):
    """Mean of the votes with the lowest Krum scores: n - f of them unless ``selected`` says otherwise."""

    source: ClassVar[str] = "Blanchard et al. 2017"
    needs: ClassVar[tuple[int, int]] = (2, 3)
    cost: ClassVar[str] = "n^2 dim"
    selected: PositiveCount | None = None  # how many votes are averaged; unset: n - f

    def fewest(self) -> int:
        """2f + 3, or the number selected."""
        return max(super().fewest(), self.selected or 0)

    def breakdown(self, votes: int) -> int:
        """At most those that are not selected."""
        return max(0, min(super().breakdown(votes), votes - (self.selected or 0)))

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Mean of the selected votes."""
        self.check(votes.shape[0])
        xp = namespace(votes)
        count = self.selected or votes.shape[0] - self.byzantine
        best = xp.argsort(krum_scores(votes, self.byzantine, sums), stable=True)[:count]
        return sums.mean_of(best, votes, out)


class Bulyan(TolerantAggregator):
    """Krum's choice n - 2f times, without those chosen before; of these, each coordinate's mean around the median.

    Scores are those among the votes that are left. The mean is that of the n - 4f values nearest to the median.
    """

    source: ClassVar[str] = "El Mhamdi et al. 2018"
    needs: ClassVar[tuple[int, int]] = (4, 3)
    cost: ClassVar[str] = "n^2 dim + n^3 log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Choose, then average each coordinate; of two values equally near to the median, the smaller."""
        self.check(votes.shape[0])
        votes = as_floats(votes)
        chosen = _krum_again_and_again(on_host(squared_distances(votes, sums)), self.byzantine)
        kept = votes.shape[0] - 4 * self.byzantine
        return nearest_mean(rows(votes, chosen), *middle_ranks(len(chosen)), kept, out)


def krum_scores(votes: Float[Array, "votes dim"], byzantine: int, sums: Sums = WHOLE) -> Float[Array, " votes"]:
    """Sum of squared distances to the n - f - 2 nearest other votes."""
    xp = namespace(votes)
    ordered = xp.sort(squared_distances(votes, sums), axis=-1)  # the first is the vote itself, at zero
    return xp.sum(ordered[:, 1 : votes.shape[0] - byzantine - 1], axis=-1)


def _krum_again_and_again(distances: Float[Array, "votes votes"], byzantine: int) -> Int[Array, " chosen"]:
    """n - 2f votes, ascending: each the one of lowest Krum score among those that were left.

    Where the nearest other alone counts, or none, two nearest neighbours have the same score: then that of the two
    whose second nearest is nearer goes first. What is still equal is taken by the lower index.
    """
    distances = (distances + distances.T) / 2  # equal bits both ways, for equal scores
    left = np.arange(len(distances))
    while byzantine and len(left) > 2 * byzantine:
        near = np.sort(distances[np.ix_(left, left)], axis=1)[:, 1:]
        sums = np.cumsum(near, axis=1)[:, max(len(left) - byzantine - 2, 1) - 1 :]
        left = np.delete(left, np.lexsort((sums[:, 1], sums[:, 0]))[0])
    chosen = np.ones(len(distances), bool)
    chosen[left] = byzantine == 0
    return np.flatnonzero(chosen)
