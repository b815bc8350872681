"""Rules that drop votes, or give them less weight, by one number for each vote."""

from typing import ClassVar

import numpy as np

from mpicoded.algorithms.aggregators.base import TolerantAggregator, Vector, Votes
from mpicoded.algorithms.arrays import as_floats, namespace, on_host
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import WHOLE, Sums, centred_gram


class NormThreshold(TolerantAggregator):
    """Mean of the votes without the f of largest norm (TGN); of equal norms the later one goes."""

    source: ClassVar[str] = "Ghosh et al. 2019"
    acronym: ClassVar[str] = "TGN"
    takes: ClassVar[tuple[int, int] | None] = (1, 1)
    proven: ClassVar[str] = "none: a short lie stays in, however much the honest votes agree"
    cost: ClassVar[str] = "n dim"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Drop and average, in the votes' order."""
        self.check(votes.shape[0])
        votes, xp = as_floats(votes), namespace(votes)
        order = xp.argsort(sums.squares(votes), stable=True)
        return sums.mean_of(order[: votes.shape[0] - self.byzantine], votes, out)


class CovarianceFiltering(TolerantAggregator):
    """Weighted mean whose covariance has the least largest eigenvalue, of those met while outliers lose weight (CAF).

    Weights c start at 1. While sum c > n - 2f: mu and Sigma, the weighted mean and covariance; v, the eigenvector of
    the largest eigenvalue; tau_i = ((x_i - mu) v)^2; c_i *= 1 - tau_i / max tau, the maximum where c is not zero.
    """

    source: ClassVar[str] = "Allouah et al. 2025, untrusted participants"
    acronym: ClassVar[str] = "CAF"
    cost: ClassVar[str] = "n^2 dim, and 2 f eigenvectors of n x n matrices"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """The covariance's eigenvalues are those of the votes' inner products, weighted: n x n, whatever dim is."""
        self.check(votes.shape[0])
        votes, xp = as_floats(votes), namespace(votes)
        centre, gram = centred_gram(votes, sums)
        weights = _least_spread(on_host(gram), self.byzantine)
        weights = xp.asarray(weights, dtype=votes.dtype, device=votes.device)
        return sums.combine_about(centre, weights, votes, out)


def _least_spread(gram: Float[Array, "votes votes"], byzantine: int) -> Float[Array, " votes"]:
    """The weights, adding up to 1, of the mean with the least spread, from inner products about any centre."""
    count = len(gram)
    kept = np.ones(count)  # c
    best = np.inf
    while True:
        weights = kept / kept.sum()
        towards = gram @ weights
        about_mean = gram - towards[:, None] - towards[None, :] + weights @ towards
        roots = np.sqrt(weights)
        values, vectors = np.linalg.eigh(roots[:, None] * about_mean * roots[None, :])
        if values[-1] < best:
            best, found = values[-1], weights
        along = np.where(kept > 0, np.abs(about_mean @ (roots * vectors[:, -1])), 0)  # sqrt(tau), but for a factor
        if not along.any():
            return found
        kept *= 1 - (along / along.max()) ** 2
        if kept.sum() <= count - 2 * byzantine:
            return found
