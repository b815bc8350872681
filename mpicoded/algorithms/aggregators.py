"""Robust rules: (votes, dim) → (dim,).

A rule tolerates an integer number f of Byzantine votes among n. It is (f, kappa)-robust when, for every set
S of n - f votes, ||F - mean_S||^2 <= (kappa/|S|) sum over S of ||x_i - mean_S||^2 (Allouah et al. 2023).
Votes are finite here: ``arrays.replace_unusable`` has been there first.
"""

from math import inf
from typing import Any, ClassVar

from mpicoded.algorithms.arrays import (
    as_floats,
    centred_gram,
    namespace,
    pair_distances,
    per_coordinate,
    squared_distances,
    store,
)
from mpicoded.algorithms.component import Count, Positive, PositiveCount, VotesTaker
from mpicoded.algorithms.shapes import Array, Float

Votes = Float[Array, "votes dim"]
Vector = Float[Array, " dim"]


class Aggregator(VotesTaker):
    """Base of the rules."""

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """One vector for all votes; ``previous`` is the last round's, for rules that start from it."""
        raise NotImplementedError

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """kappa of the rule where ``byzantine`` of the votes lie; None where the literature has none."""
        return None


class Mean(Aggregator):
    """Arithmetic mean: no robustness (VA, MA; also SGC-DL's server)."""

    source: ClassVar[str] = "baseline"

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """Mean over votes."""
        return store(namespace(votes).mean(votes, axis=0), out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """None without Byzantine votes, else unbounded."""
        return 0.0 if byzantine == 0 else inf


class CoordinateMedian(Aggregator):
    """Median of each coordinate (CWMed); the mean of the middle two where the number of votes is even."""

    source: ClassVar[str] = "Yin et al. 2018"

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """Median over votes."""
        low, high = (votes.shape[0] - 1) // 2, votes.shape[0] // 2
        return per_coordinate(votes, lambda xp, x: x[:, low] / 2 + x[:, high] / 2, out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """4 (1 + a)^2 with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 4 * (1 + _share(votes, byzantine)) ** 2


class TrimmedMean(Aggregator):
    """Mean of each coordinate without its f largest and f smallest values (CWTM)."""

    source: ClassVar[str] = "Yin et al. 2018"
    byzantine: Count

    def fewest(self) -> int:
        """2f + 1."""
        return 2 * self.byzantine + 1

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """Mean of the n - 2f middle values."""
        self.check(votes.shape[0])
        low, high = self.byzantine, votes.shape[0] - self.byzantine
        return per_coordinate(votes, lambda xp, x: xp.mean(x[:, low:high], axis=-1), out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """6 a (1 + a) with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 6 * _share(votes, byzantine) * (1 + _share(votes, byzantine))


class Phocas(Aggregator):
    """Mean of each coordinate's n - f values nearest to its trimmed mean."""

    source: ClassVar[str] = "Xie et al. 2018"
    byzantine: Count

    def fewest(self) -> int:
        """2f + 1."""
        return 2 * self.byzantine + 1

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """Trimmed mean, then the mean of the nearest; of two values equally near, the smaller."""
        self.check(votes.shape[0])
        low, high = self.byzantine, votes.shape[0] - self.byzantine

        def reduce(xp: Any, x: Array) -> Array:
            centre = xp.mean(x[:, low:high], axis=-1, keepdims=True)
            nearest = xp.argsort(xp.abs(x - centre), axis=-1, stable=True)[:, :high]
            return xp.mean(xp.take_along_axis(x, xp.sort(nearest, axis=-1), axis=-1), axis=-1)

        return per_coordinate(votes, reduce, out)


class Krum(Aggregator):
    """The vote with the smallest sum of squared distances to its n - f - 2 nearest others."""

    source: ClassVar[str] = "Blanchard et al. 2017"
    byzantine: Count

    def fewest(self) -> int:
        """2f + 3."""
        return 2 * self.byzantine + 3

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """The vote of lowest score."""
        self.check(votes.shape[0])
        best = int(namespace(votes).argmin(krum_scores(votes, self.byzantine)))
        return store(votes[best, :] + 0, out)  # a copy: the votes stay the caller's

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """6 (1 + a) with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 6 * (1 + _share(votes, byzantine))


class MultiKrum(Aggregator):
    """Mean of the votes with the lowest Krum scores: n - f of them unless ``selected`` says otherwise."""

    source: ClassVar[str] = "Blanchard et al. 2017"
    byzantine: Count
    selected: PositiveCount | None = None

    def fewest(self) -> int:
        """2f + 3, or the number selected."""
        return max(2 * self.byzantine + 3, self.selected or 0)

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """Mean of the selected votes."""
        self.check(votes.shape[0])
        xp = namespace(votes)
        count = self.selected or votes.shape[0] - self.byzantine
        best = xp.argsort(krum_scores(votes, self.byzantine), stable=True)[:count]
        return store(xp.mean(xp.take(votes, xp.sort(best), axis=0), axis=0), out)


class GeometricMedian(Aggregator):
    """The point of least summed distance to the votes (RFA), by smoothed Weiszfeld steps until converged.

    z = sum b_i x_i / sum b_i with b_i = 1 / max(nu, ||z - x_i||). ``tolerance``: the steps end when one moves the
    point by less than this times the median distance to the votes. ``smoothing`` is nu in the same unit.
    """

    source: ClassVar[str] = "Pillutla et al. 2019"
    tolerance: Positive = 1e-10
    smoothing: Positive = 1e-9
    max_steps: PositiveCount = 10_000

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """Iterate on the weights alone: the point is a mean of votes, so their inner products say all.

        A vote acts by its direction only, so one that is further than 1/sqrt(eps) median distances is drawn
        in to there: nothing is lost, and no outlier is large enough to drown the others in rounding.
        """
        votes, xp = as_floats(votes), namespace(votes)
        eps = float(xp.finfo(votes.dtype).eps)
        centre, gram = centred_gram(votes)
        squares = xp.linalg.diagonal(gram)
        limit = min(float(xp.sort(squares)[votes.shape[0] // 2]) / eps, float(xp.finfo(votes.dtype).max))
        ones = xp.ones_like(squares)
        shrink = xp.where(squares > limit, xp.sqrt(limit / xp.where(squares > limit, squares, ones)), ones)
        weights = shrink * self._weights(pair_distances(gram * shrink[:, None] * shrink[None, :]))
        return store(weights @ votes + (1 - xp.sum(weights)) * centre, out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """4 (1 + a)^2 with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 4 * (1 + _share(votes, byzantine)) ** 2

    def _weights(self, squares: Float[Array, "votes votes"]) -> Float[Array, " votes"]:
        """The weights of the votes in their geometric median, from their squared distances."""
        xp = namespace(squares)
        count = squares.shape[0]
        # Start among the votes that have most others near: from the plain mean, two far votes on opposite sides
        # would make the distances of the others the difference of two large numbers.
        typical = xp.sqrt(xp.sort(squares, axis=-1)[:, count // 2])
        least = float(xp.min(typical))
        weights = least / typical if least > 0 else xp.astype(typical == 0, squares.dtype)
        weights = weights / xp.sum(weights)
        tolerance = max(self.tolerance, float(xp.finfo(squares.dtype).eps))
        for _ in range(self.max_steps):
            # ||sum_j w_j x_j - x_i||^2 = (D w)_i - w D w / 2 for sum w = 1 and D the squared distances
            towards = squares @ weights
            distances = xp.sqrt(xp.clip(towards - (weights @ towards) / 2, min=0))
            scale = float(xp.sort(distances)[count // 2])  # the median: no outlier moves it much
            if scale == 0:
                break
            fresh = 1 / xp.clip(distances / scale, min=self.smoothing)
            fresh = fresh / xp.sum(fresh)
            change = fresh - weights
            weights = fresh
            moved = float(-(change @ (squares @ change)) / 2)  # squared length, since the changes sum to zero
            if moved <= (tolerance * scale) ** 2:
                break
        return weights


class NormThreshold(Aggregator):
    """Mean of the votes without the f of largest norm (TGN); of equal norms the later one goes."""

    source: ClassVar[str] = "Ghosh et al. 2019"
    byzantine: Count

    def fewest(self) -> int:
        """f + 1."""
        return self.byzantine + 1

    def aggregate(self, votes: Votes, previous: Vector | None = None, out: Vector | None = None) -> Vector:
        """Drop and average, in the votes' order."""
        self.check(votes.shape[0])
        votes, xp = as_floats(votes), namespace(votes)
        order = xp.argsort(xp.sum(votes * votes, axis=-1), stable=True)
        kept = xp.sort(order[: votes.shape[0] - self.byzantine])
        return store(xp.mean(xp.take(votes, kept, axis=0), axis=0), out)


def _share(votes: int, byzantine: int) -> float:
    """a = f/(n - 2f); infinite where half or more of the votes lie."""
    return byzantine / (votes - 2 * byzantine) if votes > 2 * byzantine else inf


def krum_scores(votes: Float[Array, "votes dim"], byzantine: int) -> Float[Array, " votes"]:
    """Sum of squared distances to the n - f - 2 nearest other votes."""
    xp = namespace(votes)
    ordered = xp.sort(squared_distances(votes), axis=-1)  # the first is the vote itself, at zero
    return xp.sum(ordered[:, 1 : votes.shape[0] - byzantine - 1], axis=-1)


Choice = Mean | CoordinateMedian | TrimmedMean | Phocas | Krum | MultiKrum | GeometricMedian | NormThreshold
